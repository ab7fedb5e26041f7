"""Environments for the tests of the adapters, and what equality means there."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from packaging.version import Version

MODES = list(AutoresetMode)
EVERY_MODE = pytest.mark.parametrize("mode", MODES, ids=[mode.value for mode in MODES])
GYMNASIUM_1_4 = pytest.mark.skipif(
    Version(gym.__version__) < Version("1.4"),
    reason="needs the vector wrappers of Gymnasium 1.4",
)

BOX = spaces.Box(0, 1, (2,))
REFUSED_ALIKE = {
    "Discrete from 1": spaces.Discrete(3, start=1),
    "MultiDiscrete from 1": spaces.MultiDiscrete([2, 3], start=[0, 1]),
    "MultiDiscrete of two dimensions": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "Tuple": spaces.Tuple([BOX, BOX]),
    "Text": spaces.Text(3),
    "Sequence": spaces.Sequence(BOX),
    "Graph": spaces.Graph(BOX, None),
    "OneOf": spaces.OneOf([BOX, spaces.Discrete(2)]),
}
REFUSED_TO_OBSERVE = REFUSED_ALIKE | {
    "Box of no dimension": spaces.Box(0, 1, ()),
    "Dict in a Dict": spaces.Dict(inner=spaces.Dict(box=BOX)),
    "Tuple in a Dict": spaces.Dict(pair=spaces.Tuple([BOX, BOX])),
    "Discrete from 1 in a Dict": spaces.Dict(word=spaces.Discrete(3, start=1)),
    "Box of no dimension in a Dict": spaces.Dict(number=spaces.Box(0, 1, ())),
}
REFUSED_TO_ACT = REFUSED_ALIKE | {
    "Dict": spaces.Dict(box=BOX),
    "MultiBinary of two dimensions": spaces.MultiBinary([2, 2]),
    "Box without bounds": spaces.Box(-np.inf, np.inf, (2,)),
}


class SameArray(gym.Env):
    """Counts its steps in one array, which it hands out every time; it goes on for ever."""

    observation_space = spaces.Box(-1, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.count = np.zeros(1, dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count[:] = 0
        return self.count, {}

    def step(self, action):
        self.count += 1
        return self.count, 1.0, False, False, {}


class Noisy(gym.Env):
    """Random numbers everywhere; an episode ends by chance, as it should, by a cut, or as both at once."""

    metadata = dict(render_modes=["rgb_array"])  # noqa: RUF012 (gymnasium.Env declares its type)

    def __init__(self, number=0, as_dict=False, end_probability=0.15, action_space=None, render_mode=None):
        self.number, self.as_dict, self.end_probability, self.render_mode = number, as_dict, end_probability, render_mode
        vector = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = spaces.Dict(dict(vector=vector, coin=spaces.Discrete(2))) if as_dict else vector
        self.action_space = action_space or spaces.Discrete(3)
        self.closed = False

    def _observe(self):
        vector = (self.np_random.normal(size=2) + self.shift).astype(np.float32)
        return dict(vector=vector, coin=int(self.np_random.integers(2))) if self.as_dict else vector

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.depth, self.shift = 0, (options or {}).get("shift", 0)
        return self._observe(), dict(born=float(self.np_random.random()))

    def step(self, action):
        self.depth += 1
        terminated, truncated = self.np_random.random(2) < self.end_probability
        info = dict(depth=self.depth, name=f"{self.number} at {self.depth}", parts=dict(half=self.depth / 2))
        if self.depth % 2:
            info |= dict(odd=True, vector=self.np_random.normal(size=2))
        reward = float(np.arange(1, 1 + np.size(action)) @ np.atleast_1d(action)) + self.np_random.normal()
        return self._observe(), reward, bool(terminated), bool(truncated), info

    def render(self):
        return np.full((4, 4, 3), 10 * self.number, dtype=np.uint8)

    def close(self):
        self.closed = True

    def added(self, x, y=0):
        return self.number + x + y


def functions(count=4, **kwargs):
    return [functools.partial(Noisy, number=number, **kwargs) for number in range(count)]


def assert_same(actual, expected):
    """Equal arrays, numbers, texts, or dictionaries of them."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(actual[key], value)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(actual, expected)
        assert np.asarray(actual).dtype == expected.dtype
    else:
        assert actual == expected


class Image(Noisy):
    """The same in pictures."""

    def __init__(self, number=0):
        super().__init__(number)
        self.observation_space = spaces.Box(0, 255, (6, 5, 3), np.uint8)

    def _observe(self):
        return self.np_random.integers(256, size=(6, 5, 3), dtype=np.uint8)


class Blank(Noisy):
    """What it shows never tells where it is."""

    def _observe(self):
        return np.zeros(2, np.float32)
