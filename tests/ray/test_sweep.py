"""`sweep --engine ray`: the trials are tasks of Ray, and what comes of them is what a local sweep gives."""

import pytest

pytest.importorskip("ray", reason="needs pip install 'fw-rl[ray]'")
pytest.importorskip("optuna", reason="needs pip install 'fw-rl[sweep]'")

from dataclasses import replace

from fw_rl.commands.sweep import main
from fw_rl.experiments.search.learning import Job, Learning, Progress, learn, read_learnings
from fw_rl.experiments.search.on_ray import OnRay
from fw_rl.experiments.settings import resolve
from fw_rl.processes import WorkerError
from tests.ray.conftest import left_of_ray

pytestmark = pytest.mark.timeout(900)

TINY = resolve(env="Catch-5-2", cell="rnn", timesteps=480, n_envs=4, n_steps=4, hidden_size=8)


def test_trainings_on_ray_learn_the_same_and_can_be_stopped():
    told = []
    learn(told.append, Job(TINY, {"a": 1}), 10)
    events = {0: [], 1: []}
    with OnRay(2, 10) as trainings:
        trainings.start(0, Job(TINY, {"a": 1}))
        trainings.start(1, Job(replace(TINY, timesteps=10**6), {}))
        assert not trainings.has_room
        while trainings.keys:
            for key, event in trainings.events():
                events[key].append(event)
            if 1 in trainings.keys and events[1] and 0 not in trainings.keys:
                trainings.stop(1)
        assert trainings.has_room
    *steps, known = events[0]
    assert all(isinstance(event, Progress) for event in steps)
    assert replace(known, seconds=0.0) == replace(told[-1], seconds=0.0)
    assert not any(isinstance(event, Learning) for event in events[1])
    assert not left_of_ray()


def test_a_training_that_fails_is_told():
    with OnRay(1, 10) as trainings:
        trainings.start(0, Job(replace(TINY, cell="elephant"), {}))
        with pytest.raises(WorkerError, match="training 0 failed on Ray"):
            while trainings.keys:
                list(trainings.events())
    assert not left_of_ray()


def test_a_sweep_leaves_its_trials_and_its_report(tmp_path, capsys):
    small = ["--env", "Catch-5-2", "--cell", "rnn", "--timesteps", "2100", "--eval-episodes", "4", "--jobs", "2", "--quiet"]
    assert main([*small, "--trials", "2", "--retrain", "1", "--engine", "ray", "--out", str(tmp_path)]) == 0
    assert len(read_learnings(tmp_path / "Catch-5-2" / "rnn" / "trials.json")) == 2
    assert len(read_learnings(tmp_path / "Catch-5-2" / "rnn" / "seeds.json")) == 1
    assert (tmp_path / "Catch-5-2" / "rnn" / "report.md").is_file()
    assert not left_of_ray()
