"""What workers make in the tests of `ParallelVectorEnv`, apart from these so that a worker need not import what they do."""

import os
import signal
import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space, iterate
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from tests.envs.helpers import Noisy


def together(make_env, count, mode=AutoresetMode.SAME_STEP):
    return SyncVectorEnv([make_env] * count, autoreset_mode=mode)


def short_cart_pole():
    return gym.make("CartPole-v1", max_episode_steps=15)


def recorded(count):
    return RecordEpisodeStatistics(together(short_cart_pole, count))


class Blind(SyncVectorEnv):
    """Begins all episodes at once, whatever it is asked for."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


def blind(count):
    return Blind([Noisy] * count)


def _rows(tree, mask):
    return {key: _rows(part, mask) for key, part in tree.items()} if isinstance(tree, dict) else tree[mask]


class Terse(SyncVectorEnv):
    """Returns of a reset what has begun and nothing else, as EnvPool does."""

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool))
        observations, infos = super().reset(seed=seed, options=options)
        return _rows(observations, mask), _rows(infos, mask)


def terse(count):
    return Terse([Noisy] * count)


class Rare(Noisy):
    """Tells something in some steps only."""

    def step(self, action):
        *results, _ = super().step(action)
        return *results, dict(word="x" * action, deep=dict(number=action)) if action else {}


class Echo(VectorEnv):
    """Shows the actions; keeps those of the last step in the infos of the next."""

    def __init__(self, num_envs, space):
        self.num_envs, self.single_action_space, self.single_observation_space = num_envs, space, space
        self.action_space = self.observation_space = batch_space(space, num_envs)
        self.last = None

    def reset(self, *, seed=None, options=None):
        self.action_space.seed(0)
        return self.action_space.sample(), {}

    def step(self, actions):
        told = {} if self.last is None else dict(last=np.array(list(iterate(self.action_space, self.last)), object))
        self.last = actions
        return actions, np.zeros(self.num_envs), np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool), told


class Faulty(gym.Env):
    """Does what its action says: 0 nothing, 1 an exception, 2 a kill, 3 an end, 4 a hang, 5 a hang that is deaf."""

    observation_space, action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(6)

    def reset(self, *, seed=None, options=None):
        if options:
            raise KeyError("cheese")
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if action == 1:
            raise ZeroDivisionError("in an env")
        if action == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == 3:
            os._exit(0)
        if action == 5:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if action >= 4:
            time.sleep(1000)
        return np.zeros(1, np.float32), 0.0, False, False, dict(pid=os.getpid())

    def close(self):
        if path := os.environ.get("CLOSED"):
            with open(path, "a") as file:
                print("closed", file=file)
