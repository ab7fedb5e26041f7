"""The LSTM, the GRU and the ReLU net on the processor, by kernels (`gated_kernels`), with a backward pass by hand.

Torch's own kernels do not support episodes that start inside a sequence. The products with the recurrent weights are Torch's
where they are large, and a step is then a call from Python; small ones are the kernel's, in one call for the sequence.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fw_rl.cells.backends import Backend, register_backend
from fw_rl.cells.base import State
from fw_rl.cells.fused import FusedCell, episode_length
from fw_rl.cells.gated_kernels import gru_back, gru_forward, lstm_back, lstm_forward, rnn_back, rnn_forward
from fw_rl.cells.gru import GRUCell
from fw_rl.cells.lstm import LSTMCell
from fw_rl.cells.rnn import RNNCell
from fw_rl.kernels import Kernel, array_of_starts, arrays, can_run, first_derivative, rows_that_start
from fw_rl.linear import linear

__all__ = ["NumbaGRU", "NumbaLSTM", "NumbaRNN"]

MOST = 2**19
"""Multiplications of a step with the recurrent weights up to which a kernel does them."""


class _NumbaGated(Backend[FusedCell]):
    """What the three have in common."""

    forward: Kernel
    back: Kernel
    is_added_apart = False
    """Whether the gradients of what x and what h give to the gates differ."""

    def options(self, cell: FusedCell) -> tuple[float, ...]:
        """What the kernels take last."""
        return ()

    def can_run(self, cell: FusedCell, *tensors: Tensor) -> bool:
        return can_run(cell.weights[0], *tensors)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        return self.forward, self.back

    def sequence(
        self, cell: FusedCell, x: Tensor, state: State, episode_starts: Tensor | None, **signals: Tensor | None
    ) -> tuple[Tensor, State]:
        if length := episode_length(episode_starts):
            return cell.run_episodes(x, length, lambda x, state: self.sequence(cell, x, state, None))
        y, *rest = self._run(cell, x, state, episode_starts, None)
        return y, (y[-1].clone(), *rest)

    def replay(self, cell: FusedCell, x: Tensor, state: State, episode_starts: Tensor | None, outputs: Tensor | None) -> Tensor:
        if outputs is None:
            return self.sequence(cell, x, state, episode_starts)[0]
        return self._run(cell, x, state, episode_starts, outputs)[0]

    def _run(
        self, cell: FusedCell, x: Tensor, state: State, starts: Tensor | None, outputs: Tensor | None
    ) -> tuple[Tensor, ...]:
        parts, options = (x, *cell.weights, *state), self.options(cell)
        if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
            found: tuple[Tensor, ...] = _Gated.apply(self, options, starts, outputs, *parts)
            return found
        return self.run_forward(options, starts, outputs, *parts)[0]

    def run_forward(
        self,
        options: tuple[float, ...],
        starts: Tensor | None,
        known: Tensor | None,
        x: Tensor,
        weight: Tensor,
        recurrent: Tensor,
        bias: Tensor,
        recurrent_bias: Tensor,
        h: Tensor,
        *c: Tensor,
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Every h [T, B, H], the last c, if any, and for the backward pass what the kernels leave in `gates` and `kept`.

        `known`: every h, if acting has computed them, so one product with the recurrent weights is enough for all steps.
        """
        (steps, batch, _), size = x.shape, h.shape[1]
        gates = linear(x, weight, bias).view(steps, batch, len(weight) // size, size)
        kept, outputs = x.new_empty(steps + 1, batch, size), x.new_empty(steps, batch, size)
        if c:
            kept[0] = c[0]
        views, is_start, by_torch = arrays(gates, kept, outputs), array_of_starts(starts), arrays(*_no_weights(x))
        if known is not None:
            before = _before(h, known, starts)
            added = linear(before, recurrent, recurrent_bias).view_as(gates)
            self.forward(views[0], *arrays(added, before), is_start, *by_torch, *views[1:], *options)
        elif _is_small(batch, recurrent):
            before, weights = torch.empty_like(outputs), arrays(_by_gate(recurrent).contiguous(), recurrent_bias.view(-1, size))
            before[0] = h
            self.forward(views[0], *arrays(torch.empty_like(gates), before), is_start, *weights, *views[1:], *options)
        else:
            h, all_outputs = h.contiguous(), outputs.unbind()
            for t, rows in enumerate(rows_that_start(starts, steps)):
                before = h if t == 0 else all_outputs[t - 1]
                before = before if rows is None else before.masked_fill(rows.unsqueeze(1), 0.0)
                added = linear(before, recurrent, recurrent_bias).view_as(gates[:1])
                own, two = slice(t, t + 1), slice(t, t + 2)
                parts = before.numpy()[None], is_start[own], *by_torch, views[1][two], views[2][own]
                self.forward(views[0][own], *arrays(added), *parts, *options)
        return (outputs, kept[steps].clone()) if c else (outputs,), gates, kept


@register_backend(LSTMCell)
class NumbaLSTM(_NumbaGated):
    """The LSTM by kernels for the processor."""

    forward, back = staticmethod(lstm_forward), staticmethod(lstm_back)


@register_backend(GRUCell)
class NumbaGRU(_NumbaGated):
    """The GRU by kernels for the processor."""

    forward, back, is_added_apart = staticmethod(gru_forward), staticmethod(gru_back), True


@register_backend(RNNCell)
class NumbaRNN(_NumbaGated):
    """The ReLU net by kernels for the processor."""

    forward, back = staticmethod(rnn_forward), staticmethod(rnn_back)

    def options(self, cell: FusedCell) -> tuple[float, ...]:
        assert isinstance(cell, RNNCell)
        return (cell.bound,)


class _Gated(torch.autograd.Function):
    """`run_forward` with a gradient."""

    @staticmethod
    def forward(
        ctx: Any, backend: _NumbaGated, options: tuple[float, ...], starts: Tensor | None, known: Tensor | None, *parts: Tensor
    ) -> tuple[Tensor, ...]:
        found, *trace = backend.run_forward(options, starts, known, *parts)
        x, weight, recurrent, _, _, h, *_ = parts
        ctx.save_for_backward(starts, x, weight, recurrent, h, found[0], *trace)
        ctx.backend, ctx.options = backend, options
        return found

    @staticmethod
    @first_derivative
    def backward(ctx: Any, d_outputs: Tensor, *d_c: Tensor) -> tuple[Tensor | None, ...]:
        starts, x, weight, recurrent, h, outputs, gates, kept = ctx.saved_tensors
        before = _before(h, outputs, starts)
        d_gates, d_h = torch.empty_like(gates), torch.zeros_like(h)
        d_added = torch.empty_like(gates) if ctx.backend.is_added_apart else d_gates
        d_state = (d_h, *(part.clone(memory_format=torch.contiguous_format) for part in d_c))
        traced, found, d_y = arrays(gates, before, kept), arrays(d_gates, d_added), d_outputs.contiguous().numpy()
        is_start, own_state = array_of_starts(starts), arrays(d_h, d_state[-1])
        if _is_small(len(h), recurrent):
            transposed = _by_gate(recurrent).mT.contiguous().numpy()
            ctx.backend.back(*traced, is_start, transposed, d_y, *own_state, *found, *ctx.options)
        else:
            by_torch, all_d_added = _no_weights(h)[0].numpy(), d_added.flatten(2).unbind()
            for t, rows in reversed([*enumerate(rows_that_start(starts, len(x)))]):
                own, two = slice(t, t + 1), slice(t, t + 2)
                given = traced[0][own], traced[1][own], traced[2][two], is_start[own], by_torch, d_y[own]
                ctx.backend.back(*given, *own_state, *(part[own] for part in found), *ctx.options)
                d_h += linear(all_d_added[t], recurrent.T)
                if rows is not None:
                    d_h.masked_fill_(rows.unsqueeze(1), 0.0)

        all_gates, all_added = d_gates.view(-1, len(weight)), d_added.view(-1, len(weight))
        d_x = linear(all_gates, weight.T).view_as(x) if ctx.needs_input_grad[4] else None
        d_weight, d_recurrent = linear(all_gates.T, x.flatten(0, 1).T), linear(all_added.T, before.flatten(0, 1).T)
        return None, None, None, None, d_x, d_weight, d_recurrent, all_gates.sum(0), all_added.sum(0), *d_state


def _is_small(batch: int, recurrent: Tensor) -> bool:
    """Whether a kernel multiplies faster than Torch, whose call at every step costs more than small products."""
    return batch * recurrent.numel() <= MOST


def _by_gate(recurrent: Tensor) -> Tensor:
    """Recurrent weights [G H, H] as [G, H, H]."""
    return recurrent.unflatten(0, (-1, recurrent.shape[1]))


def _no_weights(like: Tensor) -> tuple[Tensor, Tensor]:
    """What kernels take where Torch multiplies."""
    return like.new_empty(0, 0, 0), like.new_empty(0, 0)


def _before(h: Tensor, outputs: Tensor, starts: Tensor | None) -> Tensor:
    """The h before each step, [T, B, H]."""
    before = torch.cat([h.unsqueeze(0), outputs[:-1]])
    return before if starts is None else before.masked_fill_(starts.unsqueeze(2), 0.0)
