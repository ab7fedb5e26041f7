"""Sums along the steps of a rollout: discounted returns and generalised advantages."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["generalized_advantages", "linear_recurrence"]


def generalized_advantages(
    rewards: Tensor, values: Tensor, ends: Tensor, last_values: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, Eq. 16), cut off where an episode or the rollout ends.

        delta(t) = r(t) + gamma V(t+1) - V(t),    A(t) = delta(t) + gamma lambda A(t+1)

    `ends` [T, B] says whether an episode ends with step t; `last_values` [B] are V after the rollout. The sums are in float64.
    """
    discounts = gamma * (~ends).double()
    errors = rewards + discounts * torch.cat([values[1:], last_values[None]]) - values
    nothing = torch.zeros_like(errors[0])
    return linear_recurrence(errors.flip(0), gae_lambda * discounts.flip(0), nothing).flip(0).to(rewards)


def linear_recurrence(numbers: Tensor, discounts: Tensor, before: Tensor) -> Tensor:
    """Every s(t) = numbers(t) + discounts(t) s(t-1) of [T, B], from s(-1) = `before` [B]: one operation per step."""
    sums = []
    for number, discount in zip(numbers.unbind(), discounts.unbind(), strict=True):
        before = torch.addcmul(number, discount, before)
        sums.append(before)
    return torch.stack(sums)
