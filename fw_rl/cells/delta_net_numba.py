"""The delta net on the processor: what lies between its maps compiled by Numba, with its gradient, and in place while acting.

It is the compiled form (`delta_net_kernels`) of `DeltaNetCell.remember`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from fw_rl.cells.backends import Backend, register_backend
from fw_rl.cells.base import State, Stepper
from fw_rl.cells.delta_net import TINY, DeltaNetCell
from fw_rl.cells.delta_net_kernels import run_back, run_forward
from fw_rl.kernels import Kernel, can_run
from fw_rl.simd import LANES

__all__ = ["NumbaDeltaNet"]

_EVERY = 16
"""Steps from one matrix that is kept for the way back to the next: what lies between them fits into the cache."""


@register_backend(DeltaNetCell)
class NumbaDeltaNet(Backend[DeltaNetCell]):
    """Kernels for the processor."""

    def can_run(self, cell: DeltaNetCell, *tensors: Tensor) -> bool:
        return can_run(cell.output_map.weight, *tensors)

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
    """Acts on a matrix that is written in place."""

    cell: DeltaNetCell

    def __init__(self, cell: DeltaNetCell, state: State) -> None:
        self.cell = cell
        *self._h, matrix = (part.detach() for part in state)
        self._transposed = _padded(matrix.mT, 2).clone(memory_format=torch.contiguous_format)

    @property
    def state(self) -> State:
        return *self._h, _cut(self._transposed, self.cell.units, 2).mT.clone(memory_format=torch.contiguous_format)

    @torch.no_grad()
    def step(self, x: Tensor, episode_starts: Tensor) -> Tensor:
        nothing = x.new_empty(len(x), 0)  # the matrix is ours
        y, (*self._h, _) = self.cell.run(self._remember, x.unsqueeze(0), (*self._h, nothing), episode_starts.unsqueeze(0))
        return y[0]

    def _remember(self, matrix: Tensor, mapped: Tensor, rates: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        shown, *_ = _run_forward(self.cell, self._transposed, *_given(mapped, rates, self.cell.norm.weight), starts)
        return _cut(shown, self.cell.units), matrix


class _Remember(torch.autograd.Function):
    """`DeltaNetCell.remember`: what is shown [T, B, N, d], and the matrix [B, N, d, d] after it."""

    @staticmethod
    def forward(
        ctx: Any, matrix: Tensor, mapped: Tensor, rates: Tensor, gain: Tensor, starts: Tensor | None, cell: DeltaNetCell
    ) -> tuple[Tensor, Tensor]:
        given, is_kept = _given(mapped, rates, gain), any(ctx.needs_input_grad)
        transposed = _padded(matrix.mT, 2).clone(memory_format=torch.contiguous_format)
        shown, *trace = _run_forward(cell, transposed, *given, starts, is_kept=is_kept)
        if is_kept:
            ctx.save_for_backward(*given, starts, *trace)
            ctx.cell = cell
        return _cut(shown, cell.units), _cut(transposed, cell.units, 2).mT.clone(memory_format=torch.contiguous_format)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_shown: Tensor, d_matrix: Tensor) -> tuple[Tensor | None, ...]:
        mapped, sigmoids, rates, gain, starts, *trace = ctx.saved_tensors
        d_mapped, d_rates, d_gain = torch.empty_like(mapped), torch.empty_like(rates), torch.zeros_like(gain)
        d_matrix = _padded(d_matrix, 2).clone(memory_format=torch.contiguous_format)
        given, found = (mapped, sigmoids, rates, gain), (_padded(d_shown).contiguous(), d_matrix, d_mapped, d_rates, d_gain)
        run_back(*_arrays(*given), *_settings(ctx.cell, starts), *_arrays(*trace, *found, *_room_to_go_back(mapped)))
        units = ctx.cell.units
        return _cut(d_matrix, units, 2), _cut(d_mapped, units), d_rates, _cut(d_gain, units), None, None


def _given(mapped: Tensor, rates: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the kernels take first."""
    mapped = _padded(mapped).contiguous()
    return mapped, mapped[:, :, :3].sigmoid(), rates.contiguous(), _padded(gain.detach())


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
    """What is shown, and for the way back errors, reads, and the matrices that were kept; `transposed` is written in place."""
    steps, batch, _, heads, size = mapped.shape
    shown, errors, reads = (mapped.new_empty(steps, batch, heads, size) for _ in range(3))
    kept = mapped.new_empty(-(-steps // _EVERY) if is_kept else 0, batch, heads, size, size)
    room = mapped.new_empty(heads, 2, size), mapped.new_empty(3, min(steps, _EVERY), size)
    found = transposed, shown, errors, reads, kept, *room
    run_forward(*_arrays(mapped, sigmoids, rates, gain), *_settings(cell, starts), *_arrays(*found))
    return shown, errors, reads, kept


def _room_to_go_back(mapped: Tensor) -> tuple[Tensor, ...]:
    """For the matrices, vectors and scales of a few steps of a head, what each D has yet to get, and the vectors of a step."""
    steps, _, _, heads, size = mapped.shape
    most = min(steps, _EVERY)
    shapes = (most, size, size), (4, most, size), (2, most), (heads, 4, size), (5, size)
    return tuple(mapped.new_empty(shape) for shape in shapes)


def _padded(part: Tensor, dimensions: int = 1) -> Tensor:
    """With zeros behind the units of a head in the last dimensions, up to whole vectors of numbers."""
    missing = -part.shape[-1] % LANES
    return F.pad(part, (0, missing) * dimensions) if missing else part


def _cut(part: Tensor, units: int, dimensions: int = 1) -> Tensor:
    """Without them."""
    for dimension in range(-dimensions, 0):
        part = part.narrow(dimension, 0, units)
    return part


def _settings(cell: DeltaNetCell, starts: Tensor | None) -> tuple[Any, ...]:
    """What the kernels take from `units` to `every`."""
    begins = np.empty((0, 0), np.bool_) if starts is None else starts.contiguous().numpy()
    return cell.units, cell.norm.eps, TINY, begins, cell.corrects, _EVERY


def _arrays(*parts: Tensor) -> list[NDArray[Any]]:
    return [part.detach().numpy() for part in parts]
