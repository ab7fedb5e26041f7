"""Catch in Torch: many games in tensors on any device, with no copies back to the host (Ba16 §4.4)."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from fw_rl.envs.rules import CatchRules, PaddleStart
from fw_rl.envs.vector import check_num_envs

__all__ = ["CatchTorchVectorEnv"]


class CatchTorchVectorEnv(VectorEnv[Tensor, Tensor, Tensor]):
    """`CatchVectorEnv` in Torch: the same rules on a device of your choice, for agents that learn there.

    Observations [num_envs, n * n] (or [num_envs, n, n]) and rewards [num_envs] are float32, terminations and truncations
    [num_envs] bool, all of them tensors on `device`. Actions [num_envs] are 0 stay, 1 right and 2 left; they are not checked,
    since that would wait for the device: any other number means stay. An episode that has ended begins again in the same step.
    Every episode terminates by itself, and `infos` is empty: the last frame is not reported.

    Args:
        num_envs: Games, at least 1.
        n: Rows and columns of the screen, at least 3.
        m: Visible frames, from 1 to n.
        paddle_width: Pixels of the paddle, from 1 to n - 1.
        paddle_start: Leftmost column of the paddle at the start: "random", "center" or a column from 0 to n - paddle_width.
        flatten: Whether an observation of a game is [n * n] or [n, n].
        device: A Torch device, or its name.

    Raises:
        ValueError: If an argument or option is not one of those above.
        gymnasium.error.ResetNeeded: For a step before the first reset.

    Examples:
        >>> envs = CatchTorchVectorEnv(num_envs=64, n=16, m=3, device="cpu")
        >>> observations, _ = envs.reset(seed=0)
        >>> observations, rewards, terminations, truncations, _ = envs.step(torch.zeros(64, dtype=torch.int64))
        >>> observations.shape, rewards.device
        (torch.Size([64, 256]), device(type='cpu'))
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 (gymnasium declares its type)

    def __init__(
        self,
        num_envs: int = 1,
        n: int = 16,
        m: int = 3,
        *,
        paddle_width: int = 2,
        paddle_start: PaddleStart = "random",
        flatten: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_envs, self.device = check_num_envs(num_envs), torch.device(device)
        self.rules = CatchRules(n, m, paddle_width, paddle_start)
        self._shape = (n * n,) if flatten else (n, n)
        self.single_observation_space = gym.spaces.Box(0, 1, self._shape, np.float32)
        self.single_action_space = gym.spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generator = torch.Generator(self.device)
        self._generator.seed()
        self._integers = partial(torch.randint, size=(num_envs,), generator=self._generator, device=self.device)
        self._games = torch.arange(num_envs, device=self.device)
        self._never = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._row: Tensor | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Begin the episodes of all games.

        Args:
            seed: Seeds the single generator of all games; a seed gives different games on another kind of device.
            options: "ball" and "paddle", each optional, fix the start: a column, or [num_envs] of them.
        """
        fixed = self.rules.fixed_start(options, self.num_envs)
        if seed is not None:
            self._generator.manual_seed(seed)
        starts = dict(zip(("ball", "paddle"), self.rules.start(self._integers), strict=False))
        starts |= {name: torch.as_tensor(columns, device=self.device) for name, columns in fixed.items()}
        self._row, self._ball, self._paddle = torch.zeros_like(self._games), starts["ball"], starts["paddle"]
        return self._observe(), {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        if self._row is None:
            raise gym.error.ResetNeeded("no episode is under way: call reset() first")
        if len(actions) != self.num_envs:
            raise ValueError(f"actions must be {self.num_envs} integers, got {len(actions)}")
        row = self._row + 1
        paddle = self.rules.move(self._paddle, torch.as_tensor(actions, device=self.device))
        rewards = self.rules.reward(row, self._ball, paddle).float()
        ended = row == self.rules.bottom
        new_ball, new_paddle, _ = self.rules.start(self._integers)
        self._row = torch.where(ended, 0, row)
        self._ball, self._paddle = torch.where(ended, new_ball, self._ball), torch.where(ended, new_paddle, paddle)
        return self._observe(), rewards, ended, self._never, {}

    def _observe(self) -> Tensor:
        frames = torch.zeros(self.num_envs, self.rules.n, self.rules.n, device=self.device)
        self.rules.draw(frames, self._games, self._row, self._ball, self._paddle)
        return frames.view(self.num_envs, *self._shape)
