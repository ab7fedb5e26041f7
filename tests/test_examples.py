"""Every example runs, and says what has been learned."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SAYS = {
    "own_env_and_cell": (2_000, r"mean return -?\d\.\d\d"),
    "hidden_velocities": (2_000, r"the pole stands for \d+ steps"),
    "images": (2_000, r"caught \d+%"),
    "recurrent_ppo": (900, r"caught \d+%"),
}


def test_every_example_is_tried():
    elsewhere = {"rl_zoo"}  # by tests/third_party/test_rl_zoo.py
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SAYS) | elsewhere


@pytest.mark.processes
@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name):
    timesteps, said = SAYS[name]
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--timesteps", str(timesteps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert re.fullmatch(said, done.stdout.splitlines()[-1])
