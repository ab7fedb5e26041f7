"""The source of the first number that is not finite."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fw_rl.agents.rollout import NumpyObservation, Observation, RecurrentRollout, map_observation

__all__ = ["NotFinite", "first_in_rollout", "first_not_finite", "require_finite_observation"]


class NotFinite(NamedTuple):
    """The first NaN or infinity among numbers [T, B, ...]: its step, its environment, and what is wrong."""

    step: int
    environment: int
    problem: str

    def error(self, frames: int, of_worker: str = "") -> FloatingPointError:
        """The error that names the environment, perhaps one of a worker, and the frames after which it returned the number."""
        return FloatingPointError(f"{self.problem} from environment {self.environment}{of_worker} after {frames:,} frames")


def first_not_finite(name: str, numbers: NumpyObservation) -> NotFinite | None:
    """The first NaN or infinity among numbers [T, B, ...], or in a dictionary of such arrays; None if all are finite."""
    if isinstance(numbers, dict):
        found = [first_not_finite(f"{name}[{key!r}]", part) for key, part in numbers.items()]
        return min((part for part in found if part is not None), default=None)
    if np.isfinite(numbers).all():
        return None
    step, environment, *place = (int(i) for i in np.argwhere(~np.isfinite(numbers))[0])
    return NotFinite(step, environment, f"{name} must be finite, got {numbers[step, environment, *place]}")


def first_in_rollout(rollout: RecurrentRollout, last_observation: NumpyObservation | Observation) -> NotFinite | None:
    """The first NaN or infinity that an environment returned: the reward of step t comes with observation t + 1, [B, ...]."""
    steps = rollout.pos
    reward = first_not_finite("reward", rollout.rewards[:steps])
    found = [
        None if reward is None else reward._replace(step=reward.step + 1),
        first_not_finite("observation", map_observation(lambda part: part[:steps].numpy(force=True), rollout.observations)),
    ]
    last = first_not_finite("observation", map_observation(_on_host, last_observation))  # type: ignore[arg-type]
    found.append(None if last is None else last._replace(step=steps))
    return min((part for part in found if part is not None), key=lambda part: part.step, default=None)


def _on_host(part: NDArray[Any] | Tensor) -> NDArray[Any]:
    """[B, ...] in NumPy as a sequence of one step, [1, B, ...]."""
    return (part.numpy(force=True) if isinstance(part, Tensor) else part)[None]


def require_finite_observation(observation: Observation) -> None:
    """Raise FloatingPointError, with the row and the key of a Dict, if an observation [B, ...] is not finite."""
    found = first_not_finite("observation", map_observation(_on_host, observation))
    if found is not None:
        raise FloatingPointError(f"{found.problem} from environment {found.environment}")
