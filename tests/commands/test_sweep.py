"""A sweep makes what is missing, goes on after every kind of end, and can be shared."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from fw_rl.commands.sweep import main
from fw_rl.experiments.search import study
from fw_rl.experiments.search import sweep as library
from fw_rl.experiments.search.learning import read_learnings
from fw_rl.experiments.search.space import search_space
from fw_rl.experiments.search.study import SettingsStudy
from fw_rl.experiments.search.swept import Swept
from fw_rl.experiments.settings import resolve

SPACE = """
shared:
  learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
  n_envs: {choices: [2, 4]}
  n_steps: {low: 4, high: 8}
  hidden_size: {choices: [4]}
cells:
  rnn: {recurrent_scale: {low: 0.1, high: 1.0}}
"""


SMALL = ["--env", "Catch-5-2", "--cell", "rnn", "--timesteps", "600", "--eval-episodes", "4", "--jobs", "2"]


@pytest.fixture
def command(tmp_path):
    """The arguments of a small sweep."""
    (tmp_path / "space.yaml").write_text(SPACE)

    def command(*arguments, out="out"):
        return [*SMALL, "--space", str(tmp_path / "space.yaml"), "--out", str(tmp_path / out), *map(str, arguments)]

    return command


@pytest.fixture
def sweep(command):
    return lambda *arguments, out="out": main(command(*arguments, out=out))


@pytest.fixture
def short_grace(monkeypatch):
    """What was lost is known to be after two seconds."""
    for module in (study, library):
        monkeypatch.setattr(module, "HEARTBEAT", 1)
        monkeypatch.setattr(module, "GRACE", 1)


def trials(tmp_path, out="out"):
    return read_learnings(tmp_path / out / "Catch-5-2" / "rnn" / "trials.json")


def only_line(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


def start(arguments):
    command = [sys.executable, "-m", "fw_rl", "sweep", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_sweep_grows_and_nothing_is_made_twice(sweep, tmp_path, capsys):
    assert sweep("--trials", 2) == 0
    printed = capsys.readouterr().out
    assert "[2/2]" in printed and "2 trials, 0 diverged" in printed
    before = trials(tmp_path)
    assert sweep("--trials", 3) == 0
    assert "[3/3]" in capsys.readouterr().out
    assert trials(tmp_path)[:2] == before
    assert sorted(known.settings["seed"] for known in trials(tmp_path)) == [0, 1, 2]
    for known in trials(tmp_path):
        assert set(known.parameters) == {"learning_rate", "n_envs", "n_steps", "hidden_size", "recurrent_scale"}
        assert known.settings["n_steps"] == known.parameters["n_steps"]
        assert known.settings["cell_options"]["recurrent_scale"] == known.parameters["recurrent_scale"]
    assert sweep("--trials", 3) == 0
    assert "[" not in capsys.readouterr().out.splitlines()[0]


@pytest.mark.processes
def test_the_same_trials_whether_or_not_the_sweep_was_stopped(sweep, tmp_path):
    assert sweep("--trials", 2) == 0
    for count in (1, 2):
        assert sweep("--trials", count, out="stopped") == 0

    def drawn(out):
        return [known.parameters for known in trials(tmp_path, out)]

    assert drawn("out") == drawn("stopped")
    assert sweep("--trials", 1, "--seed", 1, out="other") == 0
    assert drawn("other") != drawn("out")[:1]


@pytest.mark.processes
def test_the_best_is_trained_with_new_seeds(sweep, tmp_path, capsys):
    assert sweep("--trials", 2, "--retrain", 1) == 0
    path = tmp_path / "out" / "Catch-5-2" / "rnn" / "seeds.json"
    first = read_learnings(path)
    assert sweep("--trials", 2, "--retrain", 3) == 0
    seeds = read_learnings(path)
    assert seeds[0] == first[0]
    assert [known.settings["seed"] for known in seeds] == [10_000, 10_001, 10_002]
    chosen = max(trials(tmp_path), key=lambda known: known.area)
    assert all(known.settings | dict(seed=0) == chosen.settings | dict(seed=0) for known in seeds)
    assert len({tuple(known.returns) for known in seeds}) > 1
    text = (path.parent / "report.md").read_text()
    assert "with 3 new seeds" in text
    assert text in capsys.readouterr().out

    changed = [json.loads(path.read_text())[0]]
    changed[0]["settings"]["gamma"] = 0.5
    path.write_text(json.dumps(changed))
    capsys.readouterr()
    assert sweep("--trials", 2, "--retrain", 3) == 2
    assert "must have the settings of the best trial" in only_line(capsys)
    assert sweep("--trials", 2) == 0
    assert "have no new seeds: seeds.json is of other settings" in capsys.readouterr().out


@pytest.mark.processes
def test_finalists_get_new_seeds_and_the_best_is_trained_again(sweep, tmp_path, capsys):
    assert sweep("--trials", 3, "--finalists", 2, "--retrain", 1) == 0
    folder = tmp_path / "out" / "Catch-5-2" / "rnn"
    finals, seeds = read_learnings(folder / "finals.json"), read_learnings(folder / "seeds.json")
    finalists = Swept(trials(tmp_path)).ranked[:2]
    assert [known.seed for known in finals] == [seed for seed in range(5_000, 5_005) for _ in finalists]
    assert [known.parameters for known in finals] == [trial.parameters for trial in finalists] * 5
    assert [known.parameters for known in seeds] == [Swept(finalists, finals).chosen.parameters]
    capsys.readouterr()
    assert sweep("--trials", 3, "--finalists", 2, "--retrain", 1) == 0
    assert "[" not in capsys.readouterr().out
    assert read_learnings(folder / "finals.json") == finals


@pytest.mark.processes
def test_other_settings_need_another_study(sweep, capsys):
    assert sweep("--trials", 0, "--timesteps", 700) == 0  # of which nothing was made
    assert sweep("--trials", 1) == 0
    capsys.readouterr()
    assert sweep("--trials", 1, "--timesteps", 700) == 2
    assert "with timesteps 600, got 700" in only_line(capsys)
    assert sweep("--trials", 1, "--sampler", "tpe") == 2
    assert "with sampler random, got tpe" in only_line(capsys)


@pytest.mark.processes
def test_trials_that_a_file_has_are_not_made_again(sweep, tmp_path, capsys):
    assert sweep("--trials", 3) == 0
    before = trials(tmp_path)
    (tmp_path / "out" / "studies.db").unlink()
    path = tmp_path / "out" / "Catch-5-2" / "rnn" / "trials.json"
    path.write_text(json.dumps([vars(known) for known in (before[0], before[2])]))  # the second was not saved
    assert sweep("--trials", 3) == 0
    after = trials(tmp_path)
    assert [after[0], after[2]] == [before[0], before[2]]
    assert (after[1].parameters, after[1].returns) == (before[1].parameters, before[1].returns)

    (tmp_path / "out" / "studies.db").unlink()
    for rate in (0.005, 0.5):  # not that of its settings; not in the range either
        path.write_text(json.dumps([vars(before[0]) | dict(parameters=dict(before[0].parameters, learning_rate=rate))]))
        capsys.readouterr()
        content = path.read_bytes()
        assert sweep("--trials", 3) == 2
        assert "trials.json must have the settings of this sweep, got trial 0 with others" in only_line(capsys)
        assert path.read_bytes() == content
    path.write_text("garbage")
    assert sweep("--trials", 3) == 2
    assert "trials.json must hold trainings" in only_line(capsys)
    assert path.read_text() == "garbage"


@pytest.mark.processes
def test_trials_are_taken_over_from_files_without_a_database(sweep, tmp_path):
    assert sweep("--trials", 2, "--retrain", 1) == 0
    folder = tmp_path / "out" / "Catch-5-2" / "rnn"
    whole = [read_learnings(folder / name) for name in ("trials.json", "seeds.json")]
    (tmp_path / "out" / "studies.db").unlink()
    assert sweep("--trials", 2, "--retrain", 2) == 0
    assert read_learnings(folder / "trials.json") == whole[0]
    assert read_learnings(folder / "seeds.json")[:1] == whole[1]


@pytest.mark.processes
def test_the_best_is_not_chosen_while_trials_run_elsewhere(sweep, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").mkdir()
    config = resolve(env="Catch-5-2", cell="rnn", timesteps=600, tuned_for_cell=False)
    elsewhere = SettingsStudy(config, search_space("rnn", tmp_path / "space.yaml"), tmp_path / "out" / "studies.db")
    elsewhere.ask(1)
    monkeypatch.setattr(library, "GRACE", 0)
    monkeypatch.setattr(library, "HEARTBEAT", 0)
    assert sweep("--trials", 2, "--retrain", 1) == 0
    printed = capsys.readouterr().out
    assert "1 trials still run elsewhere" in printed and "1 trials, 0 diverged" in printed
    assert not (tmp_path / "out" / "Catch-5-2" / "rnn" / "seeds.json").exists()


@pytest.mark.processes
def test_a_finalist_stays_one_however_many_are_asked_for(sweep, tmp_path):
    """What was once trained with new seeds has a part in the choice, as it has in Figure 5."""
    assert sweep("--trials", 3, "--finalists", 3) == 0
    folder = tmp_path / "out" / "Catch-5-2" / "rnn"
    finals = read_learnings(folder / "finals.json")
    assert sweep("--trials", 3, "--finalists", 2, "--retrain", 1) == 0
    assert read_learnings(folder / "finals.json") == finals
    (seed,) = read_learnings(folder / "seeds.json")
    assert seed.differs_by_seed(Swept(trials(tmp_path), finals).chosen)


BAD = {
    "no such cell": (["--cell", "elephant"], "cell .*elephant"),
    "no such environment": (["--env", "Catch-0-0"], "Catch-0-0"),
    "no such sampler": (["--sampler", "grid"], "--sampler must be one of random, tpe, got 'grid'"),
    "no jobs": (["--jobs", "0"], "--jobs .*at least 1"),
    "no finalist": (["--finalists", "0"], "--finalists .*at least 1"),
    "trials below zero": (["--trials", "-1"], "--trials .*at least 0"),
    "no frames": (["--timesteps", "0"], "--timesteps .*at least 1"),
    "no such file": (["--space", "nowhere.yaml"], "nowhere.yaml"),
    "no such storage": (["--storage", "elephant://x"], "--storage must be a database that can be opened, got elephant://x"),
    "nothing to train again": (["--trials", "0", "--retrain", "1"], "there is nothing to train with new seeds"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, sweep, capsys):
    arguments, message = BAD[case]
    assert sweep(*arguments) == 2
    assert re.search(message, only_line(capsys))


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_goes_on_after_it_was_stopped(number, command, sweep, short_grace, tmp_path):
    whole = ["--trials", 3, "--timesteps", 2000]
    process = start(command(*whole, out="stopped"))
    first = process.stdout.readline()
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert first.startswith("[1/3]")
    (known,) = [known for known in trials(tmp_path, "stopped") if f"[1/3] {known.seed}: " in first]
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "The same command goes on" in output
        assert errors == ""
    assert sweep(*whole, out="stopped") == 0
    assert [one.seed for one in trials(tmp_path, "stopped")] == [0, 1, 2]
    assert known in trials(tmp_path, "stopped")  # with its seconds, so that it was not made again


@pytest.mark.processes
@pytest.mark.parametrize("storage", [None, "sqlite:///{}/shared.db"])
def test_sweeps_side_by_side_share_their_trials(storage, command, sweep, tmp_path, capsys):
    """By the database of one folder, or by another one, nothing is made twice."""
    shared = [] if storage is None else ["--storage", storage.format(tmp_path)]
    outs = ["one"] * 3 if storage is None else ["one", "two", "three"]
    others = [start(command("--trials", 9, "--jobs", 1, *shared, out=out)) for out in outs[:2]]
    try:
        printed = [others[0].stdout.readline()]  # so that they are at work
        assert sweep("--trials", 9, "--jobs", 1, *shared, out=outs[2]) == 0
        printed += [capsys.readouterr().out, *(other.communicate(timeout=60)[0] for other in others)]
    finally:
        for other in others:
            other.kill()
    assert [other.returncode for other in others] == [0, 0]
    for out in outs:
        assert sweep("--trials", 9, *shared, out=out) == 0
        assert trials(tmp_path, out) == trials(tmp_path, "one")
    assert [known.seed for known in trials(tmp_path, "one")] == list(range(9))
    made = [line for text in printed for line in text.splitlines() if line.startswith("[")]
    assert len(made) == 9


@pytest.mark.processes
def test_without_optuna_one_line_says_what_to_install(tmp_path):
    (tmp_path / "optuna.py").write_text("raise ModuleNotFoundError('No module named optuna', name='optuna')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    command = [sys.executable, "-m", "fw_rl", "sweep", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "fw-rl sweep: error: optuna is missing: pip install 'fw-rl[sweep]'\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.processes
def test_a_killed_training_is_begun_again(command, sweep, tmp_path):
    """A worker that is killed is replaced, and the trial comes to what it would have come to."""
    assert sweep("--trials", 1) == 0
    process = start(command("--trials", 1, "--jobs", 1, out="killed"))
    worker = None
    while worker is None and process.poll() is None:
        worker = next(iter(_workers(process.pid)), None)
        time.sleep(0.01)
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "another takes its place" in errors
    (whole,), (replaced,) = trials(tmp_path), trials(tmp_path, "killed")
    assert replaced.returns == whole.returns


def _workers(pid):
    """The trainings of a sweep: children of its fork server."""
    for server in _children(pid):
        yield from _children(server)


def _children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return []
