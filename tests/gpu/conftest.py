"""Where Triton's kernels run: on a GPU, or by Triton's interpreter on the processor (`TRITON_INTERPRET=1`), or else nowhere."""

from importlib.util import find_spec

import pytest
import torch

from fw_rl.kernels import can_run_triton


@pytest.fixture
def device():
    """The device of a test, which is skipped where no kernel can run."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    if not find_spec("triton") or not can_run_triton(torch.zeros(1, device=found)):
        pytest.skip("needs Triton, and a GPU or TRITON_INTERPRET=1")
    return found
