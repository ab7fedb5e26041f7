"""The delta rule by chunks on a GPU, as `fw_rl.memory.write_and_read`: a program takes rows of one head's A through all steps.

In a chunk of C steps that begins with A, let within(i, j) be what remains at step i of the write of step j, and carried(i) what
remains of A:

    L       = strengths (within * K K^T), below its diagonal
    written = (1 + L)^-1 (strengths (V - carried K A^T))           for a memory that only sums: strengths V
    reads   = (within * Q K^T) written + carried Q A^T
    A after = carried(C) A + (within(C, .) written)^T K

which is the WY form of Yang et al. 2024. The forward pass keeps each chunk's first A; the backward pass recomputes the rest.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fw_rl.kernels import first_derivative

__all__ = ["write_and_read"]

_CHUNK = 16
"""Steps of a chunk, and the least size of a matrix product in Triton."""

_VALUES = 32
"""Rows of A that a program takes, at most."""


def write_and_read(
    matrix: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    strengths: Tensor,
    decays: Tensor | None = None,
    episode_starts: Tensor | None = None,
    *,
    corrects: bool = True,
) -> tuple[Tensor, Tensor]:
    """`fw_rl.memory.write_and_read`, with its arguments."""
    logs = None if decays is None else decays.clamp(min=torch.finfo(decays.dtype).tiny).log()
    reads, after = _WriteAndRead.apply(matrix, queries, keys, values, strengths, logs, episode_starts, corrects)
    return reads, after


class _WriteAndRead(torch.autograd.Function):
    """`write_and_read` with the logarithms of the decays."""

    @staticmethod
    def forward(
        ctx: Any,
        matrix: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        strengths: Tensor,
        logs: Tensor | None,
        starts: Tensor | None,
        corrects: bool,
    ) -> tuple[Tensor, Tensor]:
        given = [None if part is None else part.contiguous() for part in (queries, keys, values, strengths, logs, starts)]
        reads, after = values.new_empty(values.shape), torch.empty_like(matrix, memory_format=torch.contiguous_format)
        is_kept = any(ctx.needs_input_grad)
        kept = matrix.new_empty(triton.cdiv(len(keys), _CHUNK), *matrix.shape) if is_kept else None
        grid, settings = _launch(keys, values, corrects)
        with torch.cuda.device_of(matrix):
            _forward[grid](matrix.contiguous(), *given, reads, kept, after, **settings)
        if is_kept:
            ctx.save_for_backward(kept, *given)
            ctx.corrects = corrects
        return reads, after

    @staticmethod
    @first_derivative
    def backward(ctx: Any, d_reads: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
        kept, *given = ctx.saved_tensors
        queries, keys, values, strengths, logs, _ = given
        grid, settings = _launch(keys, values, ctx.corrects)
        blocks, d_matrix, d_values = grid[1], torch.empty_like(kept[0]), torch.empty_like(values)
        # Each program gives its rows' part of the gradients of what all rows share.
        shared = [None if part is None else part.new_empty(blocks, *part.shape) for part in (queries, keys, strengths, logs)]
        sizes = keys.numel(), strengths.numel()
        with torch.cuda.device_of(kept):
            _back[grid](
                kept, *given, d_reads.contiguous(), d_after.contiguous(), *shared, d_values, d_matrix, *sizes, **settings
            )
        d_queries, d_keys, d_strengths, d_logs = (None if part is None else part.sum(0) for part in shared)
        return d_matrix, d_queries, d_keys, d_values, d_strengths, d_logs, None, None


def _launch(keys: Tensor, values: Tensor, corrects: bool) -> tuple[tuple[int, int], dict[str, int | bool]]:
    """The grid of programs, and the arguments of both kernels after their tensors."""
    steps, batch, heads, key_size = keys.shape
    value_size = values.shape[3]
    rows_of_A = min(max(triton.next_power_of_2(value_size), _CHUNK), _VALUES)
    return (batch * heads, triton.cdiv(value_size, rows_of_A)), dict(
        steps=steps,
        rows=batch * heads,
        heads=heads,
        key_size=key_size,
        value_size=value_size,
        CORRECTS=corrects,
        CHUNK=_CHUNK,
        KEYS=max(triton.next_power_of_2(key_size), _CHUNK),
        VALUES=rows_of_A,
    )


@triton.jit
def _forward(
    matrix,
    queries,
    keys,
    values,
    strengths,
    logs,
    starts,
    reads,
    kept,
    after,
    steps,
    rows,
    heads,
    key_size,
    value_size,
    CORRECTS: tl.constexpr,
    CHUNK: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
):
    row, n, m = tl.program_id(0).to(tl.int64), tl.arange(0, KEYS), tl.program_id(1) * VALUES + tl.arange(0, VALUES)
    step, size = tl.arange(0, CHUNK), value_size * key_size
    A = _load(matrix + row * size, m, value_size, key_size, n, key_size)
    for first in range(0, steps, CHUNK):
        t = first + step
        q = _load(queries + row * key_size, t, steps, rows * key_size, n, key_size)
        k = _load(keys + row * key_size, t, steps, rows * key_size, n, key_size)
        v = _load(values + row * value_size, t, steps, rows * value_size, m, value_size)
        s = _load_steps(strengths + row, t, steps, rows)[:, None]
        within, carried, is_new = _left(s, logs, starts, t, steps, row, rows, heads, CHUNK)
        A = tl.where(is_new, 0.0, A)
        if kept is not None:
            _store(kept + row * size, A, m, value_size, key_size, n, key_size)
            kept += rows * size
        if CORRECTS:
            inverse = _inverse(tl.where(step[:, None] > step[None, :], s * within * _dot(k, k.T), 0.0), CHUNK)
            written = _dot(inverse, s * (v - carried[:, None] * _dot(k, A.T)))
        else:
            written = s * v
        read = _dot(within * _dot(q, k.T), written) + carried[:, None] * _dot(q, A.T)
        _store(reads + row * value_size, read, t, steps, rows * value_size, m, value_size)
        left = tl.sum(tl.where(step[:, None] == CHUNK - 1, within, 0.0), axis=0)[:, None]
        A = tl.sum(tl.where(step == CHUNK - 1, carried, 0.0)) * A + _dot((left * written).T, k)
    _store(after + row * size, A, m, value_size, key_size, n, key_size)


@triton.jit
def _back(
    kept,
    queries,
    keys,
    values,
    strengths,
    logs,
    starts,
    d_reads,
    d_after,
    d_queries,
    d_keys,
    d_strengths,
    d_logs,
    d_values,
    d_matrix,
    keys_numel,
    strengths_numel,
    steps,
    rows,
    heads,
    key_size,
    value_size,
    CORRECTS: tl.constexpr,
    CHUNK: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
):
    """From the last chunk to the first, with D = d loss / d A after the chunk."""
    row, n, m = tl.program_id(0).to(tl.int64), tl.arange(0, KEYS), tl.program_id(1) * VALUES + tl.arange(0, VALUES)
    step, size = tl.arange(0, CHUNK), value_size * key_size
    is_earlier, is_last = step[:, None] > step[None, :], step == CHUNK - 1
    d_queries += tl.program_id(1) * keys_numel + row * key_size
    d_keys += tl.program_id(1) * keys_numel + row * key_size
    d_strengths += tl.program_id(1) * strengths_numel + row
    D = _load(d_after + row * size, m, value_size, key_size, n, key_size)
    chunks = tl.cdiv(steps, CHUNK)
    for i in range(chunks):
        chunk = chunks - 1 - i
        t = chunk * CHUNK + step
        q = _load(queries + row * key_size, t, steps, rows * key_size, n, key_size)
        k = _load(keys + row * key_size, t, steps, rows * key_size, n, key_size)
        v = _load(values + row * value_size, t, steps, rows * value_size, m, value_size)
        s = _load_steps(strengths + row, t, steps, rows)[:, None]
        d_read = _load(d_reads + row * value_size, t, steps, rows * value_size, m, value_size)
        A = _load(kept + (chunk * rows + row) * size, m, value_size, key_size, n, key_size)
        within, carried, is_new = _left(s, logs, starts, t, steps, row, rows, heads, CHUNK)
        left = tl.sum(tl.where(is_last[:, None], within, 0.0), axis=0)[:, None]
        likeness, asked = _dot(k, k.T), _dot(q, k.T)
        if CORRECTS:
            inverse = _inverse(tl.where(is_earlier, s * within * likeness, 0.0), CHUNK)
            recalled = _dot(k, A.T)
            error = v - carried[:, None] * recalled
            written = _dot(inverse, s * error)
        else:
            written = s * v
        along_keys = _dot(k, D.T)
        d_written = _dot((within * asked).T, d_read) + left * along_keys
        d_weights = _dot(d_read, written.T)
        d_asked, d_within = within * d_weights, asked * d_weights
        d_within += tl.where(is_last[:, None], tl.sum(written * along_keys, axis=1)[None, :], 0.0)
        d_carried = tl.sum(d_read * _dot(q, A.T), axis=1) + tl.where(is_last, tl.sum(D * A), 0.0)
        d_q = _dot(d_asked, k) + carried[:, None] * _dot(d_read, A)
        d_k = _dot(d_asked.T, q) + _dot(left * written, D)
        D = tl.sum(tl.where(is_last, carried, 0.0)) * D + _dot((carried[:, None] * d_read).T, q)
        if CORRECTS:
            d_error = _dot(inverse.T, d_written)
            d_L = tl.where(is_earlier, -_dot(d_error, written.T), 0.0)
            d_s = tl.sum(d_L * within * likeness, axis=1) + tl.sum(d_error * error, axis=1)
            d_v = s * d_error
            d_within += d_L * s * likeness
            d_likeness = d_L * s * within
            d_carried -= tl.sum(d_v * recalled, axis=1)
            d_recalled = -carried[:, None] * d_v
            d_k += _dot(d_likeness + d_likeness.T, k) + _dot(d_recalled, A)
            D += _dot(d_recalled.T, k)
        else:
            d_s = tl.sum(d_written * v, axis=1)
            d_v = s * d_written
        D = tl.where(is_new, 0.0, D)
        _store(d_queries, d_q, t, steps, rows * key_size, n, key_size)
        _store(d_keys, d_k, t, steps, rows * key_size, n, key_size)
        _store(d_values + row * value_size, d_v, t, steps, rows * value_size, m, value_size)
        _store_steps(d_strengths, d_s, t, steps, rows)
        if logs is not None:
            # The logarithm of step t is in what remains at every step from t on, of every write before it.
            to_come = tl.cumsum(d_within * within, axis=0, reverse=True)
            d_log = tl.sum(tl.where(is_earlier, to_come, 0.0), axis=1) + tl.cumsum(d_carried * carried, axis=0, reverse=True)
            _store_steps(d_logs + tl.program_id(1) * strengths_numel + row, d_log, t, steps, rows)
    _store(d_matrix + row * size, D, m, value_size, key_size, n, key_size)


@triton.jit
def _left(s, logs, starts, t, steps, row, rows, heads, CHUNK: tl.constexpr):
    """What remains at each step of the writes of a chunk [C, C], and of A [C]; and whether an episode starts with the chunk."""
    step = tl.arange(0, CHUNK)
    own, is_new = step[:, None] >= step[None, :], False
    log = tl.zeros((CHUNK,), dtype=s.dtype) if logs is None else _load_steps(logs + row, t, steps, rows)
    # A sum for each write: the rounding of a difference of two sums would leak from one episode to another.
    within = tl.exp(tl.cumsum(tl.where(step[:, None] > step[None, :], log[:, None], 0.0), axis=0))
    carried = tl.exp(tl.cumsum(log, axis=0))
    if starts is not None:
        is_start = tl.load(starts + t.to(tl.int64) * (rows // heads) + row // heads, mask=t < steps, other=0).to(tl.int32)
        episode = tl.cumsum(is_start, axis=0)
        own = own & (episode[:, None] == episode[None, :])
        carried = tl.where(episode == 0, carried, 0.0)
        is_new = tl.sum(tl.where(step == 0, is_start, 0)) > 0
    return tl.where(own, within, 0.0), carried, is_new


@triton.jit
def _inverse(L, CHUNK: tl.constexpr):
    """The inverse of 1 + L, for L that is zero on its diagonal and above: row by row, each from those before it."""
    step = tl.arange(0, CHUNK)
    inverse = tl.where(step[:, None] == step[None, :], 1.0, tl.zeros_like(L))
    for i in range(1, CHUNK):
        is_row = step[:, None] == i
        along = tl.sum(tl.where(is_row, L, 0.0), axis=0)
        inverse -= tl.where(is_row, tl.sum(along[:, None] * inverse, axis=0)[None, :], 0.0)
    return inverse


@triton.jit
def _dot(a, b):
    return tl.dot(a, b, input_precision="ieee", out_dtype=a.dtype)


@triton.jit
def _load(pointer, i, height, stride, j, width):
    """A block of a matrix, with zeros beyond it."""
    places = i.to(tl.int64)[:, None] * stride + j[None, :]
    return tl.load(pointer + places, mask=(i < height)[:, None] & (j < width)[None, :], other=0.0)


@triton.jit
def _store(pointer, block, i, height, stride, j, width):
    places = i.to(tl.int64)[:, None] * stride + j[None, :]
    tl.store(pointer + places, block, mask=(i < height)[:, None] & (j < width)[None, :])


@triton.jit
def _load_steps(pointer, t, steps, stride):
    return tl.load(pointer + t.to(tl.int64) * stride, mask=t < steps, other=0.0)


@triton.jit
def _store_steps(pointer, numbers, t, steps, stride):
    tl.store(pointer + t.to(tl.int64) * stride, numbers, mask=t < steps)
