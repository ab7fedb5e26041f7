"""A vector environment of Stable-Baselines3 where Gymnasium's is expected."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.vec_env import VecEnv

from fw_rl.envs.vector import OwnGenerators

__all__ = ["VectorEnvAdapter"]


class VectorEnvAdapter(OwnGenerators):
    """An SB3 `VecEnv`, wrapped or not, as a Gymnasium `VectorEnv` with the autoreset mode `SAME_STEP`.

    It steps as `SyncVectorEnv` does in that mode, since a `VecEnv` always begins the next episode in the step that ends the
    last one: `infos["final_obs"]` and `infos["final_info"]` hold the results of that step, the other infos are those of the
    reset. Rewards [num_envs] are float64, rounded to SB3's float32. An episode that a time limit cut is truncated. SB3 does not
    report a time limit in the step that finishes an episode, so only terminated is True there.

    `reset(seed=s)` seeds environment i with s + i. `call`, `get_attr` and `set_attr` reach the single environments: `call` runs
    a method, `get_attr` reads anything else.

    Args:
        venv: The environments.

    Raises:
        ValueError: For a "reset_mask" that leaves some environments out, which no `VecEnv` can do.

    Examples:
        >>> import gymnasium as gym
        >>> from fw_rl.envs import VectorEnvAdapter
        >>> from stable_baselines3.common.env_util import make_vec_env
        >>> envs = VectorEnvAdapter(make_vec_env("CartPole-v1", n_envs=4))
        >>> envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations.shape
        (4, 4)
    """

    def __init__(self, venv: VecEnv) -> None:
        self.venv = venv
        self.num_envs = venv.num_envs
        self.metadata = {**venv.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
        self.render_mode = venv.render_mode
        self.single_observation_space = venv.observation_space
        self.single_action_space = venv.action_space
        self.observation_space = batch_space(venv.observation_space, venv.num_envs)
        self.action_space = batch_space(venv.action_space, venv.num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        mask = (options or {}).get("reset_mask", True)
        if not np.all(mask):
            raise ValueError(f"reset_mask must be True everywhere, as an SB3 VecEnv begins all episodes at once, got {mask}")
        super().reset(seed=seed)
        if seed is not None:
            self.venv.seed(seed)
        if told := {key: value for key, value in (options or {}).items() if key != "reset_mask"}:
            self.venv.set_options(told)
        observations = self.venv.reset()
        infos: dict[str, Any] = {}
        for i, info in enumerate(self.venv.unwrapped.reset_infos):
            infos = self._add_info(infos, info, i)
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        observations, rewards, dones, env_infos = self.venv.step(actions)
        truncations = np.zeros(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {}
        for i, (done, env_info) in enumerate(zip(dones.tolist(), env_infos, strict=True)):
            if not env_info and not done:
                continue
            info = {key: value for key, value in env_info.items() if key not in ("terminal_observation", "TimeLimit.truncated")}
            if done:
                truncations[i] = env_info.get("TimeLimit.truncated", False)
                final = dict(final_obs=env_info["terminal_observation"], final_info=info)
                infos = self._add_info(infos, final, i)
                info = self.venv.unwrapped.reset_infos[i]
            infos = self._add_info(infos, info, i)
        return observations, rewards.astype(np.float64), dones & ~truncations, truncations, infos

    def render(self) -> tuple[Any, ...]:
        return tuple(self.venv.get_images() if self.render_mode == "rgb_array" else self.venv.env_method("render"))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What a method of each environment returns.

        Args:
            name: The method.
            args: Its arguments.
            kwargs: Its arguments by name.
        """
        return tuple(self.venv.env_method(name, *args, **kwargs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of each environment.

        Args:
            name: The attribute.
        """
        return tuple(self.venv.get_attr(name))

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each environment.

        Args:
            name: The attribute.
            values: A list or tuple with a value for each environment, or anything else, which is for all.

        Raises:
            ValueError: If a list or tuple has the wrong length.
        """
        if not isinstance(values, list | tuple):
            self.venv.set_attr(name, values)
            return
        if len(values) != self.num_envs:
            raise ValueError(f"{name} must have {self.num_envs} values, got {len(values)}")
        for i, value in enumerate(values):
            self.venv.set_attr(name, value, indices=i)

    def close_extras(self, **kwargs: Any) -> None:
        self.venv.close()
