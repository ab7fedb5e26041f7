"""The minimal gated recurrent unit on the processor: one product for its two maps, the rest compiled by Numba.

`mapped` [T, B, 2, H] is what the maps of gate and candidate give, `gates` [T, B, H] the sigmoid of the former; `starts` [T, B]
is true where h is zero before the step, [0, 0] for nowhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fw_rl.cells.backends import Backend, register_backend
from fw_rl.cells.base import State
from fw_rl.cells.min_gru import MinGRUCell
from fw_rl.kernels import Array, Kernel, array_of_starts, arrays, can_run, first_derivative, in_place, sigmoid
from fw_rl.linear import linear

__all__ = ["NumbaMinGRU"]


@register_backend(MinGRUCell)
class NumbaMinGRU(Backend[MinGRUCell]):
    """Kernels for the processor."""

    def can_run(self, cell: MinGRUCell, *tensors: Tensor) -> bool:
        has_biases = cell.gate.bias is not None and cell.candidate.bias is not None
        return has_biases and can_run(cell.gate.weight, *tensors)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        return _forward, _back

    def sequence(
        self, cell: MinGRUCell, x: Tensor, state: State, episode_starts: Tensor | None, **signals: Tensor | None
    ) -> tuple[Tensor, State]:
        maps = cell.gate, cell.candidate
        weight, bias = torch.cat([map.weight for map in maps]), torch.cat([map.bias for map in maps])
        h: Tensor = _MinGRU.apply(linear(x, weight, bias).unflatten(2, (2, -1)), state[0], episode_starts)
        return h, (h[-1].clone(),)


class _MinGRU(torch.autograd.Function):
    """Every h [T, B, H]."""

    @staticmethod
    def forward(ctx: Any, mapped: Tensor, before: Tensor, starts: Tensor | None) -> Tensor:
        mapped, before = mapped.contiguous(), before.contiguous()
        gates, h = (mapped.new_empty(*mapped.shape[:2], mapped.shape[3]) for _ in range(2))
        _forward(*arrays(mapped, before), array_of_starts(starts), *arrays(gates, h))
        ctx.save_for_backward(mapped, before, starts, gates, h)
        return h

    @staticmethod
    @first_derivative
    def backward(ctx: Any, d_h: Tensor) -> tuple[Tensor, Tensor, None]:
        mapped, before, starts, gates, h = ctx.saved_tensors
        d_mapped, d_before = torch.empty_like(mapped), torch.zeros_like(before)
        given = arrays(mapped, before, gates, h, d_h.contiguous())
        _back(*given, array_of_starts(starts), *arrays(d_mapped, d_before))
        return d_mapped, d_before, None


# Each inner loop writes one array: with more, the compiler would not trust that they lie apart, and take one number at a time.


@in_place
def _forward(mapped: Array, before: Array, starts: NDArray[np.bool_], gates: Array, h: Array) -> None:
    steps, batch, size = h.shape
    for t in range(steps):
        for b in range(batch):
            z, candidate, out, last = gates[t, b], mapped[t, b, 1], h[t, b], h[t - 1, b] if t else before[b]
            sigmoid(mapped[t, b, 0], z)
            if len(starts) and starts[t, b]:
                for n in range(size):
                    out[n] = z[n] * candidate[n]
            else:
                for n in range(size):
                    out[n] = last[n] + z[n] * (candidate[n] - last[n])


@in_place
def _back(
    mapped: Array,
    before: Array,
    gates: Array,
    h: Array,
    d_h: Array,
    starts: NDArray[np.bool_],
    d_mapped: Array,
    d_before: Array,
) -> None:
    """`d_before` [B, H], zero at first, goes from step to step."""
    steps, batch, size = h.shape
    one = h.dtype.type(1)
    for t in range(steps - 1, -1, -1):
        for b in range(batch):
            z, candidate, d, last = gates[t, b], mapped[t, b, 1], d_before[b], h[t - 1, b] if t else before[b]
            d_gate, d_candidate = d_mapped[t, b, 0], d_mapped[t, b, 1]
            for n in range(size):
                d[n] += d_h[t, b, n]
            for n in range(size):
                d_candidate[n] = d[n] * z[n]
            if len(starts) and starts[t, b]:
                for n in range(size):
                    d_gate[n] = d_candidate[n] * (one - z[n]) * candidate[n]
                d[:] = 0
            else:
                for n in range(size):
                    d_gate[n] = d_candidate[n] * (one - z[n]) * (candidate[n] - last[n])
                for n in range(size):
                    d[n] *= one - z[n]
