"""Every example runs, and says what has been learned."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize("source", ["CONTRIBUTING.md", "examples/own_env_and_cell.py"])
def test_a_cell_that_is_shown_stays_on_its_device(tmp_path, source):
    path = ROOT / source
    if path.suffix == ".md":
        block = next(block for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.S) if "register_cell" in block)
        path = tmp_path / "cell.py"
        path.write_text(block)
    cell = runpy.run_path(str(path))["LeakyCell"](3, 4).to("meta")
    y, state = cell(
        torch.empty(5, 2, 3, device="meta"), cell.initial_state(2), torch.ones(5, 2, dtype=torch.bool, device="meta")
    )
    assert {part.device.type for part in (*cell.initial_state(2), y, *state)} == {"meta"}
    assert cell.double().initial_state(2)[0].dtype == torch.float64
