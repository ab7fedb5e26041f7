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
from fw_rl.cells.fast_weights_kernels import Net, Past, Script, run_back, run_forward, step_forward
from fw_rl.memory import Memory

__all__ = ["Constants", "Sequence", "Weights", "Window", "episode_bounds"]


class Constants(NamedTuple):
    """What does not change in a fast-weight net: Ba16 Eq. 1 and 5 with Hebb's rule."""

    eps: float
    decay: float
    inner_steps: int
    tanh: bool


class Weights(NamedTuple):
    """The slow weights: W [H, H], and gain and bias of the layer normalisation [H], or [0] for none."""

    recurrent: Tensor
    gain: Tensor
    bias: Tensor

    def net(self, constants: Constants) -> Net:
        """As the kernels take them."""
        recurrent, gain, bias = (part.detach().contiguous().numpy() for part in self)
        return Net(recurrent, gain, bias, *constants)


class Window:
    """The state of a fast-weight net that is written in place, step by step and without gradient.

    It begins with a copy of `h` [B, H] and the memory `fast`, of fewer than `capacity` writes. When there are as many, they are
    folded into a matrix.
    """

    def __init__(self, h: Tensor, fast: Memory, capacity: int, weights: Weights, constants: Constants) -> None:
        self.h, self.weights, self.constants, self.capacity = h.detach(), weights, constants, capacity
        self._keys = h.new_empty(len(h), capacity, h.shape[1])
        self._strengths = h.new_empty(len(h), capacity)
        self._hold(fast)

    @property
    def memory(self) -> Memory:
        """The fast weights now; what comes later does not change them."""
        gone = torch.from_numpy(self._faded == 0)
        matrix = self._matrix.masked_fill(gone[:, None, None], 0.0) if gone.any() else self._matrix
        return Memory(matrix, self._keys[:, : self._count].clone(), self._strengths[:, : self._count].clone())

    def step(self, driven: Tensor, write: NDArray[np.floating], starts: Tensor) -> Tensor:
        """h(t) [B, H] for C x + bias, `driven` [B, H]; `write` [B] is the strength of the write, `starts` [B] as in a cell."""
        if starts.any():
            self._forget(starts)
        boundary = torch.addmm(driven, self.h, self.weights.recurrent.T)
        self.h = torch.empty_like(boundary)
        memory_arrays: tuple[Any, ...] = (
            self._matrix.numpy(),
            self._faded,
            self._keys.numpy(),
            self._strengths.numpy(),
            self._count,
        )
        net: tuple[Any, ...] = self.weights.net(self.constants)
        step_forward(boundary.numpy(), *memory_arrays, write, *net, self.h.numpy())  # type: ignore[call-arg]
        self._count += 1
        self._faded *= self.constants.decay
        if self._count == self.capacity:
            self._hold(memory.fold(self.memory, self.constants.decay))
        return self.h

    def _hold(self, fast: Memory) -> None:
        self._count = fast.keys.shape[1]
        self._keys[:, : self._count] = fast.keys.detach()
        self._strengths[:, : self._count] = fast.strengths.detach()
        self._matrix = fast.matrix.detach().contiguous()
        faded = self.constants.decay**self._count if self._matrix.shape[1] else 0.0
        self._faded = np.full(len(self.h), faded, dtype=self.h.numpy().dtype)

    def _forget(self, rows: Tensor) -> None:
        if rows.all():
            self._hold(memory.empty(len(rows), self.h.shape[1], like=self.h))
            self.h = torch.zeros_like(self.h)
            return
        self.h = self.h.masked_fill(rows[:, None], 0.0)
        self._keys[rows, : self._count] = 0.0
        self._strengths[rows, : self._count] = 0.0
        self._faded[rows.numpy()] = 0.0


class Sequence(torch.autograd.Function):
    """h(t) [T, B, H] of a fast-weight net over a sequence.

    Arguments of `Sequence.apply`: `driven`, C x + bias, [T, B, H]. `recurrent`, `gain`, `bias`: see `Weights`. `h` [B, H] and
    `matrix` [B, H, H] or [B, 0, 0], `keys` [B, P, H] and `strengths` [B, P]: the state before. `write`: [T, B], the strength of
    each write, which gets no gradient. `starts`: [T, B] bool, or None. `wipes`: [T, B] bool, h is zeroed after the step, or
    None. `outputs`: [T, B, H], every h(t) where it is known already, or None.

    Kept for the way back: what the steps computed, O(T B S H), and the state before; of known outputs only these and `driven`.
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
        constants: Constants,
    ) -> Tensor:
        weights, before = Weights(recurrent, gain, bias), (h, matrix, keys, strengths)
        ctx.constants, ctx.script = constants, _script(write, starts, wipes)
        if outputs is not None:
            ctx.save_for_backward(driven, outputs, *weights, *before)
            return outputs.clone()
        steps, batch, size = driven.shape
        kept = (torch.empty_like(driven), driven.new_empty(batch, steps, constants.inner_steps, size))
        boundary, settled, scales = *kept, driven.new_empty(batch, steps, constants.inner_steps)
        outputs = torch.empty_like(driven)
        left = (part.numpy() for part in (boundary, settled, scales, outputs))
        run_forward(driven.contiguous().numpy(), weights.net(constants), _past(*before), ctx.script, *left)
        ctx.save_for_backward(boundary, outputs, *weights, *before, settled, scales)
        return outputs

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        boundary, outputs, recurrent, gain, bias, h, matrix, keys, strengths, *settled = ctx.saved_tensors
        constants: Constants = ctx.constants
        script: Script = ctx.script
        steps, batch, size = outputs.shape
        before = torch.cat([h.unsqueeze(0), outputs[:-1]])
        if script.cut.any():
            before[torch.from_numpy(script.cut)] = 0.0
        if not settled:  # then what is called boundary is without its W h(t-1)
            boundary = torch.addmm(boundary.flatten(0, 1), before.flatten(0, 1), recurrent.T).view_as(outputs)
            settled = [outputs.new_empty(0, steps, 1, size), outputs.new_empty(0, steps, 1)]

        needs_memory = any(ctx.needs_input_grad[5:8])
        sources = outputs.new_empty(batch if needs_memory else 4, steps, constants.inner_steps, 2, size)
        d_boundary, d_first, d_gain, d_bias = (torch.zeros_like(part) for part in (outputs, h, gain, bias))
        run_back(  # type: ignore[call-arg]
            boundary.numpy(),
            outputs.numpy(),
            recurrent.T.contiguous().numpy(),
            Weights(recurrent, gain, bias).net(constants),
            _past(h, matrix, keys, strengths),
            script,
            *(part.numpy() for part in settled),
            d_outputs.contiguous().numpy(),
            *(part.numpy() for part in (sources, d_boundary, d_first, d_gain, d_bias)),
        )
        d_recurrent = d_boundary.flatten(0, 1).T @ before.flatten(0, 1)
        d_memory = (
            _back_to_memory(sources, script.begins, matrix, keys, strengths, constants.decay) if needs_memory else [None] * 3
        )
        return d_boundary, d_recurrent, d_gain, d_bias, d_first, *d_memory, *[None] * 5


def _back_to_memory(
    sources: Tensor, begins: NDArray[np.integer], matrix: Tensor, keys: Tensor, strengths: Tensor, decay: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What the reads send back to the memory before the sequence: through A, the sum of dr q^T, each faded as A was by then."""
    steps = len(begins)
    faded = decay ** torch.arange(steps, dtype=sources.dtype) * torch.from_numpy(begins.T < 0)
    d_reads = (sources[:, :, :, 0] * faded[:, :, None, None]).flatten(1, 2)
    queries = sources[:, :, :, 1].flatten(1, 2)
    along_read, along_query = torch.bmm(keys, d_reads.mT), torch.bmm(keys, queries.mT)
    d_keys = strengths.unsqueeze(2) * (torch.bmm(along_read, queries) + torch.bmm(along_query, d_reads))
    d_strengths = (along_read * along_query).sum(dim=2)
    if not matrix.shape[1]:
        return torch.zeros_like(matrix), d_keys, d_strengths
    return decay ** keys.shape[1] * torch.bmm(d_reads.mT, queries), d_keys, d_strengths


def _past(*state: Tensor) -> Past:
    return Past(*(part.detach().contiguous().numpy() for part in state))


def _script(write: Tensor, starts: Tensor | None, wipes: Tensor | None) -> Script:
    cut = np.zeros(write.shape, dtype=bool) if starts is None else starts.numpy().copy()
    if wipes is not None:
        cut[1:] |= wipes.numpy()[:-1]
    return Script(write.contiguous().numpy(), *episode_bounds(starts, *write.shape), cut)


def episode_bounds(starts: Tensor | None, steps: int, batch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each step [T, B] where its episode begins, -1 if before the sequence, and where the next one does, T if after it."""
    clock = np.arange(steps)[:, None]
    if starts is None:
        return np.full((steps, batch), -1), np.full((steps, batch), steps)
    begins = np.maximum.accumulate(np.where(starts.numpy(), clock, -1))
    next_begins = np.minimum.accumulate(np.where(starts.numpy(), clock, steps)[::-1])[::-1]
    ends = np.concatenate([next_begins[1:], np.full((1, batch), steps)])
    return begins, ends
