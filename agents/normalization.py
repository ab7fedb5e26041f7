"""Settings and statistics of a `VecNormalize` as plain values for a checkpoint, since its own `save` would pickle it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, VecTransposeImage, unwrap_vec_normalize

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
    """The environments with these statistics, in their own `VecNormalize`, or else in one with these settings.

    In a new one, images are still to be transposed.
    """
    normalizer = unwrap_vec_normalize(env)
    if normalizer is None:
        inner = env.venv if isinstance(env, VecTransposeImage) else env
        env = normalizer = VecNormalize(inner, **{name: stored[name] for name in SETTINGS})
    if normalizer.norm_obs and stored["observations"] is not None:
        normalizer.obs_rms = _fitting(stored["observations"], normalizer.obs_rms)
    normalizer.ret_rms = _fitting(stored["rewards"], normalizer.ret_rms)
    if len(stored["returns"]) == normalizer.num_envs:
        normalizer.returns = np.array(stored["returns"], dtype=np.float64)
    return env


def environments_without_steps(observation_space: spaces.Space, action_space: spaces.Space, n_envs: int) -> VecEnv:
    """Environments that have spaces, which is enough for the `normalize_obs` of a `VecNormalize`."""

    def make() -> gym.Env:
        env: gym.Env = gym.Env()
        env.observation_space, env.action_space = observation_space, action_space
        return env

    return DummyVecEnv([make] * n_envs)


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
