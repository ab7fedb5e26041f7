"""The floating-point operations of matrix products and of reads of fast weights, counted while they are computed.

Torch's own counter sees the matrix products, forward and backward. The compiled kernels of the fast weights are out of its
sight: each call is looked at for what it multiplies. A multiplication and an addition are two operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from fw_rl.cells import fast_weights_sequence as kernels
from fw_rl.cells.fast_weights_kernels import Net, Past, Script, _weigh

__all__ = ["Operations", "counted"]


class Operations:
    """How many there have been."""

    def __init__(self) -> None:
        self.total = 0


@contextmanager
def counted() -> Iterator[Operations]:
    """Counts the operations of everything inside; the sum is there at the end."""
    operations = Operations()

    def counting(name: str, count: Callable[..., int]) -> Any:
        kernel = getattr(kernels, name)

        def call(*arguments: Any) -> None:
            operations.total += 2 * count(*arguments)
            kernel(*arguments)

        return mock.patch.object(kernels, name, call)

    torch_operations = FlopCounterMode(display=False)
    acting, forward, back = (
        counting("step_forward", _products_of_a_step),
        counting("run_forward", _products_forward),
        counting("run_back", _products_back),
    )
    with torch_operations, acting, forward, back:
        yield operations
    operations.total += torch_operations.get_total_flops()


def _products_of_a_step(boundary: Any, matrix: Any, faded: Any, keys: Any, strengths: Any, count: int, *rest: Any) -> int:
    """The reads of one step while acting; the boundary comes from Torch."""
    inner_steps, size = rest[-3], boundary.shape[1]
    rows_with_matrix = np.count_nonzero(faded) if matrix.shape[1] else 0
    return int(inner_steps * (2 * size * np.count_nonzero(strengths[:, :count]) + size**2 * rows_with_matrix))


def _products_forward(driven: Any, net: Net, past: Past, script: Script, *_: Any) -> int:
    """A sequence: the boundary and the reads of every step."""
    return driven.size * driven.shape[2] + net.inner_steps * _products_of_reads(net, past, script)


def _products_back(boundary: Any, outputs: Any, _: Any, net: Net, past: Past, script: Script, settled: Any, *rest: Any) -> int:
    """The way back: every read once, or twice if it is done again first, what it sends to earlier writes, and W^T."""
    size, steps = boundary.shape[2], np.arange(len(boundary))[:, None]
    reads = (1 if len(settled) else 2) * _products_of_reads(net, past, script)
    sent = 3 * size * int((steps - np.maximum(script.begins, 0)).sum())
    return boundary.size * size + net.inner_steps * (reads + sent)


def _products_of_reads(net: Net, past: Past, script: Script) -> int:
    """One read at each step of each row: two products with every key that has not faded to nothing, and one with the matrix."""
    (steps, batch), (_, pending, size) = script.write.shape, past.keys.shape
    weights, total = np.empty(pending + steps, past.keys.dtype), 0
    for t, b in np.ndindex(steps, batch):
        first, faded = _weigh(t, b, past, script, net.decay, weights)
        total += 2 * size * int(np.count_nonzero(weights[first : pending + t]))
        total += size**2 if faded and past.matrix.shape[1] else 0
    return total
