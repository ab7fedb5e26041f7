"""Catch in Torch is the game of `CatchVectorEnv`, step by step, and nothing of it comes back to the host."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fw_rl.envs import CatchTorchVectorEnv, CatchVectorEnv
from tests.helpers import no_downloads

SIZES = [
    {"n": 3, "m": 1},
    {"n": 5, "m": 5, "flatten": False},
    {"n": 6, "m": 2, "paddle_width": 1},
    {"n": 8, "m": 3, "paddle_width": 4, "paddle_start": "center"},
]


@pytest.mark.parametrize("kwargs", SIZES)
def test_it_plays_the_games_of_the_numpy_one(kwargs):
    n, width, rng = kwargs["n"], kwargs.get("paddle_width", 2), np.random.default_rng(0)
    games, ours = CatchVectorEnv(50, **kwargs), CatchTorchVectorEnv(50, **kwargs)
    for _ in range(3):
        start = {"ball": rng.integers(n, size=50), "paddle": rng.integers(n - width + 1, size=50)}
        observations, seen = games.reset(options=start)[0], ours.reset(options=start)[0]
        for t in range(n - 1):
            np.testing.assert_array_equal(seen.numpy(), observations, strict=True)
            actions = rng.integers(3, size=50)
            observations, *rest, _ = games.step(actions)
            seen, *rest_in_torch, infos = ours.step(torch.as_tensor(actions))
            for one, other in zip(rest_in_torch, rest, strict=True):
                np.testing.assert_array_equal(one.numpy(), other)
            assert infos == {} and [part.dtype for part in rest_in_torch] == [torch.float32, torch.bool, torch.bool]
            assert rest_in_torch[1].all() == (t == n - 2)


def test_starts_are_uniform_and_follow_the_seed():
    envs = CatchTorchVectorEnv(3000, n=4, m=4, flatten=False)
    begun = envs.reset(seed=1)[0]
    played = [envs.step(torch.zeros(3000, dtype=torch.int64))[0] for _ in range(6)]
    for frames in (begun, played[2]):  # of the first episodes and, after three steps, of the next ones
        assert_close(frames[:, 0].mean(dim=0), torch.full((4,), 0.25), atol=0.03, rtol=0)
        assert_close(frames[:, 3].mean(dim=0), torch.tensor([1, 2, 2, 1]) / 3, atol=0.03, rtol=0)
    assert not torch.equal(begun, played[2])
    again = envs.reset(seed=1)[0]
    assert torch.equal(begun, again)
    assert not torch.equal(begun, envs.reset()[0])


def test_nothing_comes_back_to_the_host():
    envs = CatchTorchVectorEnv(5, n=4, m=2)
    envs.reset(seed=0)
    actions = torch.ones(5, dtype=torch.int64)
    with no_downloads():
        for _ in range(8):
            envs.step(actions)


def test_what_does_not_fit_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^num_envs must be an integer of at least 1, got 0$"):
        CatchTorchVectorEnv(0)
    with pytest.raises(ValueError, match=r"^m must be an integer from 1 to n = 4, got 9$"):
        CatchTorchVectorEnv(2, n=4, m=9)
    envs = CatchTorchVectorEnv(2, n=4, m=2)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        envs.step(torch.zeros(2))
    with pytest.raises(ValueError, match=r"^options must be among ball, paddle, got 'key'$"):
        envs.reset(options={"key": 1})
    envs.reset()
    with pytest.raises(ValueError, match=r"^actions must be 2 integers, got 3$"):
        envs.step(torch.zeros(3))
