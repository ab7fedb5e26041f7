"""Gymnasium's and SB3's own checkers, which look at single environments, look at what the adapters pass on of one."""

import warnings

import gymnasium as gym
import pytest
import stable_baselines3.common.env_checker as sb3_checker
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from fw_rl.envs import VecEnvAdapter, VectorEnvAdapter
from tests.envs.helpers import EVERY_MODE, functions


class Only(gym.Env):
    """The one environment of a vector environment that begins the next episode in the step that ends one."""

    metadata = dict(render_modes=[])  # noqa: RUF012 (gymnasium.Env declares its type)

    def __init__(self, env):
        assert env.num_envs == 1
        self.env, self.as_dict = env, isinstance(env.single_observation_space, spaces.Dict)
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        observations, infos = self.env.reset(seed=seed, options=options)
        return self._first(observations), infos

    def step(self, action):
        observations, rewards, terminations, truncations, infos = self.env.step([action])
        last = infos["final_obs"][0] if terminations[0] or truncations[0] else self._first(observations)
        return last, float(rewards[0]), bool(terminations[0]), bool(truncations[0]), infos

    def _first(self, observations):
        return {key: part[0] for key, part in observations.items()} if self.as_dict else observations[0]


def assert_passes(env):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*infinity.*")  # the observations have no bounds, on purpose
        check_env(Only(env), skip_render_check=True)
        sb3_checker.check_env(Only(env))


@pytest.mark.parametrize("as_dict", [False, True], ids=["Box", "Dict"])
def test_from_sb3(as_dict):
    assert_passes(VectorEnvAdapter(DummyVecEnv(functions(1, as_dict=as_dict))))


@pytest.mark.parametrize("as_dict", [False, True], ids=["Box", "Dict"])
@EVERY_MODE
def test_to_sb3_and_back(mode, as_dict):
    """The checkers know Gymnasium's interface only."""
    assert_passes(VectorEnvAdapter(VecEnvAdapter(SyncVectorEnv(functions(1, as_dict=as_dict), autoreset_mode=mode))))
