"""Sharing an agent: the folder with its card, the way to the Hub and back, and what bad input is answered with."""

import json
import re
import shutil
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from fw_rl.commands.export import main
from fw_rl.commands.play import main as play
from fw_rl.commands.train import main as train_on
from fw_rl.experiments.agents import evaluate, load_trained
from fw_rl.experiments.hub import local_run, push
from tests.commands.helpers import other_run, train
from tests.experiments.fake_hub import Refusal, install

FILES = {"README.md", "config.json", "eval.json", "episodes.gif", "learning_curve.png", "model.safetensors", "progress.csv"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    return install(monkeypatch, tmp_path / "hub")


@pytest.fixture(scope="module")
def shared(catch_run, tmp_path_factory):
    """The folder that a run becomes; to be read only."""
    folder = tmp_path_factory.mktemp("cards") / "catch"
    assert main([str(catch_run), "--card", str(folder)]) == 0
    return folder


def head(folder):
    """The metadata at the head of a card."""
    _, metadata, _ = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(metadata)


def blocks(folder, language):
    return re.findall(rf"```{language}\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


def test_the_folder_has_the_files_of_the_run(catch_run, shared):
    assert {path.name for path in shared.iterdir()} == FILES
    for name in FILES - {"README.md", "model.safetensors"}:
        assert (shared / name).read_bytes() == (catch_run / name).read_bytes()
    last = max((catch_run / "checkpoints").iterdir())
    assert (shared / "model.safetensors").read_bytes() == last.read_bytes()


def test_the_head_of_the_card_has_the_measured_return(catch_run, shared):
    record, metadata = json.loads((catch_run / "eval.json").read_text()), head(shared)
    assert metadata["library_name"] == "fw-rl"
    assert {"fw_rl-Catch-5-2-v0", "reinforcement-learning", "a2c", "fast-weights"} <= set(metadata["tags"])
    (model,) = metadata["model-index"]
    (result,) = model["results"]
    assert result["dataset"] == dict(name="fw_rl/Catch-5-2-v0", type="fw_rl/Catch-5-2-v0")
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("mean_reward", f"{record['mean']:.2f} +/- {record['std']:.2f}")


def test_the_card_says_all_settings_and_shows_the_pictures(catch_run, shared):
    card = (shared / "README.md").read_text()
    settings = json.loads((catch_run / "config.json").read_text())["settings"]
    for name, value in settings.items():
        assert (f"| `{name}` | `{json.dumps(value)}` |" in card) == (value is not None)
    assert "](episodes.gif)" in card and "](learning_curve.png)" in card


def test_huggingface_reads_the_card(shared):
    hub = pytest.importorskip("huggingface_hub", reason="needs pip install 'fw-rl[hub]'")
    data = hub.ModelCard.load(shared / "README.md").data
    assert data.library_name == "fw-rl"
    (result,) = data.eval_results
    assert (result.task_type, result.dataset_name, result.metric_type) == (
        *("reinforcement-learning", "fw_rl/Catch-5-2-v0", "mean_reward"),
    )


def test_python_code_of_the_card_runs(catch_run, shared, tmp_path, monkeypatch, capsys):
    _, seeing = train(tmp_path / "runs", "--env", "CartPole-v1", "--cell", "gru", "--previous-step", "True", timesteps=48)
    assert main([str(seeing), "--card", str(tmp_path / "cartpole")]) == 0
    for folder, lowest, highest in ((shared, -1, 1), (tmp_path / "cartpole", 1, 500)):
        monkeypatch.chdir(folder.parent)
        capsys.readouterr()
        (code,) = blocks(folder, "python")
        exec(compile(code, "card", "exec"), {})
        assert lowest <= float(capsys.readouterr().out) <= highest


class Nested(gym.Env):
    """An environment whose observations the command line flattens."""

    observation_space = gym.spaces.Tuple([gym.spaces.Discrete(2), gym.spaces.Box(0, 1, (2,))])
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return (0, np.zeros(2, np.float32)), {}

    def step(self, action):
        return (1, np.ones(2, np.float32)), 1.0, True, False, {}


gym.register("tests/Nested-v0", Nested, disable_env_checker=True)


def test_code_that_gymnasium_alone_cannot_run_is_left_out(tmp_path, monkeypatch, capsys):
    _, run = train(tmp_path / "runs", "--env", "tests/Nested-v0", "--cell", "gru", timesteps=48)
    assert main([str(run), "--card", str(tmp_path / "nested")]) == 0
    assert "No animation: tests/Nested-v0 cannot draw itself" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(tmp_path / "nested", "python")
    exec(compile(code, "card", "exec"), {})
    assert "gym.make" not in code and "Observations are flattened" in code
    assert "episodes.gif" not in (tmp_path / "nested" / "README.md").read_text()


def test_what_is_not_evaluated_yet_is_evaluated(catch_run, tmp_path, capsys):
    run = shutil.copytree(catch_run, tmp_path / "run")
    (run / "episodes.gif").write_bytes(b"of the last checkpoint, as eval.json is")
    first = min((run / "checkpoints").iterdir())
    assert main([str(run), "--card", str(tmp_path / "first"), "--checkpoint", str(first)]) == 0
    assert "Evaluating 1,000 greedy" in capsys.readouterr().out
    record = json.loads((tmp_path / "first" / "eval.json").read_text())
    returns = evaluate(*load_trained(run, first), 1000)
    assert (record["mean"], record["timesteps"]) == (returns.mean(), int(first.stem))
    assert (tmp_path / "first" / "model.safetensors").read_bytes() == first.read_bytes()
    assert (tmp_path / "first" / "episodes.gif").read_bytes().startswith(b"GIF")


def test_a_second_card_takes_the_place_of_the_first(catch_run, shared, tmp_path):
    folder = shutil.copytree(shared, tmp_path / "card")
    run = other_run(catch_run, tmp_path / "run", "fw_rl/Retrieval-4-v0")
    assert main([str(run), "--card", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == FILES - {"learning_curve.png", "progress.csv"}
    assert head(folder)["model-index"][0]["results"][0]["dataset"]["name"] == "fw_rl/Retrieval-4-v0"


@pytest.mark.processes
def test_training_goes_on_in_the_folder_as_in_the_run(catch_run, shared, tmp_path):
    resumed = []
    for source in (catch_run, shared):
        run = shutil.copytree(source, tmp_path / source.name)
        assert train_on(["--resume", str(run), "--timesteps", "960", "--eval-episodes", "4", "--quiet"]) == 0
        resumed.append(safetensors.torch.load_file(run / "checkpoints" / f"{960:012d}.safetensors"))
    assert all(torch.equal(resumed[0][name], resumed[1][name]) for name in resumed[0] if name.startswith("policy"))


def test_a_card_overwrites_no_file_of_anybody_else(catch_run, tmp_path, capsys):
    (tmp_path / "README.md").write_text("my own notes")
    assert main([str(catch_run), "--card", str(tmp_path)]) == 2
    assert "--card must be a new folder, an empty one, or that of an earlier card" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "my own notes"


def test_an_agent_goes_to_the_hub_and_comes_back(hub, catch_run, tmp_path, capsys):
    folder = tmp_path / "card"
    assert main([str(catch_run), "--card", str(folder), "--push", "me/catch"]) == 0
    assert "On the Hub: https://huggingface.co/me/catch" in capsys.readouterr().out
    assert {path.name for path in (hub.root / "me" / "catch").iterdir()} == FILES
    assert "fw-rl play hf:me/catch" in blocks(hub.root / "me" / "catch", "bash")[0]

    played = []
    for run in (str(catch_run), "hf:me/catch"):
        assert play([run, "--episodes", "3", "--gif", str(tmp_path / "played.gif")]) == 0
        played.append((tmp_path / "played.gif").read_bytes())
    assert played[0] == played[1]

    assert main(["hf:me/catch", "--card", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_only_what_is_named_leaves_the_machine_and_comes_to_it(hub, shared, tmp_path):
    folder = shutil.copytree(shared, tmp_path / "card")
    (folder / "secret.txt").write_text("a key")
    push(folder, "me/catch")
    assert {path.name for path in (hub.root / "me" / "catch").iterdir()} == FILES
    (hub.root / "me" / "catch" / "evil.py").write_text("raise SystemExit")
    fetched = local_run(Path("hf:me/catch"))
    assert {path.name for path in fetched.iterdir()} == FILES


BAD_EXPORT = {
    "nothing": ([], "--onnx or --card must be given, got neither"),
    "the run itself": (["--card", "RUN"], "--card must be another folder than RUN, got "),
    "other files": (["--card", "FULL"], "--card must be a new folder, an empty one, or that of an earlier card, got "),
    "a file": (["--card", "FULL/file"], "--card must be a folder that can be made, got "),
    "a zip archive": (["--card", "NEW", "--checkpoint", "agent.zip"], "--checkpoint must be a file whose name ends in .safe"),
    "no repository": (["--card", "NEW", "--push", "me"], "--push must be USER/NAME, got 'me'"),
    "an address": (["--card", "NEW", "--push", "https://huggingface.co/me/x"], "--push must be USER/NAME, got 'https"),
    "no folder": (["--onnx", "NEW.onnx", "--push", "me/x"], "--push must be given with --card, whose folder it uploads"),
}


@pytest.mark.parametrize("case", BAD_EXPORT)
def test_bad_input_gets_one_line_and_exit_code_2(case, hub, catch_run, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    words, expected = BAD_EXPORT[case]
    places = dict(RUN=str(catch_run), FULL=str(tmp_path / "full"), NEW=str(tmp_path / "new"))
    words = [re.sub(r"^[A-Z]+", lambda word: places.get(word[0], word[0]), word) for word in words]
    assert main([str(catch_run), *words]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("fw-rl export: error: ") and printed.count("\n") == 1
    assert expected in printed
    assert {path.name for path in tmp_path.iterdir()} == {"full"} and not hub.root.exists()


FAILURES = {
    "no package": (2, "the Hugging Face Hub needs huggingface_hub: pip install 'fw-rl[hub]'"),
    "no token": (2, "--push needs a token of the Hugging Face Hub, got none"),
    "no right": (2, "--push must be a repository that your token may write to, got me/x: You have no right"),
    "no network": (1, "the Hugging Face Hub does not answer: no such host"),
    "an overloaded server": (1, "the Hugging Face Hub does not answer: try later"),
    "a full disk": (1, "cache: No space left on device"),
}


def failing(case, hub, monkeypatch):
    """Let the Hub fail so."""
    if case == "no package":
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    hub.token = None if case == "no token" else hub.token
    hub.failure = {
        "no right": Refusal(403, "You have no right"),
        "no network": Exception("no such host"),  # as of httpx, whose errors are no OSError
        "an overloaded server": Refusal(503, "try later"),
        "a full disk": OSError(28, "No space left on device", "cache"),
    }.get(case)


@pytest.mark.parametrize("case", FAILURES)
def test_a_folder_is_whole_where_it_cannot_be_pushed(case, hub, shared, tmp_path, monkeypatch, capsys):
    failing(case, hub, monkeypatch)
    code, expected = FAILURES[case]
    folder = tmp_path / "card"
    assert main([str(shared), "--card", str(folder), "--push", "me/x"]) == code
    printed = capsys.readouterr().err
    assert printed.startswith(f"fw-rl export: error: {expected}") and printed.count("\n") == 1
    assert f"the folder {folder} is whole" in printed
    assert {path.name for path in folder.iterdir()} == FILES


@pytest.mark.parametrize("case", [case for case in FAILURES if case not in ("no token", "no right")])
def test_what_cannot_be_fetched_gets_one_line(case, hub, monkeypatch, capsys):
    failing(case, hub, monkeypatch)
    code, expected = FAILURES[case]
    assert play(["hf:me/x"]) == code
    assert capsys.readouterr().err.startswith(f"fw-rl play: error: {expected}")


@pytest.mark.parametrize(
    "name, expected", [("me", "RUN must be USER/NAME, got 'me'"), ("me/none", "that is there and that you")]
)
def test_a_repository_that_is_not_there_gets_one_line(name, expected, hub, capsys):
    assert play([f"hf:{name}"]) == 2
    printed = capsys.readouterr().err
    assert expected in printed and printed.count("\n") == 1


STRANGE = {
    "no agent": ("RUN must be a repository of an agent, which has config.json, got hf:me/x", None),
    "a module of a cell": (
        "hf:me/x asks to import the module evil: if you trust it, `hf download",
        dict(cell="evil:lstm"),
    ),
    "a module of an environment": ("hf:me/x asks to import the module evil.sub", dict(env="evil.sub:Catch-v0")),
    "a number for a name": ("not the settings of a run: env is 5", dict(env=5)),
    "a word for a number": ("not the settings of a run: hidden_size is 'many'", dict(hidden_size="many")),
    "an unknown algorithm": ("not the settings of a run: 'dqn'", dict(algo="dqn")),
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_strange_repository_gets_one_line_and_runs_nothing(case, hub, shared, tmp_path, monkeypatch, capsys):
    expected, changed = STRANGE[case]
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    repository = shutil.copytree(shared, hub.root / "me" / "x")
    record = json.loads((repository / "config.json").read_text())
    if changed is None:
        (repository / "config.json").unlink()
    else:
        (repository / "config.json").write_text(json.dumps(record | dict(settings=record["settings"] | changed)))
    assert play(["hf:me/x"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("fw-rl play: error: ") and printed.count("\n") == 1
    assert expected in printed
