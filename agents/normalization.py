"""Settings and statistics of a `VecNormalize` as plain values for a checkpoint, since its own `save` would pickle it."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, VecTransposeImage

__all__ = ["describe_normalization", "normalize_as"]

SETTINGS = ("training", "norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys")


def describe_normalization(normalizer: VecNormalize) -> dict[str, Any]:
    """Settings, running statistics, and the discounted returns [B] of the running episodes."""
    return {name: getattr(normalizer, name) for name in SETTINGS} | dict(
        observations=_map(_describe, normalizer.obs_rms) if normalizer.norm_obs else None,
        rewards=_describe(normalizer.ret_rms),
        returns=normalizer.returns,
    )


def restore_normalization(normalizer: VecNormalize, stored: dict[str, Any]) -> None:
    """Take over the statistics; the settings stay as they are."""
    if normalizer.norm_obs and stored["observations"] is not None:
        normalizer.obs_rms = _fitting(stored["observations"], normalizer.obs_rms)
    normalizer.ret_rms = _fitting(stored["rewards"], normalizer.ret_rms)
    if len(stored["returns"]) == normalizer.num_envs:
        normalizer.returns = np.array(stored["returns"], dtype=np.float64)


def normalize_as(env: VecEnv, stored: dict[str, Any]) -> VecNormalize:
    """The environments in a `VecNormalize` of these settings and statistics; images are still to be transposed."""
    inner = env.venv if isinstance(env, VecTransposeImage) else env
    normalizer = VecNormalize(inner, **{name: stored[name] for name in SETTINGS})
    restore_normalization(normalizer, stored)
    return normalizer


def normalize_without_envs(
    observation_space: spaces.Space, action_space: spaces.Space, n_envs: int, stored: dict[str, Any]
) -> VecNormalize:
    """A `VecNormalize` of these settings and statistics that has `normalize_obs`, but no environments to step."""
    return normalize_as(DummyVecEnv([partial(_PlaceholderEnv, observation_space, action_space)] * n_envs), stored)


class _PlaceholderEnv(gym.Env):
    """The spaces of an environment that is elsewhere."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space


def _map(function: Any, statistics: Any) -> Any:
    return {key: function(part) for key, part in statistics.items()} if isinstance(statistics, dict) else function(statistics)


def _describe(statistics: RunningMeanStd) -> tuple[Any, Any, float]:
    return np.asarray(statistics.mean), np.asarray(statistics.var), float(statistics.count)


def _fitting(stored: Any, ours: Any) -> Any:
    """The stored statistics, if they are of the same things as ours."""
    if isinstance(ours, dict):
        if not isinstance(stored, dict) or stored.keys() != ours.keys():
            raise ValueError(f"statistics must be of the observations {', '.join(ours)}, got others")
        return {key: _fitting(stored[key], part) for key, part in ours.items()}
    mean, var, count = stored
    restored = RunningMeanStd(shape=np.shape(ours.mean))
    for name, part in (("mean", mean), ("var", var)):
        if np.shape(part) != np.shape(ours.mean):
            raise ValueError(f"statistics must have the shape {np.shape(ours.mean)}, got {np.shape(part)}")
        setattr(restored, name, np.array(part, dtype=np.float64))
    restored.count = float(count)
    return restored
