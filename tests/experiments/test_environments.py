"""Environments by name: which id a name is, and what becomes of observations that agents do not take."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from fw_rl.experiments.environments import changes_to_observations, environment_id, make_env, make_vector_env

POSITION = spaces.Box(-1, 1, (2,), np.float32)
IMAGE = spaces.Box(0, 255, (40, 40, 3), np.uint8)


class Samples(gym.Env):
    """Observations drawn at random, for ever."""

    action_space = spaces.Discrete(2)

    def __init__(self, observation_space):
        self.observation_space = observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}


class OneArray(Samples):
    """One that hands out the same array always."""

    shown = np.zeros(2, dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        self.shown[:] = 0.0
        return self.shown, {}

    def step(self, action):
        self.shown += 0.25
        return self.shown, 1.0, bool(self.shown[0] == 0.5), False, {}


class Broken(gym.Env):
    """One that cannot be made."""

    def __init__(self):
        assert not "any reason"


@pytest.fixture
def samples():
    """Registers an environment with an observation space; returns its id."""
    gym.register("tests/Samples-v0", Samples)
    yield lambda space: gym.spec("tests/Samples-v0").kwargs.update(observation_space=space) or "tests/Samples-v0"
    del gym.registry["tests/Samples-v0"]


@pytest.mark.parametrize(
    ("name", "env_id"),
    [
        ("Catch-16-3", "fw_rl/Catch-16-3-v0"),
        ("fw_rl/Catch-16-3-v0", "fw_rl/Catch-16-3-v0"),
        ("fw_rl.envs:Catch-16-3", "fw_rl/Catch-16-3-v0"),
        ("fw_rl:fw_rl/Catch-16-3-v0", "fw_rl/Catch-16-3-v0"),
        ("RepeatFirstEasy", "fw_rl/RepeatFirstEasy-v0"),
        ("fw_rl/RepeatFirstEasy", "fw_rl/RepeatFirstEasy-v0"),
        ("CartPole-v1", "CartPole-v1"),
        (":CartPole-v1", "CartPole-v1"),
        ("gymnasium:CartPole-v1", "gymnasium:CartPole-v1"),
    ],
)
def test_a_name_becomes_the_id_that_gymnasium_makes(name, env_id):
    assert environment_id(name) == env_id


def test_a_catch_of_another_module_is_not_ours(tmp_path, monkeypatch):
    (tmp_path / "own_catch.py").write_text("import gymnasium as gym; gym.register('Catch-v0', lambda: None)")
    monkeypatch.syspath_prepend(tmp_path)
    assert environment_id("own_catch:Catch-v0") == "own_catch:Catch-v0"
    with pytest.raises(ValueError, match=r"got 'own_catch:Catch-v9': .*provides versioned environments"):
        environment_id("own_catch:Catch-v9")
    del gym.registry["Catch-v0"]


@pytest.mark.parametrize("name", ["Catch-3", "Catch-3-16", "NoSuch-v0", "no_such_module:CartPole-v1"])
def test_an_unknown_one_is_told_by_its_name(name):
    with pytest.raises(ValueError, match=name):
        environment_id(name)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("CartPole-v7", "provides versioned environments"),
        ("CartPoole-v1", "Did you mean: `CartPole`?"),
        ("json-Thing-v0", "perhaps json:json-Thing-v0"),
        ("json/Thing-v0", "perhaps json:json/Thing-v0"),
    ],
)
def test_the_error_has_advice(name, advice):
    with pytest.raises(ValueError) as raised:
        environment_id(name)
    assert advice in str(raised.value)


@pytest.mark.parametrize(
    ("space", "seen", "change"),
    [
        (POSITION, POSITION, ""),
        (spaces.Dict(at=POSITION, image=IMAGE), spaces.Dict(at=POSITION, image=IMAGE), ""),
        (
            spaces.Tuple((spaces.Discrete(3), spaces.Discrete(2))),
            spaces.Box(0, 1, (5,), np.int64),
            "Observations are flattened: they are a Tuple",
        ),
        (
            spaces.Dict(image=IMAGE, mission=spaces.Text(9)),
            spaces.Dict(image=IMAGE),
            "Text is left out of observations: mission",
        ),
        (
            spaces.Dict(image=IMAGE, body=spaces.Dict(arm=POSITION, leg=spaces.Tuple([POSITION]))),
            spaces.Dict(image=IMAGE, body=spaces.Box(-1, 1, (4,), np.float32)),
            "Parts of observations are flattened: body",
        ),
    ],
    ids=["Box", "Dict", "Tuple", "text", "nested"],
)
def test_observations_become_what_agents_take(space, seen, change, samples):
    name = samples(space)
    env = make_env(name, training=True)
    assert env.observation_space == seen
    assert seen.contains(env.reset(seed=0)[0]) and seen.contains(env.step(0)[0])
    assert changes_to_observations(name) == [change] * bool(change)


@pytest.mark.parametrize("training, ended", [(True, False), (False, True)])
def test_an_episode_without_end_is_cut_in_an_evaluation(training, ended, samples, monkeypatch):
    monkeypatch.setattr("fw_rl.experiments.environments.EVALUATION_STEPS", 5)
    env = make_vector_env(samples(POSITION), 2, training=training)
    env.reset(seed=0)
    for _ in range(5):
        *_, truncations, infos = env.step(np.zeros(2, dtype=np.int64))
    assert truncations.tolist() == [ended] * 2
    if ended:
        assert infos["final_info"]["episode"]["r"].tolist() == [5.0, 5.0]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_vector_begins_episodes_as_it_is_told(mode, samples):
    assert make_vector_env(samples(POSITION), 2, autoreset_mode=mode).metadata["autoreset_mode"] == mode


@pytest.mark.parametrize("training", [True, False])
def test_an_observation_stays_what_it_was_whatever_the_environment_does(training):
    gym.register("tests/OneArray-v0", OneArray, kwargs=dict(observation_space=POSITION), disable_env_checker=True)
    env = make_vector_env("tests/OneArray-v0", 1, training=training)
    del gym.registry["tests/OneArray-v0"]
    first, _ = env.reset(seed=0)
    steps = [env.step(np.zeros(1, dtype=np.int64)) for _ in range(2)]
    assert [seen[0, 0] for seen in (first, *(step[0] for step in steps))] == [0.0, 0.25, 0.0]
    assert [last[0] for last in steps[-1][-1]["final_obs"]] == [0.5]


class OldGym(Samples):
    """One that resets as Gym did, before Gymnasium."""

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample()


def test_one_that_fails_at_its_first_steps_says_why():
    gym.register("tests/OldGym-v0", OldGym, kwargs=dict(observation_space=IMAGE), disable_env_checker=True)
    with pytest.raises(ValueError, match=r"^env must be one that can be reset and stepped, got 'tests/OldGym-v0': \w+Error: "):
        changes_to_observations("tests/OldGym-v0")
    del gym.registry["tests/OldGym-v0"]


def test_one_that_cannot_be_made_says_why():
    gym.register("tests/Broken-v0", Broken)
    with pytest.raises(ValueError, match="env must be one that can be made without arguments, got 'tests/Broken-v0': "):
        make_vector_env("tests/Broken-v0", 2)
    del gym.registry["tests/Broken-v0"]
