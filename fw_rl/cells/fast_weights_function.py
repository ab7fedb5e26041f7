"""The gradient of a fast-weight net over a sequence, around the kernels of `fast_weights_kernels`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fw_rl import memory
from fw_rl.cells.fast_weights_kernels import run_back, run_forward
from fw_rl.kernels import first_derivative
from fw_rl.linear import linear
from fw_rl.memory import Memory

__all__ = [
    "Constants",
    "FastWeightsFunction",
    "Script",
    "Weights",
    "episode_first_steps",
    "matrix_of",
    "room_to_settle",
    "written",
]


class Constants(NamedTuple):
    """What does not change in a fast-weight net; see `fast_weights_kernels`."""

    eps: float
    decay: float
    inner_steps: int
    tanh: bool
    lasting: int


class Weights(NamedTuple):
    """The slow weights: W [H, H], and gain and bias of the layer normalisation [H], or [0] for none."""

    recurrent: Tensor
    gain: Tensor
    bias: Tensor

    def arrays(self) -> tuple[NDArray[np.floating], ...]:
        """As the kernels take them."""
        return tuple(part.detach().contiguous().numpy() for part in self)


class Script(NamedTuple):
    """What happens in a sequence, [T, B] each: how strong writes are, where episodes begin, where h(t-1) is zero."""

    write: NDArray[np.floating]
    first_steps: NDArray[np.integer]
    cut: NDArray[np.bool_]


class _Stretch(NamedTuple):
    """Steps of a sequence, and what happens in them."""

    steps: slice
    script: Script


class FastWeightsFunction(torch.autograd.Function):
    """h(t) [T, B, H] of a fast-weight net over a sequence, in stretches between which the memory is folded into a matrix.

    Kept for the backward pass: what the steps computed, O(T B S H), the state before, and a matrix for each later stretch.
    Where the outputs were known, nothing was computed, and only they and `driven` are kept.

    `driven` [T, B, H] is C x + bias. `h`, `keys` [B, P, H], `strengths` [B, P], `matrix` ([B, H, H], or [B, 0, 0] for none) and
    `faded` [B] are the state before. `write` [T, B] is the strength of each write, which gets no gradient. `starts` and
    `wipes`, where h is zeroed after a step, are [T, B] bool or None. `outputs` [T, B, H] is every h(t) if it is already known,
    else None. Returns every h(t), and matrix and `faded` before the last stretch, or None twice if that is the only one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        driven: Tensor,
        recurrent: Tensor,
        gain: Tensor,
        bias: Tensor,
        h: Tensor,
        keys: Tensor,
        strengths: Tensor,
        matrix: Tensor,
        faded: Tensor,
        write: Tensor,
        starts: Tensor | None,
        wipes: Tensor | None,
        outputs: Tensor | None,
        constants: Constants,
        lengths: list[int],
    ) -> tuple[Tensor | None, ...]:
        weights, before = Weights(recurrent, gain, bias), h
        past = (keys, strengths, matrix, faded)
        ctx.constants, ctx.stretches = constants, _split(write, starts, wipes, lengths)
        driven, is_known = driven.contiguous(), outputs is not None
        outputs = torch.empty_like(driven) if outputs is None else outputs.clone(memory_format=torch.contiguous_format)
        traces: list[Tensor] = []
        folded: list[Tensor] = []
        for steps, script in ctx.stretches:
            if not is_known:
                trace = _room_for_trace(driven[steps], constants.inner_steps)
                keys_and_room = _with_room(past[0], steps.stop - steps.start)
                arrays = (_array(driven[steps]), _array(before), keys_and_room.numpy(), *_past(past, script, constants.decay))
                left = (part.numpy() for part in (*trace, outputs[steps]))
                queries, _, _, firsts = room_to_settle(driven, constants.inner_steps)
                own = _room_for_rows(driven, keys_and_room.shape[1])
                run_forward(*arrays, *script, *weights.arrays(), *constants, queries, firsts, *own, *left)
                traces += trace
            if steps.stop < len(driven):
                before = outputs[steps.stop - 1]
                fast = memory.fold(written(_memory(*past), outputs[steps], script, constants.decay))
                past = (keys[:, :0], strengths[:, :0], *matrix_of(fast))
                folded += past[2:]
        kept = (driven if is_known else None, outputs, *weights, h, keys, strengths, matrix, faded, *folded, *traces)
        ctx.save_for_backward(*kept)
        if not folded:
            return outputs, None, None
        ctx.mark_non_differentiable(folded[-1])
        return outputs, folded[-2], folded[-1]

    @staticmethod
    @first_derivative
    def backward(ctx: Any, d_outputs: Tensor, d_folded: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        driven, outputs, recurrent, gain, bias, h, *others = ctx.saved_tensors
        constants: Constants = ctx.constants
        stretches: list[_Stretch] = ctx.stretches
        last = len(stretches) - 1
        pasts = [
            others[:4],
            *([others[0][:, :0], others[1][:, :0], *others[2 + 2 * i : 4 + 2 * i]] for i in range(1, last + 1)),
        ]
        traces = others[4 + 2 * last :]
        weights = Weights(recurrent.T, gain, bias).arrays()
        d_boundary, d_recurrent = torch.empty_like(outputs), torch.zeros_like(recurrent)
        d_before, d_gain, d_bias = (torch.zeros_like(part) for part in (h, gain, bias))
        needs_memory = any(ctx.needs_input_grad[5:9])
        d_past = [torch.zeros_like(part if last or needs_memory else part[:0]) for part in pasts[last]]
        if d_folded is not None:
            d_past[2] = d_folded.clone()
        for i in range(last, -1, -1):
            (steps, script), past = stretches[i], pasts[i]
            all_keys, d_h = _with_writes(past[0], outputs[steps]), d_outputs[steps].contiguous()
            if i < last:
                d_h = d_h.clone()
                d_h[-1] += d_before
                d_past = _back_through_fold(d_past[2], past, outputs[steps], script, constants.decay, d_h)
            before = _before(outputs[steps.start - 1] if i else h, outputs[steps], script.cut)
            trace = traces[3 * i : 3 * i + 3] or _trace_of_known(driven[steps], before, recurrent)
            rows = outputs.shape[1] if i or needs_memory else 0
            sources = outputs.new_empty(rows, len(before), constants.inner_steps, 2, outputs.shape[2])
            arrays = (_array(trace[0]), all_keys.numpy(), *_past(past, script, constants.decay))
            found = (*trace[1:], d_h, sources, d_boundary[steps], d_before, d_gain, d_bias)
            own = _room_for_rows(d_boundary, all_keys.shape[1]) + _room_for_gradients(all_keys)
            room = room_to_settle(d_boundary, constants.inner_steps)
            run_back(*arrays, *script, *weights, *constants, *room, *own, *(part.numpy() for part in found))
            d_recurrent += linear(d_boundary[steps].flatten(0, 1).T, before.flatten(0, 1).T)
            if len(sources):
                _back_to_memory(sources, script.first_steps, past, constants.decay, d_past)
        d_state = d_past if needs_memory else [None] * 4
        return d_boundary, d_recurrent, d_gain, d_bias, d_before, *d_state, *[None] * 6


def written(fast: Memory, outputs: Tensor, script: Script, decay: float) -> Memory:
    """The memory after steps that wrote h(t), `outputs` [T, B, H]; its keys may share storage with these."""
    steps, write = len(outputs), torch.from_numpy(script.write)
    clock = torch.arange(steps)
    keys, strengths = outputs.transpose(0, 1), write.T * decay ** (steps - 1 - clock).to(write.dtype)
    first = torch.from_numpy(script.first_steps[-1])
    if first.gt(0).any():
        gone = clock < first[:, None]
        keys, strengths = keys.masked_fill(gone.unsqueeze(2), 0.0), strengths.masked_fill(gone, 0.0)
    if first.ge(0).any():
        fast = memory.forget(fast, first >= 0)
    fast = memory.fade(fast, decay**steps)
    if not fast.keys.shape[1]:
        return fast._replace(keys=keys, strengths=strengths)
    return fast._replace(keys=torch.cat([fast.keys, keys], dim=1), strengths=torch.cat([fast.strengths, strengths], dim=1))


def matrix_of(fast: Memory) -> tuple[Tensor, Tensor]:
    """The matrix, [B, 0, 0] if there is none, and what is left of it, [B]."""
    rows = len(fast.strengths)
    if fast.matrix is None or fast.faded is None:
        return fast.strengths.new_zeros(rows, 0, 0), fast.strengths.new_zeros(rows)
    return fast.matrix, fast.faded


def _memory(keys: Tensor, strengths: Tensor, matrix: Tensor, faded: Tensor) -> Memory:
    """The inverse of `matrix_of`."""
    return Memory(keys, strengths, None, matrix, faded) if matrix.shape[1] else Memory(keys, strengths)


def room_to_settle(like: Tensor, inner_steps: int) -> tuple[NDArray[Any], ...]:
    """Buffers for what a kernel finds in four rows: `queries`, `settled`, `scales` and `firsts`."""
    size, dtype = like.shape[-1], like.numpy().dtype
    shapes = (4, inner_steps + 1, size), (4, inner_steps, size), (4, inner_steps)
    return *(np.empty(shape, dtype) for shape in shapes), np.empty(4, np.int64)


def _room_for_rows(like: Tensor, writes: int) -> tuple[NDArray[Any], ...]:
    """Buffers for a sequence of so many writes, those of the past included: `weights`, `before` and `product`."""
    size, dtype = like.shape[-1], like.numpy().dtype
    return np.empty((4, writes), dtype), np.zeros((4, size), dtype), np.zeros((4, size), dtype)


def _room_for_gradients(keys: Tensor) -> tuple[NDArray[Any], ...]:
    """Further buffers of `run_back`: `pair` and `d_keys`."""
    (_, writes, size), dtype = keys.shape, keys.numpy().dtype
    return np.empty((2, size), dtype), np.empty((4, writes, size), dtype)


def _room_for_trace(driven: Tensor, inner_steps: int) -> list[Tensor]:
    """Buffers for what `run_forward` leaves for `run_back`."""
    steps, batch, size = driven.shape
    shapes = driven.shape, (steps, batch, inner_steps, size), (steps, batch, inner_steps)
    return [driven.new_empty(shape) for shape in shapes]


def _trace_of_known(driven: Tensor, before: Tensor, recurrent: Tensor) -> list[Tensor]:
    """The boundary, instead of a trace; `run_back` computes the rest again."""
    boundary = linear(before, recurrent).add_(driven)
    return [boundary, driven.new_empty(0, 0, 1, driven.shape[2]), driven.new_empty(0, 0, 1)]


def _before(h: Tensor, outputs: Tensor, cut: NDArray[np.bool_]) -> Tensor:
    """What W is multiplied with at each step, [T, B, H], from the first h on."""
    before = torch.cat([h.unsqueeze(0), outputs[:-1]])
    if cut.any():
        before.masked_fill_(torch.from_numpy(cut).unsqueeze(2), 0.0)
    return before


def _back_through_fold(
    d_matrix: Tensor, past: list[Tensor], outputs: Tensor, script: Script, decay: float, d_outputs: Tensor
) -> list[Tensor]:
    """From the gradient of the matrix into which steps were folded to that of the memory before them.

    A key is on both sides of its outer product. `d_outputs` is added to, `d_matrix` is overwritten.
    """
    keys, _, matrix, faded = past
    all_writes, left = written(_memory(*past), outputs, script, decay), decay ** len(outputs)
    pending = keys.shape[1]
    along = torch.bmm(all_writes.keys, d_matrix + d_matrix.mT)
    d_keys = all_writes.strengths.unsqueeze(2) * along
    d_outputs += d_keys[:, pending:].transpose(0, 1)
    d_strengths = (all_writes.keys[:, :pending] * along[:, :pending]).sum(dim=2) * (left / 2)
    if matrix.shape[1]:
        d_faded = left * (d_matrix * matrix).sum(dim=(1, 2))
        d_matrix = d_matrix.mul_((left * faded)[:, None, None])
    else:
        d_faded, d_matrix = torch.zeros_like(faded), torch.zeros_like(matrix)
    d_past = Memory(d_keys[:, :pending], d_strengths, None, d_matrix, d_faded)
    has_begun = torch.from_numpy(script.first_steps[-1] >= 0)
    d_past = memory.forget(d_past, has_begun) if has_begun.any() else d_past
    return [d_past.keys, d_past.strengths, *matrix_of(d_past)]


def _back_to_memory(
    sources: Tensor, first_steps: NDArray[np.integer], past: list[Tensor], decay: float, d_past: list[Tensor]
) -> None:
    """Add to `d_past` what reads send back to the memory before them: through A, the sum of dr q^T, faded as A was by then."""
    keys, strengths, matrix, faded = past
    d_keys, d_strengths, d_matrix, d_faded = d_past
    left = decay ** torch.arange(len(first_steps), dtype=sources.dtype) * torch.from_numpy(first_steps.T < 0)
    d_reads = (sources[:, :, :, 0] * left[:, :, None, None]).flatten(1, 2)
    queries = sources[:, :, :, 1].flatten(1, 2)
    if matrix.shape[1]:
        d_A = torch.bmm(d_reads.mT, queries)
        d_matrix.add_(faded[:, None, None] * d_A)
        d_faded.add_((matrix * d_A).sum(dim=(1, 2)))
    if keys.shape[1]:
        along_read, along_query = torch.bmm(keys, d_reads.mT), torch.bmm(keys, queries.mT)
        d_keys.add_(strengths.unsqueeze(2) * (torch.bmm(along_read, queries) + torch.bmm(along_query, d_reads)))
        d_strengths.add_((along_read * along_query).sum(dim=2))


def _past(past: Sequence[Tensor], script: Script, decay: float) -> tuple[NDArray[np.floating], ...]:
    """Strengths, matrix, and what is left of the matrix at each step, as the kernels take them."""
    _, strengths, matrix, faded = past
    left = np.zeros(script.first_steps.shape, script.write.dtype)
    if matrix.shape[1]:
        left += _array(faded) * decay ** np.arange(len(left))[:, None] * (script.first_steps < 0)
    return _array(strengths), _array(matrix), left


def _with_room(keys: Tensor, steps: int) -> Tensor:
    """Keys [B, P, H] with room for more, [B, P + T, H]."""
    batch, pending, size = keys.shape
    room = keys.new_empty(batch, pending + steps, size)
    room[:, :pending] = keys
    return room


def _with_writes(keys: Tensor, outputs: Tensor) -> Tensor:
    """Keys [B, P, H], and after them outputs [T, B, H]: [B, P + T, H]."""
    together = _with_room(keys, len(outputs))
    together[:, keys.shape[1] :] = outputs.transpose(0, 1)
    return together


def _array(part: Tensor) -> NDArray[np.floating]:
    return part.detach().contiguous().numpy()


def _split(write: Tensor, starts: Tensor | None, wipes: Tensor | None, lengths: list[int]) -> list[_Stretch]:
    cut = np.zeros(write.shape, dtype=bool) if starts is None else starts.numpy().copy()
    if wipes is not None:
        cut[1:] |= wipes.numpy()[:-1]
    ends = np.cumsum(lengths)
    spans = [slice(end - length, end) for end, length in zip(ends.tolist(), lengths, strict=True)]
    strengths = write.contiguous().numpy()
    first_steps = (episode_first_steps(None if starts is None else starts[span], *write[span].shape) for span in spans)
    return [_Stretch(span, Script(strengths[span], own, cut[span])) for span, own in zip(spans, first_steps, strict=True)]


def episode_first_steps(starts: Tensor | None, steps: int, batch: int) -> NDArray[np.int64]:
    """For each step [T, B], where its episode begins; -1 if that is before the sequence."""
    if starts is None:
        return np.full((steps, batch), -1)
    return np.maximum.accumulate(np.where(starts.contiguous().numpy(), np.arange(steps)[:, None], -1))
