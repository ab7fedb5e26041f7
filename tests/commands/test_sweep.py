"""A sweep makes what is missing, goes on after every kind of end, and can be shared."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState

from fw_rl.commands.sweep import main
from fw_rl.experiments.search.choice import best, choose, finalists
from fw_rl.experiments.search.learning import Learning, Progress, read_learnings
from fw_rl.experiments.search.report import report
from fw_rl.experiments.search.space import search_space
from fw_rl.experiments.search.study import SettingsStudy
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


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    small = ["--env", "Catch-5-2", "--cell", "rnn", "--timesteps", "400", "--eval-episodes", "4", "--jobs", "2"]

    def sweep(*arguments, out="out"):
        return main([*small, "--space", str(tmp_path / "space.yaml"), "--out", str(tmp_path / out), *map(str, arguments)])

    return sweep


@pytest.fixture
def make_study(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    space = search_space("rnn", tmp_path / "space.yaml")
    config = resolve(env="Catch-5-2", cell="rnn", timesteps=400, tuned_for_cell=False)
    return lambda **options: SettingsStudy(config, space, tmp_path / "studies.journal", **options)


def trials(tmp_path, out="out"):
    return read_learnings(tmp_path / out / "Catch-5-2" / "rnn" / "trials.json")


def learning(area=0.0, **others):
    given = dict(settings=dict(timesteps=100, seed=0), parameters={"a": area}, greedy=area, seconds=1.0)
    return Learning(returns=[area] * 10, **given | others)


def of_trial(number, area=0.0, parameters=None, **others):
    return learning(area, settings=dict(timesteps=100, seed=number), parameters=parameters or {"a": number}, **others)


def only_line(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


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


def test_the_same_trials_whether_or_not_the_sweep_was_stopped(sweep, tmp_path):
    assert sweep("--trials", 2) == 0
    for count in (1, 2):
        assert sweep("--trials", count, out="stopped") == 0

    def drawn(out):
        return [known.parameters for known in trials(tmp_path, out)]

    assert drawn("out") == drawn("stopped")
    assert sweep("--trials", 1, "--seed", 1, out="other") == 0
    assert drawn("other") != drawn("out")[:1]


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
    assert "is of other settings than those of the best trial" in only_line(capsys)
    assert sweep("--trials", 2) == 0
    assert "have no new seeds: seeds.json is of other settings" in capsys.readouterr().out


def test_finalists_get_three_new_seeds_each_and_the_best_of_them_is_trained_again(sweep, tmp_path, capsys):
    assert sweep("--trials", 3, "--finalists", 2, "--retrain", 1) == 0
    folder = tmp_path / "out" / "Catch-5-2" / "rnn"
    finals, seeds = read_learnings(folder / "finals.json"), read_learnings(folder / "seeds.json")
    finalists = best(trials(tmp_path), 2)
    assert [known.seed for known in finals] == [5_000, 5_000, 5_001, 5_001, 5_002, 5_002]
    assert [known.parameters for known in finals] == [trial.parameters for trial in finalists] * 3
    assert [known.parameters for known in seeds] == [choose(finalists, finals).parameters]
    capsys.readouterr()
    assert sweep("--trials", 3, "--finalists", 2, "--retrain", 1) == 0
    assert "[" not in capsys.readouterr().out
    assert read_learnings(folder / "finals.json") == finals


def test_other_settings_need_another_study(sweep, capsys):
    assert sweep("--trials", 0, "--timesteps", 500) == 0  # of which nothing was made
    assert sweep("--trials", 1) == 0
    capsys.readouterr()
    assert sweep("--trials", 1, "--timesteps", 500) == 2
    assert "with timesteps 400, not 500" in only_line(capsys)
    assert sweep("--trials", 1, "--sampler", "tpe") == 2
    assert "with sampler random, not tpe" in only_line(capsys)


def test_what_was_lost_is_made_again(make_study):
    lost, settings = make_study().ask()
    assert make_study().begun == 1  # its process, this one, is alive
    host, process, born = lost.user_attrs["process"]
    for gone in ([host, 2**22 + 1, born], [host, process, born - 60]):  # none, or another under the same number
        lost.set_user_attr("process", gone)
        assert make_study().begun == 0
        lost, again = make_study().ask()
        assert again == settings  # seed and draw
    lost.set_user_attr("process", ["another machine", 1, 1.0])
    assert (make_study().begun, make_study().running) == (1, 1)


def test_another_machine_is_waited_for_a_day(make_study, monkeypatch):
    trial, _ = make_study().ask()
    trial.set_user_attr("process", ["another machine", 1, 1.0])
    for hours, begun in ((23, 1), (25, 0)):
        later = datetime.now() + timedelta(hours=hours)
        monkeypatch.setattr("fw_rl.experiments.search.study.datetime", SimpleNamespace(now=lambda later=later: later))
        assert make_study().begun == begun


def test_a_trial_that_is_stopped_leaves_its_draw_to_the_next(make_study):
    study = make_study()
    (first, settings), (second, _) = study.ask(), study.ask()
    study.forget(first)
    study.tell(second, of_trial(1, 0.5))
    again, same = study.ask()
    assert same == settings and same.seed == 0
    study.tell(again, of_trial(0, 0.25))
    assert [known.seed for known in make_study().learnings] == [0, 1]
    _, third = study.ask()
    assert third.seed == 2


def test_of_a_trial_that_two_machines_made_the_first_counts(make_study):
    one, other = make_study(), make_study()
    (first, _), (second, _) = one.ask(), other.ask()
    second.set_user_attr("number", 0)
    other.tell(second, of_trial(0, 0.9))
    one.tell(first, of_trial(0, 0.1))
    assert [known.area for known in make_study().learnings] == [pytest.approx(0.1)]
    assert one.begun == 1


def test_trials_that_a_file_has_are_not_made_again(sweep, tmp_path, capsys):
    assert sweep("--trials", 3) == 0
    before = trials(tmp_path)
    (tmp_path / "out" / "studies.journal").unlink()
    path = tmp_path / "out" / "Catch-5-2" / "rnn" / "trials.json"
    path.write_text(json.dumps([vars(known) for known in (before[0], before[2])]))  # the second was not saved
    assert sweep("--trials", 3) == 0
    after = trials(tmp_path)
    assert [after[0], after[2]] == [before[0], before[2]]
    assert (after[1].parameters, after[1].returns) == (before[1].parameters, before[1].returns)

    (tmp_path / "out" / "studies.journal").unlink()
    for rate in (0.005, 0.5):  # not that of its settings; not in the range either
        path.write_text(json.dumps([vars(before[0]) | dict(parameters=dict(before[0].parameters, learning_rate=rate))]))
        capsys.readouterr()
        content = path.read_bytes()
        assert sweep("--trials", 3) == 2
        assert "trials.json has trial 0 with other settings" in only_line(capsys)
        assert path.read_bytes() == content
    path.write_text("garbage")
    assert sweep("--trials", 3) == 2
    assert "trials.json does not hold trainings" in only_line(capsys)
    assert path.read_text() == "garbage"


def test_half_a_line_at_the_end_of_the_journal_is_cut(make_study, tmp_path):
    study = make_study()
    trial, _ = study.ask()
    study.tell(trial, of_trial(0, 0.5))
    journal = tmp_path / "studies.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    assert make_study().begun == 1
    assert journal.read_bytes().endswith(b"\n")


def test_the_best_is_not_chosen_while_trials_run_elsewhere(make_study, sweep, tmp_path, capsys):
    elsewhere, _ = make_study().ask()
    elsewhere.set_user_attr("process", ["another machine", 1, 1.0])
    (tmp_path / "out").mkdir()
    (tmp_path / "studies.journal").rename(tmp_path / "out" / "studies.journal")
    assert sweep("--trials", 2, "--retrain", 1) == 0
    printed = capsys.readouterr().out
    assert "1 trials still run elsewhere" in printed and "1 trials, 0 diverged" in printed
    assert not (tmp_path / "out" / "Catch-5-2" / "rnn" / "seeds.json").exists()


def test_a_finalist_stays_one_however_many_are_asked_for(sweep, tmp_path):
    """What was once trained with new seeds has a part in the choice, as it has in Figure 5."""
    assert sweep("--trials", 3, "--finalists", 3) == 0
    folder = tmp_path / "out" / "Catch-5-2" / "rnn"
    finals = read_learnings(folder / "finals.json")
    assert sweep("--trials", 3, "--finalists", 2, "--retrain", 1) == 0
    assert read_learnings(folder / "finals.json") == finals
    (seed,) = read_learnings(folder / "seeds.json")
    assert seed.differs_by_seed(choose(trials(tmp_path), finals))


def test_equal_settings_are_one_finalist():
    alike = [of_trial(0, 0.5, {"a": 1}), of_trial(1, 0.4, {"a": 1}), of_trial(2, 0.3, {"a": 2})]
    assert [trial.seed for trial in finalists(alike, 2)] == [0, 2]


def test_a_trial_that_was_killed_before_it_could_name_its_process_does_not_count(make_study):
    study = make_study()
    study._study.ask()
    assert study.begun == make_study().begun == 0


def test_a_trial_that_diverged_counts_and_has_no_value(make_study):
    study = make_study()
    trial, config = study.ask()
    assert config.seed == trial.number == 0
    study.tell(trial, learning(0.5, diverged=True, greedy=None))
    trial, config = study.ask()
    assert config.seed == 1
    study.forget(trial)
    again = make_study()
    assert again.begun == 1
    assert [known.diverged for known in again.learnings] == [True]
    assert again._study.trials[0].state == TrialState.FAIL


def test_hopeless_trials_are_pruned_on_request(make_study):
    for prune in (False, True):
        study = make_study(prune=prune)
        for _ in range(5):
            good, _ = study.ask()
            assert not study.is_hopeless(good, Progress(50, 0.5))
            study.tell(good, learning(0.5))
        bad, _ = study.ask()
        assert not study.is_hopeless(bad, Progress(10, -1.0))  # too early to say
        assert study.is_hopeless(bad, Progress(50, -1.0)) == prune
        study.prune(bad)
    assert [known.pruned for known in study.learnings] == [*[False] * 5, True] * 2
    assert best(study.learnings[5:6], 1) == []
    assert make_study().begun == 12


def test_tpe_learns_from_earlier_trials(make_study):
    study = make_study(sampler="tpe")
    for _ in range(30):
        trial, config = study.ask()
        study.tell(trial, learning(-abs(config.cell_options["recurrent_scale"] - 0.9)))
    late = [trial.params["recurrent_scale"] for trial in study._study.trials[15:]]
    assert sum(scale > 0.7 for scale in late) > len(late) / 2
    importances = study.importances
    assert max(importances, key=importances.get) == "recurrent_scale"


def test_the_best_come_first():
    trials = [of_trial(0, 0.1), of_trial(1, 0.3), of_trial(2, 0.9, diverged=True), of_trial(3, 0.2)]
    assert [trial.seed for trial in best(trials, 2)] == [1, 3]
    assert choose(trials, []) == trials[1]
    assert choose(trials[2:3], []) is None
    seeds = [of_trial(9 + i, area, {"a": 1}, greedy=greedy) for i, (area, greedy) in enumerate(((0.5, 0.95), (0.7, 0.9)))]
    text = report("Catch", [*trials, of_trial(4, math.nan, pruned=True)], {"a": 1.0}, seeds=seeds)
    assert "5 trials, 1 diverged, 1 pruned" in text
    assert "| 1 | 0.300 |  | 0.300 | 0.300 | 1 |" in text
    assert "those of trial 1, with 2 new seeds: area 0.600 (-0.671 to 1.871), 1 of 2 at 0.95 greedy." in text


def test_new_seeds_decide_among_the_finalists():
    trials = [of_trial(0, 0.5), of_trial(1, 0.4), of_trial(2, 0.3)]
    finals = [of_trial(5_000 + i, area, {"a": i // 2}) for i, area in enumerate((0.1, 0.2, 0.1, 0.4))]
    assert choose(trials, finals) == trials[1]
    for area in (math.nan, 0.9):  # what was learned before does not count
        lost = of_trial(5_002, area, {"a": 1}, diverged=True)
        assert choose(trials, [*finals, lost]) == trials[0]
    text = report("Catch", trials, {}, finals, [of_trial(9, 0.7, {"a": 1})])
    assert "| 0 | 0.500 | 0.150 (2) | 0.500 | 0.500 | 0 |" in text
    assert "| 1 | 0.400 | 0.250 (2) | 0.400 | 0.400 | 1 |" in text
    assert "| 2 | 0.300 |  | 0.300 | 0.300 | 2 |" in text
    assert "those of trial 1, with 1 new seeds: area 0.700, " in text


BAD = {
    "no such cell": (["--cell", "elephant"], "unknown cell 'elephant': choose from"),
    "no such environment": (["--env", "Catch-0-0"], "Catch-0-0"),
    "no such sampler": (["--sampler", "grid"], "--sampler is 'grid': choose from random, tpe"),
    "no jobs": (["--jobs", "0"], "--jobs must be at least 1, got 0"),
    "no finalist": (["--finalists", "0"], "--finalists must be at least 1, got 0"),
    "trials below zero": (["--trials", "-1"], "--trials must be at least 0, got -1"),
    "no frames": (["--timesteps", "0"], "--timesteps must be at least 1, got 0"),
    "no such file": (["--space", "nowhere.yaml"], "nowhere.yaml"),
    "no such storage": (["--storage", "elephant://x"], "the storage elephant://x can't be opened"),
    "nothing to train again": (["--trials", "0", "--retrain", "1"], "there is nothing to train with new seeds"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, sweep, capsys):
    arguments, message = BAD[case]
    assert sweep(*arguments) == 2
    assert message in only_line(capsys)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_goes_on_after_it_was_stopped(number, sweep, tmp_path):
    whole = ["--trials", "3", "--timesteps", "2000"]
    small = ["--env", "Catch-5-2", "--cell", "rnn", "--eval-episodes", "4", "--jobs", "2", "--space", tmp_path / "space.yaml"]
    command = [sys.executable, "-m", "fw_rl", "sweep", *small, *whole, "--out", tmp_path / "stopped"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
    assert len(trials(tmp_path, "stopped")) == 3
    assert known in trials(tmp_path, "stopped")  # with its seconds, so that it was not made again


def test_two_sweeps_share_a_storage(tmp_path, sweep):
    database = f"sqlite:///{tmp_path / 'studies.db'}"
    small = ["--env", "Catch-5-2", "--cell", "rnn", "--timesteps", "400", "--eval-episodes", "4", "--jobs", "1"]
    own = ["--trials", "3", "--storage", database, "--space", tmp_path / "space.yaml", "--out", tmp_path / "one"]
    other = subprocess.Popen(list(map(str, [sys.executable, "-m", "fw_rl", "sweep", *small, *own])), stdout=subprocess.DEVNULL)
    try:
        assert sweep("--trials", 3, "--storage", database, out="two") == 0
        assert other.wait(timeout=60) == 0
    finally:
        other.kill()
    for out in ("one", "two"):
        assert sweep("--trials", 3, "--storage", database, out=out) == 0
    assert trials(tmp_path, "one") == trials(tmp_path, "two")
    assert [known.seed for known in trials(tmp_path, "one")] == [0, 1, 2]


def test_without_optuna_one_line_says_what_to_install(tmp_path):
    (tmp_path / "optuna.py").write_text("raise ModuleNotFoundError('No module named optuna', name='optuna')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    command = [sys.executable, "-m", "fw_rl", "sweep", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "fw-rl sweep: error: optuna is missing: pip install 'fw-rl[sweep]'\n"
    assert not (tmp_path / "out").exists()


def test_a_killed_training_is_begun_again(sweep, tmp_path):
    """A worker that is killed is replaced, and the trial comes to what it would have come to."""
    assert sweep("--trials", 1) == 0
    small = ["--env", "Catch-5-2", "--cell", "rnn", "--eval-episodes", "4", "--jobs", "1", "--space", tmp_path / "space.yaml"]
    command = [
        sys.executable,
        "-m",
        "fw_rl",
        "sweep",
        *small,
        "--trials",
        "1",
        "--timesteps",
        "400",
        "--out",
        tmp_path / "killed",
    ]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
