"""Spaces as plain values, for checkpoints, and their numbers as tensors."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from fw_rl.document import one_line

__all__: list[str] = []


def torch_dtype(space: spaces.Space) -> torch.dtype:
    """The type of a tensor of the space's numbers."""
    return _torch_dtype(space.dtype)


@cache
def _torch_dtype(dtype: np.dtype | None) -> torch.dtype:
    assert dtype is not None
    return getattr(torch, dtype.name)  # type: ignore[no-any-return]


def describe_space(space: spaces.Space) -> dict[str, Any]:
    """A space as values that `pack` takes; `make_space` makes it again."""
    if isinstance(space, spaces.Dict):
        return dict(type="Dict", spaces={key: describe_space(part) for key, part in space.spaces.items()})
    if isinstance(space, spaces.MultiBinary):
        return dict(type="MultiBinary", n=space.n)
    dtype = np.dtype(space.dtype).name
    if isinstance(space, spaces.Box):
        return dict(type="Box", low=_compact(space.low), high=_compact(space.high), shape=space.shape, dtype=dtype)
    if isinstance(space, spaces.Discrete):
        return dict(type="Discrete", n=space.n, start=space.start, dtype=dtype)
    if isinstance(space, spaces.MultiDiscrete):
        return dict(type="MultiDiscrete", nvec=space.nvec, start=space.start, dtype=dtype)
    raise ValueError(f"a checkpoint cannot hold the space {one_line(space)}")


def _compact(bound: NDArray[Any]) -> Any:
    """The number that fills the whole array, or else the array."""
    return bound.flat[0] if bound.size and (bound == bound.flat[0]).all() else bound


def make_space(description: dict[str, Any]) -> spaces.Space:
    """The space that `describe_space` described."""
    kind = description["type"]
    if kind == "Dict":
        return spaces.Dict(OrderedDict((key, make_space(part)) for key, part in description["spaces"].items()))
    if kind == "MultiBinary":
        return spaces.MultiBinary(description["n"])
    dtype = np.dtype(description["dtype"])
    if kind == "Box":
        low, high = (np.full(description["shape"], description[bound], dtype) for bound in ("low", "high"))
        return spaces.Box(low, high, dtype=dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(description["n"], start=description["start"], dtype=dtype.type)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(description["nvec"], dtype=dtype.type, start=description["start"])
    raise ValueError(f"there is no space {one_line(repr(kind))}")
