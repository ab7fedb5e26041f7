"""What is installed with what: a core for the agents, an extra for the commands, and bounds that are tested."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fw_rl
from fw_rl.__main__ import COMMANDS, main
from fw_rl.commands.command_line import PACKAGES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(text) for text in PROJECT["dependencies"]]
CLI = [Requirement(text) for text in PROJECT["optional-dependencies"]["cli"]]

LEARN_AND_SAVE = """
import sys
sys.modules |= dict.fromkeys({blocked})
import fw_rl.agents, fw_rl.cells, fw_rl.envs, fw_rl.fast_slow, fw_rl.memory, fw_rl.scan, fw_rl.tasks
model = fw_rl.agents.RecurrentPPO("RecurrentPolicy", "fw_rl/Catch-16-3-v0", n_steps=32, batch_size=32)
model.learn(32).save("agent")
fw_rl.agents.RecurrentPPO.load("agent")
"""


@pytest.mark.processes
def test_agents_learn_and_save_with_the_core_alone(tmp_path):
    code = LEARN_AND_SAVE.format(blocked=PACKAGES)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=path_to_root(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_its_extra_gets_one_line(name, monkeypatch, capsys):
    for package in ("matplotlib", "tyro"):
        monkeypatch.setitem(sys.modules, package, None)
    assert main([name, "--help"]) == 2
    assert capsys.readouterr().err == f"fw-rl {name}: error: the commands need matplotlib, tyro: pip install 'fw-rl[cli]'\n"


def test_the_commands_look_for_what_their_extra_brings():
    imported_as = {"pillow": "PIL", "pyyaml": "yaml"}
    assert set(PACKAGES) == {imported_as.get(requirement.name, requirement.name) for requirement in CLI}


@pytest.mark.processes
def test_the_help_of_train_imports_no_torch():
    code = "import sys; from fw_rl.__main__ import main; main(['train', '--help'])"
    shown = subprocess.run([sys.executable, "-X", "importtime", "-c", code], env=path_to_root(), capture_output=True, text=True)
    assert "--cell" in shown.stdout
    assert not re.search(r"\| +(matplotlib|PIL|torch|numba|stable_baselines3)$", shown.stderr, re.MULTILINE)


@pytest.mark.processes
def test_the_agents_import_nothing_that_learning_does_not_need():
    others = {"PIL", "matplotlib", "onnx", "optuna", "pandas", "pygame", "ray", "tabulate", "torch._dynamo", "tyro"}
    code = "import sys, stable_baselines3; before = {*sys.modules}; import fw_rl.agents; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], env=path_to_root(), capture_output=True, text=True, check=True)
    assert others.intersection(done.stdout.split()) == set()


def test_every_bound_has_a_lowest_version():
    assert [requirement.name for requirement in CORE + CLI if ">=" not in str(requirement.specifier)] == []


def test_the_newest_version_is_in_the_changelog():
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert newest == fw_rl.__version__


def path_to_root():
    return {"PYTHONPATH": str(ROOT), "PATH": ""}
