"""The associative LSTM on the processor: a sequence and its gradient, from matrix products and kernels in turn.

It is the compiled form (`associative_lstm_kernels`) of `AssociativeLSTMCell`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fw_rl.cells.associative_lstm import AssociativeLSTMCell
from fw_rl.cells.associative_lstm_kernels import step_back, step_forward
from fw_rl.cells.backends import Backend, register_backend
from fw_rl.cells.base import State
from fw_rl.kernels import Kernel, can_run, first_derivative, rows_that_start

__all__ = ["NumbaAssociativeLSTM"]


@register_backend(AssociativeLSTMCell)
class NumbaAssociativeLSTM(Backend[AssociativeLSTMCell]):
    """Kernels for the processor."""

    def can_run(self, cell: AssociativeLSTMCell, *tensors: Tensor) -> bool:
        return can_run(cell.recurrent_map.weight, *tensors)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        return step_forward, step_back

    def sequence(
        self, cell: AssociativeLSTMCell, x: Tensor, state: State, episode_starts: Tensor | None, **signals: Tensor | None
    ) -> tuple[Tensor, State]:
        parts = (x, cell.input_map.weight, cell.input_map.bias, cell.recurrent_map.weight, *state)
        if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
            y, cells = _AssociativeLSTMFunction.apply(cell.permutations, episode_starts, *parts)
        else:
            y, cells, _ = _run_forward(cell.permutations, episode_starts, *parts)
        return y, (y[-1].clone(), cells)


class _Trace(NamedTuple):
    """What the steps computed, with the rows of the batch last.

    `summed`: [N, T, B] for N = (3 + 6 heads) U, what the two maps give. Of R steps: `gates` [R, 3, U, B], `cells`
    [R + 1, copies, 2, U, B] before and after them, `recalled` [R, 2, U, B], and `h` [R + 1, 2, U, B] before and after them.
    """

    summed: Tensor
    gates: Tensor
    cells: Tensor
    recalled: Tensor
    h: Tensor


def _run_forward(
    permutations: Tensor,
    starts: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    recurrent: Tensor,
    h: Tensor,
    cells: Tensor,
    *,
    is_kept: bool = False,
) -> tuple[Tensor, Tensor, _Trace]:
    """h(t) [T, B, H] and the last copies [B, copies, 2, U] for a sequence x [T, B, I], and the trace.

    `permutations`: [copies, U]. `starts`: [T, B] bool, or None. `weight` [N, I] and `bias` [N]: of the input map; `recurrent`:
    [N, H]. `h`: [B, H] and `cells`: [B, copies, 2, U], the state before. `is_kept`: the trace is of all T steps, not of one.
    """
    (steps, batch, _), (copies, units), size = x.shape, permutations.shape, h.shape[1]
    room = steps if is_kept else 1
    trace = _Trace(
        torch.addmm(bias.unsqueeze(1), weight, x.flatten(0, 1).T).unflatten(1, (steps, batch)),
        x.new_empty(room, 3, units, batch),
        x.new_empty(room + 1, copies, 2, units, batch),
        x.new_empty(room, 2, units, batch),
        x.new_zeros(room + 1, 2, units, batch),
    )
    planes = trace.summed.unflatten(0, (-1, units))
    trace.cells[0], trace.h[0].flatten(0, 1)[:size] = cells.permute(1, 2, 3, 0), h.T
    outputs = x.new_empty(steps, batch, size)
    for t, rows in enumerate(rows_that_start(starts, steps)):
        slot, now, then = t % room, t % (room + 1), (t + 1) % (room + 1)
        trace.summed[:, t].addmm_(recurrent, _reset(trace.h[now].flatten(0, 1)[:size], rows))
        gates = torch.sigmoid(planes[:3, :, t], out=trace.gates[slot])
        parts = (gates, _reset(trace.cells[now], rows), permutations, trace.cells[then], trace.recalled[slot], trace.h[then])
        step_forward(planes.numpy(), t, *(part.numpy() for part in parts))
        outputs[t] = trace.h[then].flatten(0, 1)[:size].T
    return outputs, trace.cells[steps % (room + 1)].clone().permute(3, 0, 1, 2), trace


class _AssociativeLSTMFunction(torch.autograd.Function):
    """h(t) [T, B, H] and the last copies [B, copies, 2, U] of an associative LSTM, from the arguments of `_run_forward`.

    Kept for the backward pass: what the steps computed, O(T B N).
    """

    @staticmethod
    def forward(ctx: Any, permutations: Tensor, starts: Tensor | None, *parts: Tensor) -> tuple[Tensor, Tensor]:
        outputs, last, trace = _run_forward(permutations, starts, *parts, is_kept=True)
        x, weight, _, recurrent, _, _ = parts
        ctx.save_for_backward(permutations, starts, x, weight, recurrent, *trace)
        return outputs, last

    @staticmethod
    @first_derivative
    def backward(ctx: Any, d_outputs: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        permutations, starts, x, weight, recurrent, *trace = ctx.saved_tensors
        summed, gates, cells, recalled, h = _Trace(*trace)
        (steps, batch, size), units = d_outputs.shape, h.shape[2]
        planes, d_summed = summed.unflatten(0, (-1, units)), torch.empty_like(summed)
        d_planes = d_summed.unflatten(0, (-1, units))
        d_cells = d_last.permute(1, 2, 3, 0).clone(memory_format=torch.contiguous_format)
        d_h, d_before = torch.zeros_like(h[0]), h.new_zeros(size, batch)
        own_rows = rows_that_start(starts, steps)
        for t in range(steps - 1, -1, -1):
            torch.add(d_outputs[t].T, d_before, out=d_h.flatten(0, 1)[:size])
            parts = (gates[t], _reset(cells[t], own_rows[t]), permutations, cells[t + 1], recalled[t], d_h, d_cells, d_planes)
            step_back(planes.numpy(), t, *(part.numpy() for part in parts))
            d_before = _reset(recurrent.T @ d_summed[:, t], own_rows[t])
            d_cells = _reset(d_cells, own_rows[t])

        d_summed = d_summed.flatten(1)
        h_before = h[:-1].flatten(1, 2)[:, :size]
        if starts is not None:
            h_before = h_before.masked_fill(starts.unsqueeze(1), 0.0)
        d_x = (d_summed.T @ weight).view_as(x) if ctx.needs_input_grad[2] else None
        d_weight, d_recurrent = d_summed @ x.flatten(0, 1), d_summed @ h_before.mT.flatten(0, 1)
        return None, None, d_x, d_weight, d_summed.sum(1), d_recurrent, d_before.T, d_cells.permute(3, 0, 1, 2)


def _reset(part: Tensor, rows: Tensor | None) -> Tensor:
    return part if rows is None else part.masked_fill(rows, 0.0)
