"""A study of settings: its numbers, what is lost and found, and what it adopts."""

import shutil
import sqlite3

import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from fw_rl.experiments.search.learning import Learning, Progress
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


@pytest.fixture(autouse=True)
def quick_databases():
    """SQLite does not wait for the disk, which is for the case that a machine loses its power."""

    def hurry(connection, record):
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", hurry)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", hurry)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    path = tmp_path_factory.mktemp("empty") / "studies.db"
    RDBStorage(f"sqlite:///{path}")
    return path


@pytest.fixture
def make_study(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    space = search_space("rnn", tmp_path / "space.yaml")
    config = resolve(env="Catch-5-2", cell="rnn", timesteps=600, tuned_for_cell=False)
    return lambda **options: SettingsStudy(config, space, tmp_path / "studies.db", **options)


@pytest.fixture
def lose(tmp_path):
    """Makes the last heartbeat of all trials so many seconds older."""

    def lose(seconds):
        with sqlite3.connect(tmp_path / "studies.db") as database:
            database.execute(f"UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-{seconds} seconds')")

    return lose


def learning(number, area=0.0, **others):
    given = dict(settings=dict(timesteps=100, seed=number), parameters={"a": area}, greedy=area, seconds=1.0)
    return Learning(returns=[area] * 10, **given | others)


def test_what_was_lost_is_made_again(make_study, lose):
    job = make_study().ask(100)
    assert (make_study().begun, make_study().running) == (1, 1)  # its process, this one, may be alive
    for _ in range(2):
        lose(61)
        study = make_study()
        study.keep_alive()
        assert (study.begun, study.running) == (0, 0)
        assert study.ask(100) == job  # seed and draw
        assert study.ask(100).config.seed == 1
        study.forget_running()
        assert study.ask(100) == job


def test_a_trial_with_a_recent_heartbeat_is_waited_for(make_study, lose):
    make_study().ask(100)
    lose(50)
    study = make_study()
    study.keep_alive()
    assert (study.begun, study.running) == (1, 1)
    assert study.ask(100).config.seed == 1


def test_a_process_keeps_its_own_trials_alive(make_study, lose):
    study = make_study()
    study.ask(100)
    lose(3600)  # as on a laptop that was asleep
    study.keep_alive()
    other = make_study()
    other.keep_alive()
    assert (study.running, other.running) == (1, 1)


def test_a_trial_that_was_taken_over_is_not_told_twice(make_study, lose):
    slow, other = make_study(), make_study()
    job = slow.ask(100)
    lose(61)
    other.keep_alive()
    assert other.ask(100) == job
    assert slow.prune(0, Progress(50, 0.5)) is None
    slow.tell(learning(0, 0.1))
    assert make_study().learnings == []
    other.tell(learning(0, 0.2))
    assert make_study().learnings == [learning(0, 0.2)]


def test_a_stopped_trial_leaves_its_draw_to_the_next(make_study):
    study = make_study()
    first, _ = study.ask(100), study.ask(100)
    study.tell(learning(1, 0.5))
    study.forget_running()
    assert study.ask(100) == first
    study.tell(learning(0, 0.25))
    assert [known.seed for known in make_study().learnings] == [0, 1]
    assert study.ask(100).config.seed == 2


def test_of_two_processes_that_begin_a_trial_one_does(make_study, monkeypatch):
    one, other = make_study(), make_study()
    begin = other._study.ask
    met = []

    def meet(distributions):
        if not met:
            met.append(one.ask(100))
        return begin(distributions)

    monkeypatch.setattr(other._study, "ask", meet)
    assert other.ask(1) is None
    assert met[0].config.seed == 0
    assert make_study().begun == 1


def test_a_trial_killed_as_it_began_does_not_count(make_study, lose):
    study = make_study()
    trial = study._study.ask()
    assert study.begun == make_study().begun == 0
    study._storage.record_heartbeat(trial._trial_id)
    lose(61)
    study.keep_alive()
    assert study.ask(100).config.seed == 0
    assert study.begun == 1


def test_a_trial_that_diverged_counts_and_has_no_value(make_study):
    study = make_study()
    assert study.ask(100).config.seed == 0
    study.tell(learning(0, 0.5, diverged=True, greedy=None))
    assert study.ask(100).config.seed == 1
    study.forget_running()
    again = make_study()
    assert again.begun == 1
    assert [known.diverged for known in again.learnings] == [True]
    assert again._study.trials[0].state == TrialState.FAIL


def test_hopeless_trials_are_pruned_on_request(make_study):
    for prune in (False, True):
        study = make_study(prune=prune)
        for _ in range(5):
            good = study.ask(100).config.seed
            assert study.prune(good, Progress(50, 0.5)) is None
            study.tell(learning(good, 0.5))
        bad = study.ask(100).config.seed
        assert study.prune(bad, Progress(10, -1.0)) is None  # too early to say
        pruned = study.prune(bad, Progress(50, -1.0))
        assert bool(pruned) == prune
        study.tell(pruned or learning(bad, -1.0))
    assert [known.pruned for known in study.learnings] == [*[False] * 11, True]
    assert not study.learnings[11].is_ranked
    assert make_study().begun == 12


def test_tpe_learns_from_earlier_trials(make_study):
    study = make_study(sampler="tpe")
    scales = []
    for _ in range(30):
        job = study.ask(100)
        scales.append(job.parameters["recurrent_scale"])
        study.tell(learning(job.config.seed, -abs(scales[-1] - 0.9)))
    assert sum(scale > 0.7 for scale in scales[15:]) > 15 / 2
    importances = study.importances
    assert max(importances, key=importances.get) == "recurrent_scale"


def test_a_password_is_not_printed(make_study):
    with pytest.raises(ValueError, match=r"got elephant://me:\*\*\*@host/x: "):
        make_study(storage="elephant://me:secret@host/x")
