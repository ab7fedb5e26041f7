"""Every benchmark runs, with as little as it can measure, and writes a record that can be read; no time is asserted."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "acting_speed": "--cells gru --n-envs 2 --n-steps 4 --repeats 1",
    "cell_speed": "--sizes 2 3 4 --repeats 1 --seconds 0.01",
    "env_speed": "--num-envs 1 3 --games RepeatFirstEasy-v0 --game-envs 3 --repeats 1 --seconds 0.01",
    "gpu": "--device cpu --num-envs 4 --agents fast-weights --sizes 2 3 4 --cells lru --repeats 1 --seconds 0.01",
    "growth": "--n 8 --n-steps 5 --hidden-size 8 --workers 1 --n-envs 4 --seconds 0.1 --picture FOLDER/growth.png",
    "ppo_speed": "--cells gru --n-envs 4 --n-steps 4 --batch-size 8 --repeats 1 --seconds 0.1",
    "products": "--sizes 2 3 4 --repeats 1 --seconds 0.01",
    "retrieval_epoch": "--cells fast-weights --hidden-size 4 --share 0.001 --repeats 1",
    "ray_speed": "--n 5 --num-envs 4 --hidden-size 8 --runners 1 --repeats 1 --seconds 0.1",
    "roofline": "--sizes 2 3 4 --repeats 1",
    "solve_time": "--algos a2c --seeds 0 --timesteps 2000 --episodes 10 --peer-seeds 0 --peer-envs 4 --peer-batch 512"
    " --peer-learning-rates 1e-3 --patience 1",
    "training_speed": "--cells gru --n-envs 4 --workers 1 --threads 1 --peer-envs 4 --peer-batches 512 --repeats 1"
    " --seconds 0.1",
    "worker_speed": "--num-envs 2 --microseconds 0 --repeats 1 --seconds 0.05",
}
NOT_HERE = {
    "catch_deblur",
    "catch_learning",
    "catch_memory",
    "catch_variants",
    "compare_checkouts",
    "jax_agent",
    "jax_speed",
    "measure",
    "operations",
    "pomdp",
    "retrieval_keys",
    "single_file_ppo",
}
"""What the others share, scripts whose runs cannot be made short enough, and what has tests of its own."""


def numbers(record):
    """All numbers of a record."""
    if isinstance(record, dict):
        return [number for part in record.values() for number in numbers(part)]
    if isinstance(record, list):
        return [number for part in record for number in numbers(part)]
    return [record] if isinstance(record, int | float) else []


def test_no_script_is_forgotten():
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == set(SCRIPTS) | NOT_HERE


def test_make_bench_makes_the_published_tables():
    published = (ROOT / "results" / "README.md").read_text()
    commands = [line.strip() for line in (ROOT / "Makefile").read_text().splitlines() if "benchmarks/" in line]
    assert commands
    assert [command for command in commands if command not in published] == []


@pytest.mark.processes
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_measures_something(name, tmp_path):
    if name == "ray_speed":
        pytest.importorskip("ray", reason="needs pip install 'fw-rl[ray]'")
    out = tmp_path / "record.json"
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *SCRIPTS[name].replace("FOLDER", str(tmp_path)).split()]
    command += ["--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    found = numbers(json.loads(out.read_text()))
    assert found
    assert all(math.isfinite(number) for number in found)


@pytest.mark.processes
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_benchmark_of_a_gpu_says_where_there_is_none():
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert done.stderr == "--device must be cpu on a machine without a GPU that Torch can use, got cuda\n"
