"""Masks of invalid actions, as sb3-contrib's environments return them from their method `action_masks`."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from sb3_contrib.common.maskable.utils import is_masking_supported
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

__all__ = ["check_masks", "has_masks", "masks_of"]

FORBIDDEN = 1e8
"""How far the logit of a forbidden action is moved. Infinity would make its share of the entropy, 0 * log 0, not a number."""


def has_masks(env: VecEnv) -> bool:
    """Whether an environment says which actions it allows; False for one that cannot be asked, such as those of SuperSuit."""
    try:
        return is_masking_supported(env)
    except AttributeError:
        return False


def masks_of(env: VecEnv) -> NDArray[np.bool_]:
    """What the method `action_masks` of each environment currently returns, arrays or tensors."""
    answers = env.env_method("action_masks")
    return np.stack([answer.numpy(force=True) if isinstance(answer, Tensor) else answer for answer in answers])


def check_masks(masks: ArrayLike, space: spaces.Space, n_envs: int) -> NDArray[np.bool_]:
    """The allowed actions of B environments as an array [B, D], in the order of sb3-contrib.

    D is n for Discrete; for MultiDiscrete the sum of the choices of all its parts, one part after another; for MultiBinary 2 n,
    off and on for each bit. The masks may have any shape.
    """
    parts = _choices(space)
    mask = np.asarray(masks, dtype=bool)
    if mask.size != n_envs * sum(parts):
        raise ValueError(f"action_masks must have the shape {[n_envs, sum(parts)]}, got {list(mask.shape)}")
    mask = mask.reshape(n_envs, -1)
    for part in np.split(mask, np.cumsum(parts)[:-1], axis=1):
        if not part.any(axis=1).all():
            raise ValueError(f"action_masks must allow an action, got none in environment {int(part.any(axis=1).argmin())}")
    return mask


def mask_size(space: spaces.Space) -> int:
    """The D of a mask [D]; raises ValueError for actions that have none."""
    return sum(_choices(space))


def mask_logits(logits: Tensor, masks: Tensor, space: spaces.Space) -> Tensor:
    """Logits [N, L] with which no forbidden action is taken, and none gets a gradient; masks [N, D]."""
    if isinstance(space, spaces.MultiBinary):
        off, on = masks.unflatten(1, (-1, 2)).unbind(2)
        return logits.masked_fill(~on, -FORBIDDEN).masked_fill(~off, FORBIDDEN)
    return logits.masked_fill(~masks, -FORBIDDEN)


def _choices(space: spaces.Space) -> list[int]:
    """The number of choices of each part of an action."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.flatten()]
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    raise ValueError(f"action_space must be Discrete, MultiDiscrete or MultiBinary for action masks, got {space}")
