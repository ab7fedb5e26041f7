"""Optimizers by name, the precision of learning, and its threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["OPTIMIZERS", "PRECISIONS"]

PRECISIONS = ("highest", "high", "medium")
"""Precisions of matrix products, as Torch names them."""

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "rmsprop": (torch.optim.RMSprop, dict(alpha=0.99)),
    "adam": (torch.optim.Adam, dict(fused=True)),
}
"""Class and options of each optimizer, except its epsilon."""


@contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Let Torch use so many threads; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Compute matrix products with this precision; small ones, as in acting, are slower with a lower one."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
