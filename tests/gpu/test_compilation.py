"""The kernels compile for a GPU, although no test here need run on one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu

SHARED_MEMORY = 99 * 1024
"""What a program can have on the GPUs of compute capability 8.6 and 8.9; those of servers have more."""


def test_kernels_compile_and_fit_into_shared_memory(device, tmp_path):
    environment = os.environ | dict(TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    command = [sys.executable, "-m", "tests.gpu.compilation", "80"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = [int(number) for number in re.findall(r"(\d+) bytes of shared memory", done.stdout)]
    assert len(found) == 12
    assert max(found) <= SHARED_MEMORY
