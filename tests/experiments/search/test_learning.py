"""A training's learning curve, and trainings side by side."""

import dataclasses
import json
import math

import numpy as np
import pytest

from fw_rl.experiments.agents import load_trained
from fw_rl.experiments.search.learning import (
    CURVE_POINTS,
    Job,
    Learning,
    Progress,
    Trainings,
    _Curve,
    learn,
    read_learnings,
    write_learnings,
)
from fw_rl.experiments.settings import resolve

TINY = resolve(env="Catch-5-2", cell="rnn", timesteps=480, n_envs=4, n_steps=4, hidden_size=8)


def learning(returns, timesteps=100, **others):
    return Learning(dict(timesteps=timesteps, seed=0), {}, returns, **dict(greedy=0.0, seconds=1.0) | others)


def test_a_part_without_an_end_has_the_return_before():
    known = learning([None, -1.0, None, 1.0, None])
    assert known.curve.tolist() == [-1, -1, -1, 1, 1]
    assert known.frames.tolist() == [20, 40, 60, 80, 100]
    assert known.area == pytest.approx(-0.2)
    assert known.final == 1
    assert (known.frames_to(-1), known.frames_to(0.5), known.frames_to(1.5)) == (40, 80, math.inf)


def test_epochs_are_counted_from_the_end():
    known = learning([9.0, 0.0, 1.0, None, 4.0])
    ends, returns = known.epochs(43)
    assert (ends.tolist(), returns.tolist()) == ([60, 100], [0.5, 2.5])
    assert known.epochs(5)[1].tolist() == known.curve.tolist()
    assert known.epochs(1000)[1].tolist() == [known.area]


def test_a_curve_of_nothing_is_unknown():
    assert math.isnan(learning([None, None]).area)
    assert learning([None, None]).frames_to(-10) == math.inf


def test_the_final_return_is_that_of_the_last_tenth():
    assert learning([0.0] * 18 + [1.0, 3.0]).final == 2


def test_learnings_come_back_from_a_file(tmp_path):
    known = [learning([None, 0.5]), learning([1.0, None], greedy=None, diverged=True)]
    write_learnings(tmp_path / "new" / "trials.json", known)
    assert read_learnings(tmp_path / "new" / "trials.json") == known
    assert len((tmp_path / "new" / "trials.json").read_text().splitlines()) == 2 + len(known)
    write_learnings(tmp_path / "none.json", [])
    assert read_learnings(tmp_path / "none.json") == []


def test_a_lost_life_is_no_end_of_an_episode():
    curve = _Curve(CURVE_POINTS, print)
    curve.num_timesteps, infos = 2, [{}, {"episode": {"r": 3.0}}, {"episode": {"r": 9.0}}]
    curve.locals = dict(dones=np.array([True, True, False]), infos=infos)
    assert curve._on_step()
    curve.num_timesteps, curve.locals["dones"] = 3, np.array([True, False, False])
    assert curve._on_step()
    assert curve.returns[:4] == [None, 3.0, None, None]


def test_an_evaluation_that_is_not_finite_is_a_divergence(monkeypatch, tmp_path):
    def evaluate(*arguments):
        raise FloatingPointError("the environment gave nan")

    monkeypatch.setattr("fw_rl.experiments.search.learning.evaluate", evaluate)
    told = []
    learn(told.append, Job(TINY, {}, tmp_path / "agent"), eval_episodes=4)
    assert told[-1].diverged and told[-1].greedy is None and told[-1].seconds > 0
    assert not (tmp_path / "agent").exists()


def test_who_waits_for_nothing_does_not_ask_all_the_time(monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    assert list(Trainings(1, 1).events(0.5)) == [] and slept == [0.5]


def test_a_ranked_training_has_an_area_and_did_not_diverge():
    assert learning([None, 0.5]).is_ranked
    assert not learning([0.5], diverged=True).is_ranked
    assert not learning([None], pruned=True).is_ranked


def test_nothing_is_known_before_a_file_is_written(tmp_path):
    assert read_learnings(tmp_path / "trials.json") == []


def test_trainings_that_differ_by_their_seed():
    known = learning([0.0])
    assert dataclasses.replace(known, settings=dict(timesteps=100, seed=1)).differs_by_seed(known)
    assert not dataclasses.replace(known, settings=dict(timesteps=90, seed=1)).differs_by_seed(known)
    assert not dataclasses.replace(known, parameters=dict(a=1)).differs_by_seed(known)


WRONG = [
    dict(settings={}),
    dict(settings=[]),
    dict(settings=dict(timesteps=100)),
    dict(settings=dict(timesteps=100, seed="0")),
    dict(parameters=[]),
    dict(returns=[]),
    dict(returns="abc"),
    dict(returns=[0.5, "x"]),
    dict(greedy="x"),
    dict(seconds="x"),
    dict(diverged="yes"),
    dict(pruned=0),
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_training_of_another_form_is_refused(wrong, tmp_path):
    record = dataclasses.asdict(learning([0.5])) | wrong
    (tmp_path / "file.json").write_text(json.dumps([dataclasses.asdict(learning([0.5])), record]))
    with pytest.raises(ValueError, match=f"file.json must hold trainings, got {next(iter(wrong))} .* of number 2"):
        read_learnings(tmp_path / "file.json")


@pytest.mark.parametrize("text", ["", "3", '{"a": 1}', "[1]", '[{"settings": {}}]'])
def test_a_file_of_another_kind_is_refused(text, tmp_path):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ValueError, match=r"file\.json must hold trainings"):
        read_learnings(tmp_path / "file.json")


def test_an_agent_is_kept_in_the_folder_that_the_job_names(tmp_path):
    """A run as `train` leaves one; and none of a training that diverged."""
    learn(lambda event: None, Job(TINY, {}, tmp_path / "kept"), eval_episodes=2)
    config, agent = load_trained(tmp_path / "kept")
    assert config == TINY and agent.num_timesteps == TINY.timesteps
    wild = dataclasses.replace(TINY, learning_rate=1e18, optimizer="rmsprop")
    learn(lambda event: None, Job(wild, {}, tmp_path / "gone"), eval_episodes=2)
    assert not (tmp_path / "gone").exists()


def test_a_job_gives_a_training_of_its_settings_again():
    known = Learning(dataclasses.asdict(TINY), dict(a=1), [0.0], 0.0, 1.0)
    assert known.is_of(Job(TINY, dict(a=1)))
    assert not known.is_of(Job(TINY, {}))
    assert not known.is_of(Job(dataclasses.replace(TINY, seed=1), dict(a=1)))


def test_a_curve_holds_every_episode_once():
    """Catch-5 has four steps, so that 480 frames of 4 environments are 120 episodes, four at a time, in 100 parts."""
    events = []
    learn(events.append, Job(TINY, {}), eval_episodes=10)
    *steps, known = events
    assert all(isinstance(event, Progress) for event in steps)
    assert [event.points for event in steps] == sorted({event.points for event in steps})
    assert steps[-1].points == CURVE_POINTS
    ends = [round(frames * CURVE_POINTS / 480 + 0.499) - 1 for frames in range(16, 481, 16)]
    assert [part for part, value in enumerate(known.returns) if value is not None] == ends
    assert all(value in (-1, -0.5, 0, 0.5, 1) for value in known.returns if value is not None)
    told = [value for value in known.returns if value is not None]
    assert steps[-1].area == pytest.approx(sum(told) / len(told))
    assert known.settings == dataclasses.asdict(TINY)
    assert -1 <= known.greedy <= 1
    assert json.loads(json.dumps(dataclasses.asdict(known))) == dataclasses.asdict(known)


def test_a_training_that_diverges_says_so():
    events = []
    job = Job(dataclasses.replace(TINY, learning_rate=1e18, optimizer="rmsprop"), {})
    learn(events.append, job, eval_episodes=10)
    assert events[-1].diverged
    assert events[-1].greedy is None


@pytest.mark.processes
def test_the_same_training_gives_the_same_curve_beside_others():
    events = []
    learn(events.append, Job(TINY, {"a": 1}), eval_episodes=10)
    alone = dataclasses.replace(events[-1], seconds=0.0)
    ended = {}
    with Trainings(jobs=2, eval_episodes=10) as trainings:
        for key in (3, 4):
            assert trainings.has_room
            trainings.start(key, Job(TINY, {"a": 1}))
        assert not trainings.has_room
        while trainings.keys:
            ended |= {key: event for key, event in trainings.events() if isinstance(event, Learning)}
    assert {key: dataclasses.replace(known, seconds=0.0) for key, known in ended.items()} == {3: alone, 4: alone}


@pytest.mark.processes
def test_a_training_can_be_ended_early():
    long = dataclasses.replace(TINY, timesteps=10**8)
    with Trainings(jobs=2, eval_episodes=10) as trainings:
        trainings.start(0, Job(long, {}))
        trainings.start(1, Job(TINY, {}))
        trainings.stop(0)
        assert trainings.keys == [1]
        ended = {}
        while trainings.keys:
            ended |= {key: event for key, event in trainings.events() if isinstance(event, Learning)}
    assert list(ended) == [1]
