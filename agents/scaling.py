"""Observations and rewards in the same range in any environment, by statistics that an agent keeps of what it sees.

The statistics are buffers of the policy. So a prediction takes raw observations of the environment, and a checkpoint, an ONNX
file and the workers of A3C have the statistics automatically.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from torch import Tensor, nn

from fw_rl.agents.features import fits_cnn
from fw_rl.agents.returns import linear_recurrence
from fw_rl.agents.rollout import Observation

__all__ = ["ObservationScaling", "RewardScaling", "RunningStatistics"]

CLIP = 10.0
EPSILON = 1e-8


class RunningStatistics(nn.Module):
    """Mean and variance of all values so far, by the parallel algorithm of Chan et al. (1979)."""

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def inverse_deviation(self) -> Tensor:
        """1 / sqrt(var + epsilon)."""
        return (self.var + EPSILON).rsqrt()

    def update(self, values: Tensor) -> None:
        """Include N values, [N, ...]."""
        values = values.to(self.mean)
        self._merge(values.mean(dim=0), values.var(dim=0, correction=0), torch.full_like(self.count, len(values)))

    def catch_up(self, other: RunningStatistics, before: RunningStatistics) -> None:
        """Include what other statistics have seen since they were as `before`."""
        if self.count == before.count:
            self.load_state_dict(other.state_dict())
        elif other.count > before.count:
            self._merge(*other._since(before))

    @torch.no_grad()
    def _merge(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Include `count` values, given their mean and variance."""
        total = self.count + count
        distance = mean - self.mean
        squares = self.var * self.count + var * count + distance.square() * self.count * count / total
        self.mean.add_(distance * count / total)
        self.var.copy_(squares / total)
        self.count.copy_(total)

    def _since(self, before: RunningStatistics) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and count of the values after those that `before` has."""
        count = self.count - before.count
        mean = before.mean + (self.mean - before.mean) * self.count / count
        squares = self.var * self.count - before.var * before.count
        return mean, (squares / count - (mean - before.mean).square() * before.count / self.count).clamp(min=0.0), count


class RewardScaling(RunningStatistics):
    """Rewards over the running deviation of the discounted returns, clipped at 10, as in SB3's `VecNormalize`."""

    def __init__(self) -> None:
        super().__init__(())

    @torch.no_grad()
    def scale(self, rewards: Tensor, starts: Tensor, returns: Tensor, gamma: float) -> Tensor:
        """The scaled rewards [T, B] of a rollout with episode starts [T, B], each step by the statistics up to it.

        The discounted returns [B] of the running episodes, in float64, are updated in place.
        """
        if not rewards.isfinite().all():
            return rewards  # to be named by who knows the environments
        history = linear_recurrence(rewards.to(returns), gamma * (~starts).to(returns), returns)
        returns.copy_(history[-1])
        steps, rows = history.shape
        center = torch.where(self.count > 0, self.mean, history[0].mean())
        count = self.count + rows * torch.arange(1, steps + 1, device=history.device)
        distance = history - center
        drift = distance.sum(dim=1).cumsum(0) / count
        squares = self.var * self.count + distance.square().sum(dim=1).cumsum(0)
        var = (squares / count - drift.square()).clamp(min=0.0)
        factor = (var + EPSILON).rsqrt().to(rewards).unsqueeze(1)
        for known, new in ((self.mean, center + drift[-1]), (self.var, var[-1]), (self.count, count[-1])):
            known.copy_(new)
        return (rewards * factor).clamp(-CLIP, CLIP)


class ObservationScaling(nn.Module):
    """Observations less their running mean, over their running deviation, clipped at 10, as in SB3's `VecNormalize`.

    Every Box is scaled, except those between 0 and 1 and images for which a CNN is the default extractor; choices are
    unchanged. The statistics grow with every rollout, but what `forward` applies changes only with `refresh`: an agent learns
    from a rollout with the scaling that it acted with. It takes observations as SB3's `preprocess_obs` returns them, which
    divides images by 255 if these are to be normalized.
    """

    def __init__(self, space: spaces.Space, normalize_images: bool = True) -> None:
        super().__init__()
        parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        scaled = {key: part for key, part in parts.items() if _is_scaled(part, normalize_images)}
        self.keys = list(scaled)
        self.units = [255.0 if normalize_images and is_image_space(part) else 1.0 for part in scaled.values()]
        self.parts = nn.ModuleList(_Scaling(part.shape or ()) for part in scaled.values())

    def forward(self, observation: Observation) -> Observation:
        """The scaled observation, of [..., *shape] or a dictionary of these."""
        if not isinstance(observation, dict):
            return cast(Tensor, self.parts[0](observation)) if self.keys else observation
        scaled: dict[str, Tensor] = {key: part(observation[key]) for key, part in zip(self.keys, self.parts, strict=True)}
        return observation | scaled

    def takes(self, observation: Observation) -> bool:
        """Whether the values to be scaled are finite; clipping an infinity would hide it."""
        return all(bool(part.double().sum().isfinite()) for part in self._scaled(observation))

    def update(self, observation: Observation) -> None:
        """Include the raw observations of a rollout, [T, B, ...]."""
        for seen, unit, part in zip(self._scaled(observation), self.units, self.parts, strict=True):
            cast(_Scaling, part).statistics.update(seen.flatten(0, 1) / unit)

    def _scaled(self, observation: Observation) -> list[Tensor]:
        return [observation[key] if isinstance(observation, dict) else observation for key in self.keys]

    def refresh(self) -> None:
        """From now on apply the statistics known so far."""
        for part in self.parts:
            cast(_Scaling, part).refresh()


class _Scaling(nn.Module):
    """The scaling of one part: its statistics, and the applied mean, factor and limit, none at first."""

    mean: Tensor
    factor: Tensor
    limit: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.statistics = RunningStatistics(shape)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("factor", torch.ones(shape))
        self.register_buffer("limit", torch.tensor(float("inf")))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * self.factor).clamp(-self.limit, self.limit)

    def refresh(self) -> None:
        if self.statistics.count > 0:
            self.mean.copy_(self.statistics.mean)
            self.factor.copy_(self.statistics.inverse_deviation)
            self.limit.fill_(CLIP)


def _is_scaled(space: spaces.Space, normalize_images: bool) -> bool:
    if not isinstance(space, spaces.Box) or fits_cnn(space, normalize_images):
        return False
    return not (np.all(space.low >= 0) and np.all(space.high <= 1))
