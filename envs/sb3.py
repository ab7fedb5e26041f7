"""A Gymnasium vector environment where Stable-Baselines3 expects one of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, SupportsIndex

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

__all__ = ["VecEnvAdapter"]


class VecEnvAdapter(VecEnv):
    """A Gymnasium `VectorEnv` as an SB3 `VecEnv`, for any SB3 algorithm.

    SB3 wants the first observation of the next episode in the step that ends the last one, and the last observation in
    `infos[i]["terminal_observation"]`; `infos[i]["TimeLimit.truncated"]` says that an ended episode was cut, not finished. With
    `AutoresetMode.SAME_STEP` that is what the environment does. In the modes `NEXT_STEP` and `DISABLED` the adapter resets the
    ended episodes itself, by `reset(options={"reset_mask": ...})`, as `SyncVectorEnv`, `AsyncVectorEnv` and `CatchVectorEnv`
    allow.

    `monitor`: also put return, length and time of an ended episode into `infos[i]["episode"]`, as SB3's `VecMonitor` does.

    Raises RuntimeError if an environment of the last two modes resets more than it was asked to.

    >>> from fw_rl.envs import CatchVectorEnv
    >>> env = VecEnvAdapter(CatchVectorEnv(num_envs=64))
    >>> env.reset().shape
    (64, 256)
    """

    def __init__(self, env: VectorEnv, monitor: bool = False) -> None:
        self.env = env
        self.monitor = monitor
        self.episode_returns = np.zeros(env.num_envs)
        self.episode_lengths = np.zeros(env.num_envs, dtype=np.int64)
        self._made = time.time()
        self._autoreset = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._reset_is_checked = False
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        if any(options != self._options[0] for options in self._options):
            raise ValueError("the reset options differ between environments: a VectorEnv takes one for all")
        observations, infos = self.env.reset(seed=self._seeds[0], options=self._options[0] or None)
        self.reset_infos = _rows(infos, self.num_envs)
        self.episode_returns[:] = 0.0
        self.episode_lengths[:] = 0
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminations, truncations, vector_infos = self.env.step(self._actions)
        dones = terminations | truncations
        self.episode_returns += rewards
        self.episode_lengths += 1
        if not dones.any():
            return observations, rewards, dones, _rows(vector_infos, self.num_envs)
        ended = np.flatnonzero(dones)
        if self._autoreset == AutoresetMode.SAME_STEP:
            final_observations = vector_infos.pop("final_obs")
            final_infos = _rows(vector_infos.pop("final_info", {}), self.num_envs)
            infos = _rows(vector_infos, self.num_envs)
            for i in ended:
                self.reset_infos[i], infos[i] = infos[i], final_infos[i]
        else:
            infos = _rows(vector_infos, self.num_envs)
            final_observations = {i: _row(observations, i) for i in ended}
            observations = self._reset_rows(observations, dones)
        for i in ended:
            infos[i]["terminal_observation"] = final_observations[i]
            infos[i]["TimeLimit.truncated"] = bool(truncations[i] and not terminations[i])
        self._end_episodes(ended, infos)
        return observations, rewards, dones, infos

    def _end_episodes(self, ended: NDArray[np.intp], infos: list[dict[str, Any]]) -> None:
        if self.monitor:
            seconds = round(time.time() - self._made, 6)
            for i in ended:
                infos[i]["episode"] = dict(r=float(self.episode_returns[i]), l=int(self.episode_lengths[i]), t=seconds)
        self.episode_returns[ended] = 0.0
        self.episode_lengths[ended] = 0

    def _reset_rows(self, before: Any, rows: NDArray[np.bool_]) -> Any:
        others = np.flatnonzero(~rows)
        kept = [_row(before, i) for i in others] if not self._reset_is_checked else []
        observations, infos = self.env.reset(options={"reset_mask": rows})
        for i, row_info in enumerate(_rows(infos, self.num_envs)):
            if rows[i]:
                self.reset_infos[i] = row_info
        if any(not _equal(old, _row(observations, i)) for old, i in zip(kept, others, strict=False)):
            raise RuntimeError(f"{self.env} resets every episode at once: make it with autoreset_mode=AutoresetMode.SAME_STEP")
        self._reset_is_checked = self._reset_is_checked or len(kept) > 0
        return observations

    def close(self) -> None:
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        images = self.env.render()
        return [None] * self.num_envs if images is None else [np.asarray(image) for image in images]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        inner = self.env.unwrapped
        values = inner.get_attr(attr_name) if hasattr(inner, "get_attr") else [getattr(inner, attr_name)] * self.num_envs
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        inner = self.env.unwrapped
        if hasattr(inner, "set_attr"):
            values = self.get_attr(attr_name) if indices is not None else [value] * self.num_envs
            for i in self._get_indices(indices):
                values[i] = value
            inner.set_attr(attr_name, values)
        elif indices is None:
            setattr(inner, attr_name, value)
        else:
            raise ValueError(f"{inner} holds all environments in one object: leave indices out")

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        inner = self.env.unwrapped
        if hasattr(inner, "envs"):
            envs = [inner.envs[i] for i in self._get_indices(indices)]
            return [env.get_wrapper_attr(method_name)(*method_args, **method_kwargs) for env in envs]
        if indices is not None:
            raise ValueError(f"{inner} runs a method in all environments at once: leave indices out")
        if hasattr(inner, "call"):
            return list(inner.call(method_name, *method_args, **method_kwargs))
        return [getattr(inner, method_name)(*method_args, **method_kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        if self.monitor and wrapper_class is Monitor:
            return [True for _ in self._get_indices(indices)]
        envs = getattr(self.env.unwrapped, "envs", None)
        return [envs is not None and is_wrapped(envs[i], wrapper_class) for i in self._get_indices(indices)]


def _rows(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Gymnasium's one dictionary of arrays as a dictionary for each environment."""
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for key, value in infos.items():
        if key.startswith("_"):
            continue
        values = _rows(value, num_envs) if isinstance(value, dict) else value
        for i in np.flatnonzero(infos.get(f"_{key}", np.ones(num_envs, dtype=bool))):
            rows[i][key] = values[i]
    return rows


def _row(observations: Any, i: SupportsIndex) -> Any:
    if isinstance(observations, dict):
        return {key: _row(part, i) for key, part in observations.items()}
    return np.array(observations[i])


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return all(_equal(a[key], b[key]) for key in a)
    return np.array_equal(a, b, equal_nan=True)
