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
from fw_rl.cells.delta_net import TINY, DeltaNetCell
from fw_rl.cells.delta_net_kernels import run_back, run_forward
from fw_rl.cells.kernels import can_run

__all__ = ["NumbaDeltaNet"]

_EVERY = 16
"""Steps from one matrix that is kept for the way back to the next: what lies between stays in the cache."""


_Options = tuple[float, float, bool]
"""The eps of the norm, that of a length, and whether what is written is corrected."""


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
        options = cell.norm.eps, TINY, cell.rule == "delta"

        def remember(matrix: Tensor, mapped: Tensor, rates: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
            shown, after = _Remember.apply(matrix, mapped, rates, cell.norm.weight, starts, options)
            return shown, after

        return cell.run(remember, x, state, episode_starts)


class _Remember(torch.autograd.Function):
    """`DeltaNetCell.remember`: what is shown [T, B, N, d], and the matrix [B, N, d, d] after it."""

    @staticmethod
    def forward(
        ctx: Any, matrix: Tensor, mapped: Tensor, rates: Tensor, gain: Tensor, starts: Tensor | None, options: _Options
    ) -> tuple[Tensor, Tensor]:
        keeps = any(ctx.needs_input_grad)
        steps, batch, _, heads, size = mapped.shape
        sigmoids, rates = torch.sigmoid(mapped[:, :, :3]).contiguous(), rates.contiguous()
        given = _arrays(mapped.contiguous(), sigmoids, rates, gain)
        transposed, shown = matrix.mT.clone(memory_format=torch.contiguous_format), mapped.new_empty(steps, batch, heads, size)
        errors, reads = mapped.new_empty(2, steps if keeps else 1, batch, heads, size)
        kept = mapped.new_empty(-(-steps // _EVERY) if keeps else 0, batch, heads, size, size)
        run_forward(*given, *options[:2], _starts(starts), options[2], _EVERY, *_arrays(transposed, shown, errors, reads, kept))
        if keeps:
            ctx.save_for_backward(mapped, sigmoids, rates, gain, starts, errors, reads, kept)
            ctx.options = options
        return shown, transposed.mT.contiguous()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_shown: Tensor, d_matrix: Tensor) -> tuple[Tensor | None, ...]:
        *given, starts, errors, reads, kept = ctx.saved_tensors
        d_mapped, d_rates = torch.empty_like(given[0]), torch.empty_like(given[2])
        d_gain = torch.zeros_like(given[3])
        d_matrix = d_matrix.clone(memory_format=torch.contiguous_format)
        found = _arrays(errors, reads, kept, d_shown.contiguous(), d_matrix, d_mapped, d_rates, d_gain)
        run_back(*_arrays(*given), *ctx.options[:2], _starts(starts), ctx.options[2], _EVERY, *found)
        return d_matrix, d_mapped, d_rates, d_gain, None, None


def _arrays(*parts: Tensor) -> list[NDArray[Any]]:
    return [part.detach().numpy() for part in parts]


def _starts(starts: Tensor | None) -> NDArray[np.bool_]:
    return np.empty((0, 0), np.bool_) if starts is None else starts.contiguous().numpy()
