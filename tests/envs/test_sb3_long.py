"""10,000 random steps through the adapters against the same environments played alone, without any vector environment."""

import functools

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import DictInfoToList
from stable_baselines3.common.vec_env import DummyVecEnv

from fw_rl.envs import CatchEnv, CatchVectorEnv, VecEnvAdapter, VectorEnvAdapter
from tests.envs.helpers import EVERY_MODE, assert_same, functions

N, STEPS, SEED = 4, 500, 11


class Record:
    """What is seen of a play: arrays of all steps, and for each environment what it told, and where its episodes ended."""

    def __init__(self, observations, infos):
        self.observations, self.numbers = [observations], []
        self.infos, self.resets = [], [(0, i, info) for i, info in enumerate(infos)]
        self.last = []

    def add(self, observations, rewards, terminations, truncations, infos):
        self.observations.append(observations)
        # SB3 has rewards of float32, and a finished episode is not cut.
        self.numbers.append(np.stack([np.float32(rewards), terminations, truncations & ~terminations]))
        self.infos.append(infos)

    def end(self, i, observation, info):
        """The episode of environment i ended in this step, which was `add`ed before or will be after."""
        self.last.append((len(self.numbers), i, observation))
        self.resets.append((len(self.numbers), i, info))

    def assert_same(self, other):
        assert_same(np.array(self.numbers), np.array(other.numbers))
        assert_same(_stack(self.observations), _stack(other.observations))
        for actual, expected in ((self.last, other.last), (self.resets, other.resets)):
            assert [event[:2] for event in actual] == [event[:2] for event in expected]
            for one, wanted in zip(actual, expected, strict=True):
                assert_same(_arrays(one[2]), _arrays(wanted[2]))
        for infos, wanted_infos in zip(self.infos, other.infos, strict=True):
            for info, wanted_info in zip(infos, wanted_infos, strict=True):
                assert_same(info, wanted_info)


def _stack(steps):
    return {key: np.stack([step[key] for step in steps]) for key in steps[0]} if isinstance(steps[0], dict) else np.stack(steps)


def _arrays(value):
    return {key: np.asarray(part) for key, part in value.items()} if isinstance(value, dict) else np.asarray(value)


def play_alone(makers, actions):
    """Single environments, one after the other, as one plays them by hand."""
    envs = [make() for make in makers]
    observations, infos = zip(*[env.reset(seed=SEED + i) for i, env in enumerate(envs)], strict=True)
    record = Record(_stack(observations), infos)
    for step_actions in actions:
        observations, rewards, terminations, truncations, infos = map(
            list, zip(*[env.step(action) for env, action in zip(envs, step_actions, strict=True)], strict=True)
        )
        for i, env in enumerate(envs):
            if terminations[i] or truncations[i]:
                last, (observations[i], info) = observations[i], env.reset()
                record.end(i, last, info)
        record.add(_stack(observations), rewards, np.array(terminations), np.array(truncations), infos)
    return record


def play_vec_env(env, actions):
    env.seed(SEED)
    record = Record(env.reset(), [*env.reset_infos])
    for step_actions in actions:
        observations, rewards, dones, infos = env.step(step_actions)
        cut = np.array([info.pop("TimeLimit.truncated", False) for info in infos])
        for i in np.flatnonzero(dones).tolist():
            record.end(i, infos[i].pop("terminal_observation"), env.reset_infos[i])
        record.add(observations, rewards, dones & ~cut, cut, infos)
    return record


def play_vector_env(env, actions):
    """A vector environment of mode SAME_STEP."""
    env = DictInfoToList(env)
    record = Record(*env.reset(seed=SEED))
    for step_actions in actions:
        observations, rewards, terminations, truncations, infos = env.step(step_actions)
        for i in np.flatnonzero(terminations | truncations).tolist():
            last, final_info = infos[i].pop("final_obs"), infos[i].pop("final_info")
            record.end(i, last, infos[i])
            infos[i] = final_info
        record.add(observations, rewards, terminations, truncations, infos)
    return record


MAKERS = {
    "Box": functions(N),
    "Dict": functions(N, as_dict=True),
    "MultiDiscrete": functions(N, action_space=spaces.MultiDiscrete([3, 2])),
    "CartPole": [lambda: TimeLimit(CartPoleEnv(), 25)] * N,
    "Catch": [functools.partial(CatchEnv, 6, 2)] * N,
}
# Every kind and every mode, and the kinds that are told most in two modes; test_sb3.py has the others for fewer steps.
KINDS_IN_MODES = [
    ("Dict", AutoresetMode.NEXT_STEP),
    ("Dict", AutoresetMode.SAME_STEP),
    ("MultiDiscrete", AutoresetMode.DISABLED),
    ("CartPole", AutoresetMode.DISABLED),
    ("Catch", AutoresetMode.NEXT_STEP),
    ("Box", AutoresetMode.SAME_STEP),
]


@functools.cache
def actions_of(kind):
    space = MAKERS[kind][0]().action_space
    space.seed(0)
    return np.array([[space.sample() for _ in range(N)] for _ in range(STEPS)])


@functools.cache
def alone(kind):
    record = play_alone(MAKERS[kind], actions_of(kind))
    assert len(record.last) > STEPS // 8
    return record


@pytest.mark.parametrize(("kind", "mode"), KINDS_IN_MODES)
def test_to_sb3(kind, mode):
    env = VecEnvAdapter(SyncVectorEnv(MAKERS[kind], autoreset_mode=mode))
    play_vec_env(env, actions_of(kind)).assert_same(alone(kind))


@pytest.mark.processes
def test_to_sb3_from_processes():
    env = VecEnvAdapter(AsyncVectorEnv(MAKERS["Dict"]))
    try:
        play_vec_env(env, actions_of("Dict")).assert_same(alone("Dict"))
    finally:
        env.close()


@pytest.mark.parametrize("kind", ["Dict", "MultiDiscrete", "Catch"])
def test_to_gymnasium(kind):
    play_vector_env(VectorEnvAdapter(DummyVecEnv(MAKERS[kind])), actions_of(kind)).assert_same(alone(kind))


def test_from_gymnasium_and_back():
    env = VectorEnvAdapter(VecEnvAdapter(SyncVectorEnv(MAKERS["Box"])))
    play_vector_env(env, actions_of("Box")).assert_same(alone("Box"))


def test_from_sb3_and_back():
    env = VecEnvAdapter(VectorEnvAdapter(DummyVecEnv(MAKERS["CartPole"])))
    play_vec_env(env, actions_of("CartPole")).assert_same(alone("CartPole"))


@functools.cache
def games_in_arrays():
    """They have one generator for all, so that only they themselves tell what is right."""
    record = play_vector_env(CatchVectorEnv(N, 6, 2), actions_of("Catch"))
    assert len(record.last) == N * STEPS // 5
    return record


@EVERY_MODE
def test_games_in_arrays(mode):
    there = VecEnvAdapter(CatchVectorEnv(N, 6, 2, autoreset_mode=mode))
    play_vec_env(there, actions_of("Catch")).assert_same(games_in_arrays())
    back = VectorEnvAdapter(VecEnvAdapter(CatchVectorEnv(N, 6, 2, autoreset_mode=mode)))
    play_vector_env(back, actions_of("Catch")).assert_same(games_in_arrays())
