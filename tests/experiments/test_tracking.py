"""Runs on Weights & Biases, by a package that writes down how it is called, and by the real one where it is installed."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from fw_rl.commands.train import main
from tests.commands.helpers import train


class Error(Exception):
    """The package's error."""


class UsageError(Error):
    """One that the user can fix."""


class FakeRun:
    """A run that keeps what it is told."""

    entity = "me"

    def __init__(self, project, id="abc123", **arguments):
        self.project, self.id, self.arguments, self.summary, self.code = project, id, arguments, {}, None

    def finish(self, code):
        self.code = code


class FakeWandb(ModuleType):
    """Takes the place of the package; `failure` is what it raises."""

    errors = SimpleNamespace(Error=Error, UsageError=UsageError)

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.failure = [], None

    def login(self):
        if self.failure is not None:
            raise self.failure

    def init(self, **arguments):
        self.runs.append(FakeRun(**arguments))
        return self.runs[-1]


@pytest.fixture
def wandb(monkeypatch):
    package = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", package)
    return package


def test_a_run_has_its_settings_and_its_evaluation(wandb, tmp_path):
    code, folder = train(tmp_path, "--wandb", "memories")
    (run,) = wandb.runs
    assert (code, run.code, run.project) == (0, 0, "memories")
    assert run.arguments["config"] == json.loads((folder / "config.json").read_text())["settings"]
    assert run.arguments["sync_tensorboard"] and run.arguments["name"] == folder.name
    assert run.summary["eval"] == json.loads((folder / "eval.json").read_text())


def test_a_run_begins_before_the_log_that_it_follows(wandb, tmp_path, monkeypatch):
    logs = []
    begin = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **arguments: logs.extend(tmp_path.rglob("events*")) or begin(**arguments))
    _, folder = train(tmp_path, "--wandb", "memories", timesteps=24)
    assert logs == [] and list(folder.glob("events*"))


def test_a_resumed_run_is_the_same_one_without_being_told(wandb, tmp_path):
    _, folder = train(tmp_path, "--wandb", "memories", timesteps=24)
    assert main(["--resume", str(folder), "--timesteps", "48", "--eval-episodes", "2", "--quiet"]) == 0
    first, second = wandb.runs
    assert (second.project, second.arguments["entity"], second.id) == (first.project, first.entity, first.id)
    assert (second.arguments["resume"], second.arguments["config"]["timesteps"]) == ("allow", 48)


def test_without_the_option_nothing_is_asked_of_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, folder = train(tmp_path, timesteps=24)
    assert code == 0 and not (folder / "wandb.json").exists()


BAD = {
    "no package": (2, ["--wandb", "x"], "--wandb needs wandb: pip install 'fw-rl[wandb]'"),
    "no account": (2, ["--wandb", "x"], "--wandb needs an account: No API key configured."),
    "no network": (1, ["--wandb", "x"], "Weights & Biases does not answer, WANDB_MODE=offline waits: no such host"),
    "no name": (2, ["--wandb", "me/x"], "--wandb must be the name of a project, "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_before_a_folder_is_made(case, wandb, tmp_path, monkeypatch, capsys):
    code, words, expected = BAD[case]
    if case == "no package":
        monkeypatch.setitem(sys.modules, "wandb", None)
    wandb.failure = {"no account": UsageError("No API key configured."), "no network": Error("no such host")}.get(case)
    assert main(["--env", "Catch-5-2", "--log-dir", str(tmp_path / "runs"), *words]) == code
    printed = capsys.readouterr().err
    assert f"error: {expected}" in printed and printed.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_another_project_and_a_damaged_record_are_refused(wandb, tmp_path, capsys):
    _, folder = train(tmp_path, "--wandb", "memories", timesteps=24)
    for content, words, expected in (
        (None, ["--wandb", "others"], "--wandb must be left out or memories, as in the run, got 'others'"),
        ("{}", [], "wandb.json is damaged: 'project'"),
    ):
        if content:
            (folder / "wandb.json").write_text(content)
        assert main(["--resume", str(folder), *words]) == 2
        assert expected in capsys.readouterr().err


@pytest.mark.processes
def test_the_real_package_keeps_a_run_without_network(tmp_path, monkeypatch):
    real = pytest.importorskip("wandb", reason="needs pip install 'fw-rl[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    code, folder = train(tmp_path / "runs", "--wandb", "memories", timesteps=48)
    assert code == 0 and real.run is None
    record = json.loads((folder / "wandb.json").read_text())
    assert record["project"] == "memories"
    assert main(["--resume", str(folder), "--timesteps", "96", "--eval-episodes", "2", "--quiet"]) == 0
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{record['id']}/run-{record['id']}.wandb"))) == 2
