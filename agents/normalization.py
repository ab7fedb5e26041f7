"""Settings and statistics of a `VecNormalize` as plain values for a checkpoint, since its own `save` would pickle it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    VecTransposeImage,
    unwrap_vec_normalize,
)

from fw_rl.agents.rollout import map_observation

__all__ = ["describe_normalization", "normalize_as"]

SETTINGS = ("training", "norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys")


def describe_normalization(normalizer: VecNormalize) -> dict[str, Any]:
    """Settings, running statistics, and the discounted returns [B] of the running episodes."""
    return {name: getattr(normalizer, name) for name in SETTINGS} | dict(
        observations=map_observation(_describe, normalizer.obs_rms) if normalizer.norm_obs else None,
        rewards=_describe(normalizer.ret_rms),
        returns=normalizer.returns,
    )


def normalize_as(env: VecEnv, stored: dict[str, Any]) -> VecEnv:
    """The environments with these statistics, in their own `VecNormalize`, or else with one that has these settings too.

    It is put around the outermost layer whose observations the statistics describe, as below a `VecFrameStack`. Images are
    transposed only after that.
    """
    normalizer = unwrap_vec_normalize(env)
    if normalizer is None:
        env, normalizer = _with_normalizer(env.venv if isinstance(env, VecTransposeImage) else env, stored)
    if normalizer.norm_obs and stored["observations"] is not None:
        normalizer.obs_rms = _fitting(stored["observations"], normalizer.obs_rms)
    normalizer.ret_rms = _fitting(stored["rewards"], normalizer.ret_rms)
    if len(stored["returns"]) == normalizer.num_envs:
        normalizer.returns = np.array(stored["returns"], dtype=np.float64)
    return env


def warn_of_missing_normalizer(normalizer: VecNormalize | None, env: VecEnv) -> None:
    """Warn if an agent that learned from observations scaled by this normalizer is to act on those of this environment."""
    if normalizer is not None and normalizer.norm_obs and unwrap_vec_normalize(env) is None:
        warnings.warn(
            "the agent was trained with a VecNormalize, which this environment does not have: play in that of "
            "load(path, env).get_env(), whose observations are scaled as in training",
            stacklevel=3,
        )


@contextmanager
def frozen_statistics(env: VecEnv) -> Iterator[None]:
    """Freeze the statistics of the `VecNormalize` of an environment, if it has one."""
    normalizer = unwrap_vec_normalize(env)
    was_training = normalizer is not None and normalizer.training
    if normalizer is not None:
        normalizer.training = False
    try:
        yield
    finally:
        if normalizer is not None:
            normalizer.training = was_training


def normalizer_alone(stored: dict[str, Any], n_envs: int) -> VecNormalize:
    """A `VecNormalize` for its `normalize_obs`, around environments that have only spaces."""

    def make() -> gym.Env:
        env: gym.Env = gym.Env()
        env.observation_space, env.action_space = _space_of(stored["observations"]), spaces.Discrete(1)
        return env

    normalizer = normalize_as(DummyVecEnv([make] * n_envs), stored)
    assert isinstance(normalizer, VecNormalize)
    return normalizer


def fits(space: spaces.Space, statistics: Any) -> bool:
    """Whether statistics, stored or in use, are of the observations of a space."""
    if isinstance(statistics, dict):
        parts = space.spaces if isinstance(space, spaces.Dict) else {}
        return all(key in parts and fits(parts[key], part) for key, part in statistics.items())
    mean = statistics.mean if isinstance(statistics, RunningMeanStd) else statistics[0]
    return space.shape == np.shape(mean)


def _with_normalizer(env: VecEnv, stored: dict[str, Any]) -> tuple[VecEnv, VecNormalize]:
    """The environments with a `VecNormalize` among their layers, and that layer."""
    above: VecEnvWrapper | None = None
    layer = env
    while stored["observations"] is not None and not fits(layer.observation_space, stored["observations"]):
        if not isinstance(layer, VecEnvWrapper):
            raise ValueError("no layer of it shows observations of the shape that the statistics have")
        above = layer
        layer = above.venv
    normalizer = VecNormalize(layer, **{name: stored[name] for name in SETTINGS})
    if above is None:
        return normalizer, normalizer
    above.venv = normalizer
    return env, normalizer


def _space_of(statistics: Any) -> spaces.Space:
    """A space of the observations that stored statistics are of."""
    if isinstance(statistics, dict):
        return spaces.Dict({key: _space_of(part) for key, part in statistics.items()})
    return spaces.Box(-np.inf, np.inf, () if statistics is None else np.shape(statistics[0]))


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
