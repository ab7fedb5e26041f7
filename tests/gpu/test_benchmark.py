"""The benchmark of a GPU, on one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_benchmark_runs_on_a_gpu():
    options = ["--num-envs", "64", "--sizes", "8", "9", "16", "--repeats", "1", "--seconds", "0.05"]
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert torch.cuda.get_device_name() in done.stdout
