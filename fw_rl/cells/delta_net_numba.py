"""The delta net on the processor: its memory compiled by Numba, for a sequence with its gradient, and in place while acting."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from fw_rl.cells.backends import Backend, register_backend
from fw_rl.cells.base import State
from fw_rl.cells.delta_net import DeltaNetCell
from fw_rl.cells.delta_net_kernels import run_back, run_forward
from fw_rl.cells.kernels import can_run

__all__ = ["NumbaDeltaNet"]

_EVERY = 16
"""Steps from one matrix that is kept for the way back to the next: what lies between stays in the cache."""


@register_backend(DeltaNetCell)
class NumbaDeltaNet(Backend[DeltaNetCell]):
    """Kernels for the processor."""

    def can_run(self, cell: DeltaNetCell, *tensors: Tensor) -> bool:
        return can_run(cell.output_map.weight, *tensors)

    def kernels(self, replays: bool) -> tuple[Any, ...]:
        return run_forward, run_back

    def sequence(
        self, cell: DeltaNetCell, x: Tensor, state: State, episode_starts: Tensor | None, **signals: Tensor | None
    ) -> tuple[Tensor, State]:
        return cell.run(write_and_read, x, state, episode_starts)


def write_and_read(
    matrix: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    strengths: Tensor,
    decays: Tensor | None = None,
    episode_starts: Tensor | None = None,
    *,
    rule: str = "delta",
) -> tuple[Tensor, Tensor]:
    """`fw_rl.memory.write_and_read`, compiled."""
    reads, after = _WriteAndRead.apply(matrix, queries, keys, values, strengths, decays, episode_starts, rule == "delta")
    return reads, after


class _WriteAndRead(torch.autograd.Function):
    """The reads [T, B, N, V] and the matrix [B, N, V, H] after them."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, *parts: Any) -> tuple[Tensor, Tensor]:
        *programme, starts, corrects = parts
        programme = [part if part is None else part.contiguous() for part in programme]
        _, keys, values, _, _ = programme
        keeps = any(ctx.needs_input_grad)
        steps, (batch, heads, length, size) = len(keys), matrix.shape
        reads, transposed = torch.empty_like(values), matrix.mT.clone(memory_format=torch.contiguous_format)
        errors = values.new_empty(steps if keeps else 1, batch, heads, length)
        kept = values.new_empty(-(-steps // _EVERY) if keeps else 0, batch, heads, size, length)
        script = _arrays(programme, starts)
        run_forward(*script, corrects, _EVERY, *(part.numpy() for part in (transposed, reads, errors, kept)))
        if keeps:
            ctx.save_for_backward(*programme, starts, errors, kept)
            ctx.corrects = corrects
        return reads, transposed.mT.contiguous()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_reads: Tensor, d_matrix: Tensor) -> tuple[Tensor | None, ...]:
        *programme, starts, errors, kept = ctx.saved_tensors
        d_programme = [None if part is None else torch.empty_like(part) for part in programme]
        found = d_matrix.clone(memory_format=torch.contiguous_format)
        given = (errors, kept, d_reads.contiguous(), found)
        room = [d_programme[3].new_empty(0, 0, 0) if part is None else part for part in d_programme]
        run_back(*_arrays(programme, starts), ctx.corrects, _EVERY, *(part.numpy() for part in (*given, *room)))
        return found, *d_programme, None, None


def _arrays(programme: list[Tensor | None], starts: Tensor | None) -> list[NDArray[Any]]:
    """What the kernels take in place of queries, keys, values, strengths, decays and starts."""
    *always, decays = programme
    like = always[0].detach().numpy()
    no_decays, no_starts = np.empty((0, 0, 0), like.dtype), np.empty((0, 0), np.bool_)
    return [
        *(part.detach().numpy() for part in always),
        no_decays if decays is None else decays.detach().numpy(),
        no_starts if starts is None else starts.contiguous().numpy(),
    ]
