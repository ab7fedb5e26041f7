"""The fast-weight net on the processor: a sequence with its gradient, and a memory that is written in place while acting.

They are the compiled form (`fast_weights_kernels`) of what `FastWeightsCell` says, for Hebb's rule and method 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from fw_rl import memory
from fw_rl.cells.fast_weights_kernels import step_back, step_forward
from fw_rl.memory import Memory

__all__ = ["Recurrence", "Sequence", "Window", "episode_bounds"]


_BLOCK = 64
"""Rows that go back together."""


class Recurrence(NamedTuple):
    """The constants of a fast-weight net: Ba16 Eq. 1 and 5 with Hebb's rule."""

    decay: float
    inner_steps: int
    tanh: bool
    norm_eps: float


class Weights(NamedTuple):
    """The slow weights: W [H, H], and gain and bias of the layer normalisation [H], or [0] for none."""

    recurrent: Tensor
    gain: Tensor
    bias: Tensor


class Window:
    """The state of a fast-weight net that is written in place, step by step and without gradient.

    It begins with a copy of `h` [B, H] and the memory `fast`, of fewer than `capacity` writes. When there are as many, they are
    folded into a matrix.
    """

    def __init__(self, h: Tensor, fast: Memory, capacity: int, weights: Weights, recurrence: Recurrence) -> None:
        self.h, self.weights, self.recurrence, self.capacity = h.detach(), weights, recurrence, capacity
        self._keys = h.new_empty(len(h), capacity, h.shape[1])
        self._strengths = h.new_empty(len(h), capacity)
        self._hold(fast)

    @property
    def memory(self) -> Memory:
        """The fast weights now; what comes later does not change them."""
        gone = torch.from_numpy(self._faded == 0)
        matrix = self._matrix.masked_fill(gone[:, None, None], 0.0) if gone.any() else self._matrix
        return Memory(matrix, self._keys[:, : self._count].clone(), self._strengths[:, : self._count].clone())

    def step(self, driven: Tensor, write: NDArray[np.floating], starts: Tensor | None, out: Tensor | None = None) -> Tensor:
        """h(t) [B, H] for C x + bias, `driven` [B, H]; `write` [B] is the strength of the write, `starts` [B] as in a cell.

        `out`: [B, H], where to put it.
        """
        if starts is not None and starts.any():
            self._forget(starts)
        boundary = torch.addmm(driven, self.h, self.weights.recurrent.T)
        self.h = torch.empty_like(boundary) if out is None else out
        step_forward(
            boundary.numpy(),
            self._matrix.numpy(),
            self._faded,
            self._keys.numpy(),
            self._strengths.numpy(),
            self._count,
            write,
            self.recurrence.decay,
            self.recurrence.inner_steps,
            self.recurrence.tanh,
            self.weights.gain.numpy(),
            self.weights.bias.numpy(),
            self.recurrence.norm_eps,
            self.h.numpy(),
        )
        self._count += 1
        self._faded *= self.recurrence.decay
        if self._count == self.capacity:
            self._hold(memory.fold(self.memory, self.recurrence.decay))
        return self.h

    def wipe(self, rows: Tensor) -> None:
        """Zero h in these rows [B] (bool), and leave the memory."""
        self.h = self.h.masked_fill(rows[:, None], 0.0)

    def _hold(self, fast: Memory) -> None:
        self._count = fast.keys.shape[1]
        self._keys[:, : self._count] = fast.keys.detach()
        self._strengths[:, : self._count] = fast.strengths.detach()
        self._matrix = fast.matrix.detach().contiguous()
        faded = self.recurrence.decay**self._count if self._matrix.shape[1] else 0.0
        self._faded = np.full(len(self.h), faded, dtype=self.h.numpy().dtype)

    def _forget(self, rows: Tensor) -> None:
        if rows.all():
            self._hold(memory.empty(len(rows), self.h.shape[1], like=self.h))
            self.h = torch.zeros_like(self.h)
            return
        self.wipe(rows)
        self._keys[rows, : self._count] = 0.0
        self._strengths[rows, : self._count] = 0.0
        self._faded[rows.numpy()] = 0.0


class Sequence(torch.autograd.Function):
    """h(t) [T, B, H] of a fast-weight net over a sequence.

    Arguments of `Sequence.apply`: `driven`, C x + bias, [T, B, H]. `recurrent`, `gain`, `bias`: see `Weights`. `h` [B, H] and
    `matrix` [B, H, H] or [B, 0, 0], `keys` [B, P, H] and `strengths` [B, P]: the state before, of which the first two may have
    a gradient. `write`: [T, B], the strength of each write. `starts`: [T, B] bool, or None. `wipes`: [T, B] bool, h is zeroed
    after the step, or None. `outputs`: [T, B, H], every h(t) where it is known already, or None. `recurrence`: the constants.

    Kept for the way back: `driven` and the outputs, O(T B H), and the state before.
    """

    @staticmethod
    def forward(
        ctx: Any,
        driven: Tensor,
        recurrent: Tensor,
        gain: Tensor,
        bias: Tensor,
        h: Tensor,
        matrix: Tensor,
        keys: Tensor,
        strengths: Tensor,
        write: Tensor,
        starts: Tensor | None,
        wipes: Tensor | None,
        outputs: Tensor | None,
        recurrence: Recurrence,
    ) -> Tensor:
        weights, fast = Weights(recurrent, gain, bias), Memory(matrix, keys, strengths)
        if outputs is None:
            outputs = _run(driven, h, fast, weights, write, starts, wipes, recurrence)
        ctx.recurrence = recurrence
        ctx.save_for_backward(driven, *weights, h, *fast[:3], write, starts, wipes, outputs)
        return outputs.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        driven, recurrent, gain, bias, h, matrix, older_keys, older, write, starts, wipes, outputs = ctx.saved_tensors
        recurrence: Recurrence = ctx.recurrence
        steps, batch, size = driven.shape
        before, cut = _before(h, outputs, starts, wipes)
        is_cut = [False] * steps if cut is None else cut.any(dim=1).tolist()
        begins, ends = episode_bounds(starts, steps, batch)
        boundary = torch.addmm(driven.flatten(0, 1), before.flatten(0, 1), recurrent.T).view_as(driven).numpy()
        read = (older.numpy(), matrix.numpy(), write.T.contiguous().numpy())
        constants: tuple[Any, ...] = (*recurrence[:3], gain.numpy(), bias.numpy(), recurrence.norm_eps)

        d_outputs = d_outputs.contiguous()
        d_boundary, d_gain, d_bias = torch.empty_like(driven), torch.zeros_like(gain), torch.zeros_like(bias)
        d_matrix = torch.zeros_like(matrix) if ctx.needs_input_grad[5] else None
        # Block after block of rows, so that what the steps of a block hand on stays in the cache.
        sources = driven.new_empty(min(batch, _BLOCK), steps, recurrence.inner_steps, 2, size)
        summed = (sources.numpy(), d_boundary.numpy(), d_gain.numpy(), d_bias.numpy())
        for rows in (slice(begin, min(begin + _BLOCK, batch)) for begin in range(0, batch, _BLOCK)):
            keys = torch.cat([older_keys[rows], outputs[:, rows].transpose(0, 1)], dim=1).numpy()
            d_h = d_outputs[-1, rows].clone()
            d_h_array, limits = d_h.numpy(), (rows.start, rows.stop)
            for t in reversed(range(steps)):
                step_back(t, limits, boundary, keys, *read, begins[t], ends[t], *constants, d_h_array, *summed)  # type: ignore[call-arg]
                if t > 0:
                    d_before = d_boundary[t, rows]
                    if cut is not None and is_cut[t]:
                        d_before = d_before.masked_fill(cut[t, rows, None], 0.0)
                    torch.addmm(d_outputs[t - 1, rows], d_before, recurrent, out=d_h)
            if d_matrix is not None and matrix.shape[1]:
                _add_outer_products(d_matrix[rows], sources, begins[:, rows], older.shape[1], recurrence.decay)

        d_recurrent = d_boundary.flatten(0, 1).T @ before.flatten(0, 1)
        d_first = None
        if ctx.needs_input_grad[4]:
            d_first = (d_boundary[0] if cut is None else d_boundary[0].masked_fill(cut[0, :, None], 0.0)) @ recurrent
        return d_boundary, d_recurrent, d_gain, d_bias, d_first, d_matrix, *[None] * 7


def _add_outer_products(d_matrix: Tensor, sources: Tensor, begins: NDArray[np.int64], pending: int, decay: float) -> None:
    """Add what the reads of rows [R] send back to the matrix before the sequence: the faded sum of dr q^T."""
    rows, steps = len(d_matrix), len(begins)
    faded = decay**pending * decay ** torch.arange(steps, dtype=sources.dtype) * torch.from_numpy(begins.T < 0)
    d_reads, queries = (sources[:rows, :, :, which] for which in (0, 1))
    d_matrix += torch.bmm((d_reads * faded[:, :, None, None]).flatten(1, 2).mT, queries.flatten(1, 2))


def episode_bounds(starts: Tensor | None, steps: int, batch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each step [T, B] where its episode begins, -1 if before the sequence, and where the next one does, T if after it."""
    clock = np.arange(steps)[:, None]
    if starts is None:
        return np.full((steps, batch), -1), np.full((steps, batch), steps)
    begins = np.maximum.accumulate(np.where(starts.numpy(), clock, -1))
    next_begins = np.minimum.accumulate(np.where(starts.numpy(), clock, steps)[::-1])[::-1]
    ends = np.concatenate([next_begins[1:], np.full((1, batch), steps)])
    return begins, ends


def _run(
    driven: Tensor,
    h: Tensor,
    fast: Memory,
    weights: Weights,
    write: Tensor,
    starts: Tensor | None,
    wipes: Tensor | None,
    recurrence: Recurrence,
) -> Tensor:
    """The way forward, step by step."""
    window = Window(h, fast, fast.keys.shape[1] + len(driven) + 1, weights, recurrence)
    outputs = torch.empty_like(driven)
    strengths = write.numpy()
    for t in range(len(driven)):
        window.step(driven[t], strengths[t], None if starts is None else starts[t], out=outputs[t])
        if wipes is not None:
            window.wipe(wipes[t])
    return outputs


def _before(h: Tensor, outputs: Tensor, starts: Tensor | None, wipes: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """h(t-1) [T, B, H] as each step meets it, and where [T, B] it was set to zero."""
    before = torch.cat([h.unsqueeze(0), outputs[:-1]])
    cut = starts
    if wipes is not None:
        wiped = torch.cat([torch.zeros_like(wipes[:1]), wipes[:-1]])
        cut = wiped if cut is None else cut | wiped
    if cut is not None:
        before[cut] = 0.0
    return before, cut
