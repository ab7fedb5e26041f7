"""The delta net on the processor: what lies between its maps, compiled by Numba, with its gradient, and in place while acting.

It is the compiled form (`delta_net_kernels`) of `DeltaNetCell.remember`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fw_rl.cells.backends import Backend, register_backend
from fw_rl.cells.base import State, Stepper, check_rows
from fw_rl.cells.delta_net import TINY, DeltaNetCell
from fw_rl.cells.delta_net_kernels import run_back, run_forward
from fw_rl.kernels import Kernel, array_of_starts, arrays, can_run, first_derivative

__all__ = ["NumbaDeltaNet"]

_EVERY = 16
"""Steps from one matrix kept for the backward pass to the next: what lies between them fits into the cache."""


@register_backend(DeltaNetCell)
class NumbaDeltaNet(Backend[DeltaNetCell]):
    """Kernels for the processor."""

    def can_run(self, cell: DeltaNetCell, *tensors: Tensor) -> bool:
        is_known = isinstance(cell.norm, nn.RMSNorm) and cell.norm.weight is not None and cell.norm.eps is not None
        return is_known and can_run(cell.output_map.weight, *tensors)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        return run_forward, run_back

    def sequence(
        self, cell: DeltaNetCell, x: Tensor, state: State, episode_starts: Tensor | None, **signals: Tensor | None
    ) -> tuple[Tensor, State]:
        def remember(matrix: Tensor, mapped: Tensor, rates: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
            shown, after = _Remember.apply(matrix, mapped, rates, cell.norm.weight, starts, cell)
            return shown, after

        return cell.run(remember, x, state, episode_starts)

    def stepper(self, cell: DeltaNetCell, state: State) -> Stepper:
        return _DeltaNetStepper(cell, state)


class _DeltaNetStepper(Stepper):
    """Acts with a matrix that is written in place."""

    cell: DeltaNetCell

    def __init__(self, cell: DeltaNetCell, state: State) -> None:
        self.cell = cell
        *self._h, matrix = (part.detach() for part in state)
        self._transposed = _copy_of(matrix.mT)

    @property
    def state(self) -> State:
        return *self._h, _copy_of(self._transposed.mT)

    @torch.no_grad()
    def step(self, x: Tensor, episode_starts: Tensor) -> Tensor:
        check_rows(x.shape[:1], (self._transposed,), episode_starts)
        nothing = x.new_empty(len(x), 0)  # the matrix is ours
        y, (*self._h, _) = self.cell.run(self._remember, x.unsqueeze(0), (*self._h, nothing), episode_starts.unsqueeze(0))
        return y[0]

    def _remember(self, matrix: Tensor, mapped: Tensor, rates: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        sigmoids = mapped[:, :, :3].sigmoid()
        shown, *_ = _run_forward(self.cell, self._transposed, mapped, sigmoids, rates, self.cell.norm.weight, starts)
        return shown, matrix


class _Remember(torch.autograd.Function):
    """`DeltaNetCell.remember`: what is shown [T, B, N, d], and the matrix [B, N, d, d] after it."""

    @staticmethod
    def forward(
        ctx: Any, matrix: Tensor, mapped: Tensor, rates: Tensor, gain: Tensor, starts: Tensor | None, cell: DeltaNetCell
    ) -> tuple[Tensor, Tensor]:
        given = (mapped.contiguous(), mapped[:, :, :3].sigmoid(), rates.contiguous(), gain)
        transposed, is_kept = _copy_of(matrix.mT), any(ctx.needs_input_grad)
        shown, *trace = _run_forward(cell, transposed, *given, starts, is_kept=is_kept)
        if is_kept:
            ctx.save_for_backward(*given, starts, *trace)
            ctx.cell = cell
        return shown, _copy_of(transposed.mT)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, d_shown: Tensor, d_matrix: Tensor) -> tuple[Tensor | None, ...]:
        mapped, sigmoids, rates, gain, starts, *trace = ctx.saved_tensors
        d_mapped, d_rates, d_gain = torch.empty_like(mapped), torch.empty_like(rates), torch.zeros_like(gain)
        d_matrix = _copy_of(d_matrix)
        given, found = (mapped, sigmoids, rates, gain), (d_shown.contiguous(), d_matrix, d_mapped, d_rates, d_gain)
        run_back(*arrays(*given), *_settings(ctx.cell, starts), *arrays(*trace, *found, *_room_to_go_back(mapped)))
        return d_matrix, d_mapped, d_rates, d_gain, None, None


def _run_forward(
    cell: DeltaNetCell,
    transposed: Tensor,
    mapped: Tensor,
    sigmoids: Tensor,
    rates: Tensor,
    gain: Tensor,
    starts: Tensor | None,
    *,
    is_kept: bool = False,
) -> tuple[Tensor, ...]:
    """What is shown, and for the backward pass the errors, reads and kept matrices; `transposed` is written in place."""
    steps, batch, _, heads, size = mapped.shape
    shown = mapped.new_empty(steps, batch, heads, size)
    errors, reads = mapped.new_empty(2, steps if is_kept else 0, batch, heads, size)
    kept = mapped.new_empty(-(-steps // _EVERY) if is_kept else 0, batch, heads, size, size)
    found = transposed, shown, errors, reads, kept, mapped.new_zeros(5, size)
    run_forward(*arrays(mapped, sigmoids, rates, gain), *_settings(cell, starts), *arrays(*found))
    return shown, errors, reads, kept


def _room_to_go_back(mapped: Tensor) -> tuple[Tensor, ...]:
    """Buffers for the matrices, addresses and scales of a few steps, and the vectors of one."""
    steps, _, _, heads, size = mapped.shape
    most = min(steps, _EVERY)
    shapes = (heads, most, size, size), (2, heads, most, size), (2, heads, most)
    return *(mapped.new_empty(shape) for shape in shapes), mapped.new_zeros(10, size)


def _settings(cell: DeltaNetCell, starts: Tensor | None) -> tuple[Any, ...]:
    """The arguments of the kernels from `eps` to `every`."""
    return cell.norm.eps, TINY, array_of_starts(starts), cell.corrects, _EVERY


def _copy_of(part: Tensor) -> Tensor:
    return part.clone(memory_format=torch.contiguous_format)
