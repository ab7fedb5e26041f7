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

__all__ = ["Constants", "Sequence", "Weights", "Window", "episode_begins", "write_all"]


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


class _Piece(NamedTuple):
    """Steps of a sequence, and what is to happen in them."""

    steps: slice
    script: Script


class Sequence(torch.autograd.Function):
    """h(t) [T, B, H] of a fast-weight net over a sequence, in pieces between which the memory is folded into a matrix.

    Arguments of `Sequence.apply`: `driven`, C x + bias, [T, B, H]. `recurrent`, `gain`, `bias`: see `Weights`. `h` [B, H] and
    `matrix` [B, H, H] or [B, 0, 0], `keys` [B, P, H] and `strengths` [B, P]: the state before. `write`: [T, B], the strength of
    each write, which gets no gradient. `starts`: [T, B] bool, or None. `wipes`: [T, B] bool, h is zeroed after the step, or
    None. `outputs`: [T, B, H], every h(t) where it is known already, or None. `lengths`: steps of the pieces.

    Returns every h(t), and the matrix [B, H, H] before the last piece, or None if that is the only one.

    Kept for the way back: what the steps computed, O(T B S H), the state before, and a matrix for each later piece; of known
    outputs only these and `driven`.
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
        lengths: list[int],
    ) -> tuple[Tensor, Tensor | None]:
        weights, fast, before = Weights(recurrent, gain, bias), Memory(matrix, keys, strengths), h
        ctx.constants, ctx.pieces = constants, _pieces(write, starts, wipes, lengths)
        driven, net = driven.contiguous(), weights.net(constants)
        is_known = outputs is not None
        outputs = torch.empty_like(driven) if outputs is None else outputs.clone()
        traces: list[Tensor] = []
        folded: list[Tensor] = []
        for steps, script in ctx.pieces:
            if not is_known:
                trace = _room_for_trace(driven[steps], constants.inner_steps)
                left = (part.numpy() for part in (*trace, outputs[steps]))
                run_forward(driven[steps].numpy(), net, _past(before, *fast[:3]), script, *left)
                traces += trace
            if steps.stop < len(driven):
                before = outputs[steps.stop - 1]
                fast = memory.fold(_written(fast, outputs[steps], script, constants.decay), constants.decay)
                folded.append(fast.matrix)
        ctx.save_for_backward(driven if is_known else None, outputs, *weights, h, matrix, keys, strengths, *folded, *traces)
        return outputs, folded[-1] if folded else None

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_outputs: Tensor, d_folded: Tensor | None) -> tuple[Tensor | None, ...]:
        driven, outputs, recurrent, gain, bias, h, matrix, keys, strengths, *others = ctx.saved_tensors
        constants: Constants = ctx.constants
        pieces: list[_Piece] = ctx.pieces
        last = len(pieces) - 1
        memories = [Memory(matrix, keys, strengths), *(Memory(part, keys[:, :0], strengths[:, :0]) for part in others[:last])]
        traces = others[last:]
        net, transposed = Weights(recurrent, gain, bias).net(constants), recurrent.T.contiguous().numpy()
        d_boundary, d_recurrent = torch.empty_like(outputs), torch.zeros_like(recurrent)
        d_before, d_gain, d_bias = (torch.zeros_like(part) for part in (h, gain, bias))
        needs_memory = any(ctx.needs_input_grad[5:8])
        d_memory = Memory(*(torch.zeros_like(part if last or needs_memory else part[:0]) for part in memories[last][:3]))
        if d_folded is not None:
            d_memory = d_memory._replace(matrix=d_folded.clone())
        for i in range(last, -1, -1):
            (steps, script), fast = pieces[i], memories[i]
            d_h = d_outputs[steps].clone(memory_format=torch.contiguous_format)
            if i < last:
                d_h[-1] += d_before
                d_memory = _back_through_fold(d_memory.matrix, fast, outputs[steps], script, constants.decay, d_h)
            before = _before(outputs[steps.start - 1] if i else h, outputs[steps], script.cut)
            trace = traces[3 * i : 3 * i + 3] or _trace_of_known(driven[steps], before, recurrent)
            rows = outputs.shape[1] if i or needs_memory else 0
            sources = outputs.new_empty(rows, len(before), constants.inner_steps, 2, outputs.shape[2])
            run_back(
                trace[0].numpy(),
                outputs[steps].numpy(),
                transposed,
                net,
                _past(before[0], *fast[:3]),
                script,
                *(part.numpy() for part in (*trace[1:], d_h, sources, d_boundary[steps], d_before, d_gain, d_bias)),
            )
            torch.addmm(d_recurrent, d_boundary[steps].flatten(0, 1).T, before.flatten(0, 1), out=d_recurrent)
            if len(sources):
                _back_to_memory(sources, script.begins, fast, constants.decay, d_memory)
        d_state = d_memory[:3] if needs_memory else [None] * 3
        return d_boundary, d_recurrent, d_gain, d_bias, d_before, *d_state, *[None] * 6


def write_all(fast: Memory, outputs: Tensor, write: Tensor, begins: NDArray[np.integer], decay: float) -> Memory:
    """The memory after steps that wrote h(t), `outputs` [T, B, H], with the strengths `write` [T, B].

    `begins`: [B], the first step of the episode at the end, -1 if it began before. Keys may share their numbers with `outputs`.
    """
    steps = len(outputs)
    clock = torch.arange(steps)
    keys, strengths = outputs.transpose(0, 1), write.T * decay ** (steps - 1 - clock).to(write.dtype)
    if (begins >= 0).any():
        first = torch.from_numpy(begins)
        gone = clock < first[:, None]
        keys, strengths = keys.masked_fill(gone.unsqueeze(2), 0.0), strengths.masked_fill(gone, 0.0)
        fast = memory.forget(fast, first >= 0)
    if not fast.keys.shape[1]:
        return Memory(fast.matrix, keys, strengths)
    older = fast.strengths * decay**steps
    return Memory(fast.matrix, torch.cat([fast.keys, keys], dim=1), torch.cat([older, strengths], dim=1))


def _room_for_trace(driven: Tensor, inner_steps: int) -> list[Tensor]:
    """For what `run_forward` leaves to `run_back`."""
    steps, batch, size = driven.shape
    shapes = driven.shape, (steps, batch, inner_steps, size), (steps, batch, inner_steps)
    return [driven.new_empty(shape) for shape in shapes]


def _trace_of_known(driven: Tensor, before: Tensor, recurrent: Tensor) -> list[Tensor]:
    """The boundary, in place of a trace; `run_back` finds the rest again."""
    boundary = torch.addmm(driven.flatten(0, 1), before.flatten(0, 1), recurrent.T).view_as(before)
    return [boundary, driven.new_empty(0, 0, 1, driven.shape[2]), driven.new_empty(0, 0, 1)]


def _before(h: Tensor, outputs: Tensor, cut: NDArray[np.bool_]) -> Tensor:
    """What W is multiplied with at each step, [T, B, H], from the first h on."""
    before = torch.cat([h.unsqueeze(0), outputs[:-1]])
    if cut.any():
        before[torch.from_numpy(cut)] = 0.0
    return before


def _back_through_fold(
    d_matrix: Tensor, fast: Memory, outputs: Tensor, script: Script, decay: float, d_outputs: Tensor
) -> Memory:
    """From the gradient of the matrix into which a piece was folded to that of the memory before it.

    A key stands on both sides of its outer product. `d_outputs` are added to, `d_matrix` is written over.
    """
    written = _written(fast, outputs, script, decay)
    pending = fast.keys.shape[1]
    along = torch.bmm(written.keys, d_matrix + d_matrix.mT)
    d_keys = written.strengths.unsqueeze(2) * along
    d_outputs += d_keys[:, pending:].transpose(0, 1)
    d_strengths = (written.keys[:, :pending] * along[:, :pending]).sum(dim=2) * (decay ** len(outputs) / 2)
    d_matrix = d_matrix.mul_(decay ** written.keys.shape[1]) if fast.matrix.shape[1] else torch.zeros_like(fast.matrix)
    d_fast = Memory(d_matrix, d_keys[:, :pending], d_strengths)
    begins = torch.from_numpy(script.begins[-1] >= 0)
    return memory.forget(d_fast, begins) if begins.any() else d_fast


def _written(fast: Memory, outputs: Tensor, script: Script, decay: float) -> Memory:
    return write_all(fast, outputs, torch.from_numpy(script.write), script.begins[-1], decay)


def _back_to_memory(sources: Tensor, begins: NDArray[np.integer], fast: Memory, decay: float, d_fast: Memory) -> None:
    """Add to `d_fast` what reads send back to the memory before them: through A, the sum of dr q^T, faded as A was by then."""
    matrix, keys, strengths, _ = fast
    steps = len(begins)
    faded = decay ** torch.arange(steps, dtype=sources.dtype) * torch.from_numpy(begins.T < 0)
    d_reads = (sources[:, :, :, 0] * faded[:, :, None, None]).flatten(1, 2)
    queries = sources[:, :, :, 1].flatten(1, 2)
    if matrix.shape[1]:
        torch.baddbmm(d_fast.matrix, d_reads.mT, queries, alpha=decay ** keys.shape[1], out=d_fast.matrix)
    if keys.shape[1]:
        along_read, along_query = torch.bmm(keys, d_reads.mT), torch.bmm(keys, queries.mT)
        d_fast.keys.add_(strengths.unsqueeze(2) * (torch.bmm(along_read, queries) + torch.bmm(along_query, d_reads)))
        d_fast.strengths.add_((along_read * along_query).sum(dim=2))


def _past(*state: Tensor) -> Past:
    return Past(*(part.detach().contiguous().numpy() for part in state))


def _pieces(write: Tensor, starts: Tensor | None, wipes: Tensor | None, lengths: list[int]) -> list[_Piece]:
    cut = np.zeros(write.shape, dtype=bool) if starts is None else starts.numpy().copy()
    if wipes is not None:
        cut[1:] |= wipes.numpy()[:-1]
    ends = np.cumsum(lengths)
    spans = [slice(end - length, end) for end, length in zip(ends.tolist(), lengths, strict=True)]
    strengths = write.contiguous().numpy()
    begins = (episode_begins(None if starts is None else starts[span], *write[span].shape) for span in spans)
    return [_Piece(span, Script(strengths[span], own, cut[span])) for span, own in zip(spans, begins, strict=True)]


def episode_begins(starts: Tensor | None, steps: int, batch: int) -> NDArray[np.int64]:
    """For each step [T, B] where its episode begins, -1 if that is before the sequence."""
    if starts is None:
        return np.full((steps, batch), -1)
    return np.maximum.accumulate(np.where(starts.numpy(), np.arange(steps)[:, None], -1))
