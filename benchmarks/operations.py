"""The floating-point operations of matrix products and of reads of fast weights, counted while they are computed.

Torch's own counter sees the matrix products, forward and backward. It does not see the compiled kernels of the fast weights:
their products are counted at each call. A multiplication and an addition are two operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from fw_rl.cells import fast_weights_function, fast_weights_numba
from fw_rl.cells.fast_weights_kernels import _weigh

__all__ = ["Operations", "counted"]


class Operations:
    """How many operations there have been."""

    def __init__(self) -> None:
        self.total = 0


@contextmanager
def counted() -> Iterator[Operations]:
    """Counts the operations of everything inside; the sum is complete at the end."""
    operations = Operations()

    def counting(module: ModuleType, name: str, count: Callable[..., int]) -> Any:
        kernel = getattr(module, name)
        parameters = signature(kernel.py_func)

        def call(*arguments: Any) -> None:
            operations.total += 2 * count(**parameters.bind(*arguments).arguments)
            kernel(*arguments)

        return mock.patch.object(module, name, call)

    torch_operations = FlopCounterMode(display=False)
    acting = counting(fast_weights_numba, "step_forward", _products_of_a_step)
    forward = counting(fast_weights_function, "run_forward", _products_forward)
    back = counting(fast_weights_function, "run_back", _products_back)
    with torch_operations, acting, forward, back:
        yield operations
    operations.total += torch_operations.get_total_flops()


def _products_of_a_step(
    boundary: Any, strengths: Any, matrix: Any, faded: Any, first: int, count: int, inner_steps: int, **_: Any
) -> int:
    """The reads of one step while acting; the boundary comes from Torch."""
    size = boundary.shape[1]
    rows_with_matrix = np.count_nonzero(faded) if matrix.shape[1] else 0
    return int(inner_steps * (2 * size * np.count_nonzero(strengths[:, first:count]) + size**2 * rows_with_matrix))


def _products_forward(driven: Any, inner_steps: int, **script: Any) -> int:
    """A sequence: the boundary and the reads of every step."""
    reads, _ = _products_of_reads(**script)
    return driven.size * driven.shape[2] + inner_steps * reads


def _products_back(boundary: Any, settled: Any, inner_steps: int, **script: Any) -> int:
    """The backward pass: every read once, or twice if it is recomputed first, what it sends to earlier writes, and W^T."""
    reads, sent = _products_of_reads(**script)
    return boundary.size * boundary.shape[2] + inner_steps * ((1 if len(settled) else 2) * reads + sent)


def _products_of_reads(
    keys: Any, strengths: Any, matrix: Any, faded: Any, write: Any, first_steps: Any, decay: float, lasting: int, **_: Any
) -> tuple[int, int]:
    """One read at each step of each row, and what its gradient sends to the writes of the sequence.

    A read has two products with every key that has not faded to nothing, and one with the matrix; a write that was read gets
    three.
    """
    pending, size = strengths.shape[1], keys.shape[2]
    weights = np.empty(keys.shape[1], keys.dtype)
    reads = sent = 0
    for t, b in np.ndindex(*write.shape):
        first = _weigh(t, strengths[b], write[:, b], first_steps[t, b], decay, lasting, weights)
        reads += 2 * size * int(np.count_nonzero(weights[first : pending + t]))
        reads += size**2 if faded[t, b] and matrix.shape[1] else 0
        sent += 3 * size * (pending + t - max(first, pending))
    return reads, sent
