"""A Gymnasium vector environment whose numbers are Torch tensors where Stable-Baselines3 expects one of its own."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnvWrapper
from torch import Tensor

from fw_rl.envs.sb3 import VecEnvAdapter, row_of

__all__ = ["NumPyVecEnv", "TensorVecEnvAdapter", "device_of"]


def device_of(env: VectorEnv) -> torch.device | None:
    """The device of an environment's tensors, from its own attribute `device`; None if it has none."""
    device = getattr(env.unwrapped, "device", None)
    return torch.device(device) if isinstance(device, str | torch.device) else None


class TensorVecEnvAdapter(VecEnvAdapter):
    """A `VectorEnv` of Torch tensors on one device as an SB3 `VecEnv` whose numbers stay there, for the agents of this package.

    Observations [num_envs, ...], rewards (float32) and dones [num_envs] are tensors, and so are the actions that it takes. The
    environment has a `device`, and `AutoresetMode.SAME_STEP`. If it cuts episodes, every step has a tensor of last observations
    [num_envs, ...] in `infos["final_obs"]`, whose rows of other episodes may hold anything finite. The `infos` of SB3 are
    empty: `truncations` [num_envs], where a time limit, not the game, ended the episode, and `last_observations` are those of
    the last step, and `take_episodes` reports ended episodes.

    Args:
        env: The vector environment.
        monitor: Whether returns and lengths of episodes are summed up.

    Raises:
        ValueError: As in `VecEnvAdapter`, for another autoreset mode, and for anything that is not a tensor on that device.
    """

    def __init__(self, env: VectorEnv, monitor: bool = False) -> None:
        super().__init__(env, monitor)
        device = device_of(env)
        if device is None:
            raise ValueError(f"env must have an attribute `device`, that of its tensors, got none from {env}")
        if self._autoreset != AutoresetMode.SAME_STEP:
            raise ValueError(f"autoreset_mode must be SameStep where env gives tensors, got {self._autoreset.value} from {env}")
        self.device = device
        self.truncations = torch.zeros(self.num_envs, dtype=torch.bool, device=device)
        self.last_observations: Tensor | dict[str, Tensor] | None = None
        self.episode_returns: Tensor = torch.zeros(self.num_envs, device=device)  # type: ignore[assignment]
        self.episode_lengths: Tensor = torch.zeros_like(self.episode_returns, dtype=torch.int64)  # type: ignore[assignment]
        self._ended: list[tuple[Tensor, Tensor, Tensor]] = []
        self._was_cut = torch.zeros_like(self.truncations)
        self._no_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]

    def _check_observations(self, observations: Any) -> None:
        for part in observations.values() if isinstance(observations, dict) else [observations]:
            if not isinstance(part, Tensor) or len(part) != self.num_envs or part.device.type != self.device.type:
                shown = f"{list(part.shape)} on {part.device}" if isinstance(part, Tensor) else type(part).__name__
                raise ValueError(
                    f"observations must be tensors of {self.num_envs} rows on {self.device}, got {shown} from {self.env}"
                )

    def reset(self) -> Any:
        self._ended.clear()  # of a training that was stopped amid a rollout
        return super().reset()

    def step_wait(self) -> Any:
        observations, rewards, terminations, truncations, infos = self.env.step(self._actions)
        self.last_observations = infos.get("final_obs")
        self.truncations = truncations & ~terminations
        dones, rewards = terminations | truncations, rewards.float()
        if self.last_observations is None:
            self._was_cut |= self.truncations
        if self.monitor:
            self.episode_returns += rewards
            self.episode_lengths += 1
            self._ended.append((dones, self.episode_returns.clone(), self.episode_lengths.clone()))
            self.episode_returns.masked_fill_(dones, 0.0)
            self.episode_lengths.masked_fill_(dones, 0)
        return observations, rewards, dones, self._no_infos

    def take_episodes(self) -> list[dict[str, Any]]:
        """Return, length and time of the episodes that have ended since the last call, in order; the only download.

        Raises:
            ValueError: If an episode was cut in a step that returned no last observations.
        """
        if self._was_cut.any():
            raise ValueError(f"infos['final_obs'] must be a tensor in every step if episodes are cut, got none from {self.env}")
        steps, self._ended = self._ended, []
        if not steps:
            return []
        dones, returns, lengths = (torch.stack(part) for part in zip(*steps, strict=True))
        seconds = round(time.time() - self._start_time, 6)
        ended = zip(returns[dones].tolist(), lengths[dones].tolist(), strict=True)
        return [dict(r=total, l=length, t=seconds) for total, length in ended]


class NumPyVecEnv(VecEnvWrapper):
    """A `TensorVecEnvAdapter` with NumPy arrays and SB3's `infos`, for anything that evaluates an agent."""

    venv: TensorVecEnvAdapter

    def reset(self) -> Any:
        return _to_numpy(self.venv.reset())

    def step_async(self, actions: Any) -> None:
        self.venv.step_async(torch.as_tensor(actions, device=self.venv.device))  # type: ignore[arg-type]

    def step_wait(self) -> Any:
        observations, rewards, dones, _ = self.venv.step_wait()
        ended, cut = dones.numpy(force=True), self.venv.truncations.numpy(force=True)
        infos: list[dict[str, Any]] = [{} for _ in ended]
        episodes, last = iter(self.venv.take_episodes()), _to_numpy(self.venv.last_observations)
        for i in np.flatnonzero(ended):
            infos[i]["TimeLimit.truncated"] = bool(cut[i])
            if self.venv.monitor:
                infos[i]["episode"] = next(episodes)
            if last is not None:
                infos[i]["terminal_observation"] = row_of(last, i)
        return _to_numpy(observations), rewards.numpy(force=True), ended, infos


def _to_numpy(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {key: part.numpy(force=True) for key, part in observations.items()}
    return None if observations is None else observations.numpy(force=True)
