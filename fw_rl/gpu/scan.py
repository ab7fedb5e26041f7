"""The linear recurrence of `fw_rl.scan` on a GPU: a program takes a row and a block of its elements through all steps.

Real and imaginary parts of a row lie one after the other. Where numbers are real, the imaginary parts are never read.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["run_back", "run_forward"]

_LARGEST_BLOCK = 128
"""Elements of a row that a program takes."""


def run_forward(decay: Tensor, inputs: Tensor, before: Tensor, starts: Tensor | None) -> Tensor:
    """All h(t), of decays [T or 1, B or 1, ...], inputs [T, B, N], [T, B, 2, N] or [T, B, 1, N], and the h before."""
    h = inputs.new_empty(len(inputs), *before.shape)
    decay, inputs, before = (part.contiguous() for part in (decay, inputs, before))
    grid, settings = _launch(decay, inputs, h)
    with torch.cuda.device_of(h):
        _forward[grid](decay, inputs, before, None if starts is None else starts.contiguous(), h, **settings)
    return h


def run_back(
    decay: Tensor, before: Tensor, starts: Tensor | None, h: Tensor, d_h: Tensor, inputs_shape: torch.Size
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of decay, inputs and the h before, from that of all h."""
    d_inputs, d_before = h.new_empty(inputs_shape), torch.empty_like(h[0])
    every_step = len(decay) > 1
    d_decay = h.new_empty(h.shape if every_step else (1, *h.shape[1:]))
    decay, before, h, d_h = (part.contiguous() for part in (decay, before, h, d_h))
    grid, settings = _launch(decay, d_inputs, h)
    arguments = (decay, before, None if starts is None else starts.contiguous(), h, d_h, d_decay, d_inputs, d_before)
    with torch.cuda.device_of(h):
        _back[grid](*arguments, h.numel() - h[0].numel(), **settings, EVERY_STEP=every_step)
    return d_decay.sum_to_size(decay.shape), d_inputs, d_before


def _launch(decay: Tensor, inputs: Tensor, h: Tensor) -> tuple[tuple[int, int], dict[str, int | bool]]:
    """The grid of programs, and the arguments of both kernels after their tensors."""
    steps, rows, size = len(h), h.shape[1], h.shape[-1]
    block = min(triton.next_power_of_2(size), _LARGEST_BLOCK)
    return (rows, triton.cdiv(size, block)), dict(
        steps=steps,
        rows=rows,
        size=size,
        decay_step=decay.stride(0) if len(decay) > 1 else 0,
        decay_row=decay.stride(1) if decay.shape[1] > 1 else 0,
        IS_COMPLEX=h.dim() == 4,
        COMPLEX_INPUTS=h.shape == inputs.shape and h.dim() == 4,
        BLOCK=block,
    )


@triton.jit
def _forward(
    decay,
    inputs,
    before,
    starts,
    h,
    steps,
    rows,
    size,
    decay_step,
    decay_row,
    IS_COMPLEX: tl.constexpr,
    COMPLEX_INPUTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, n = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    width, inputs_width = size * (2 if IS_COMPLEX else 1), size * (2 if COMPLEX_INPUTS else 1)
    decay += row * decay_row
    inputs += row * inputs_width
    h += row * width
    last_re, last_im = _load(before + row * width, n, size, IS_COMPLEX)
    for _ in range(steps):
        a_re, a_im = _load(decay, n, size, IS_COMPLEX)
        x_re, x_im = _load(inputs, n, size, COMPLEX_INPUTS)
        left_re, left_im = _product(a_re, a_im, last_re, last_im, IS_COMPLEX)
        if starts is not None:
            is_start = tl.load(starts + row)
            left_re, left_im = tl.where(is_start, 0.0, left_re), tl.where(is_start, 0.0, left_im)
            starts += rows
        last_re, last_im = left_re + x_re, left_im + x_im
        _store(h, last_re, last_im, n, size, IS_COMPLEX)
        decay += decay_step
        inputs += rows * inputs_width
        h += rows * width


@triton.jit
def _back(
    decay,
    before,
    starts,
    h,
    d_h,
    d_decay,
    d_inputs,
    d_before,
    last_step,
    steps,
    rows,
    size,
    decay_step,
    decay_row,
    IS_COMPLEX: tl.constexpr,
    COMPLEX_INPUTS: tl.constexpr,
    BLOCK: tl.constexpr,
    EVERY_STEP: tl.constexpr,
):
    """From the last step, at offset `last_step` in h, to the first."""
    row, n = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    width, inputs_width = size * (2 if IS_COMPLEX else 1), size * (2 if COMPLEX_INPUTS else 1)
    decay += (steps - 1) * decay_step + row * decay_row
    h += last_step + row * width
    d_h += last_step + row * width
    d_decay += row * width + (last_step if EVERY_STEP else 0)
    d_inputs += last_step // width * inputs_width + row * inputs_width
    carried_re, carried_im = _zeros_like(before, BLOCK), _zeros_like(before, BLOCK)
    sum_re, sum_im = carried_re, carried_im
    for i in range(steps):
        a_re, a_im = _load(decay, n, size, IS_COMPLEX)
        d_re, d_im = _load(d_h, n, size, IS_COMPLEX)
        d_re, d_im = d_re + carried_re, d_im + carried_im
        _store(d_inputs, d_re, d_im, n, size, COMPLEX_INPUTS)
        if i < steps - 1:
            last_re, last_im = _load(h - rows * width, n, size, IS_COMPLEX)
        else:
            last_re, last_im = _load(before + row * width, n, size, IS_COMPLEX)
        carried_re, carried_im = _product(d_re, d_im, a_re, -a_im, IS_COMPLEX)
        da_re, da_im = _product(d_re, d_im, last_re, -last_im, IS_COMPLEX)
        if starts is not None:
            is_start = tl.load(starts + (steps - 1 - i) * rows + row)
            carried_re, carried_im = tl.where(is_start, 0.0, carried_re), tl.where(is_start, 0.0, carried_im)
            da_re, da_im = tl.where(is_start, 0.0, da_re), tl.where(is_start, 0.0, da_im)
        if EVERY_STEP:
            _store(d_decay, da_re, da_im, n, size, IS_COMPLEX)
            d_decay -= rows * width
        else:
            sum_re, sum_im = sum_re + da_re, sum_im + da_im
        decay -= decay_step
        h -= rows * width
        d_h -= rows * width
        d_inputs -= rows * inputs_width
    _store(d_before + row * width, carried_re, carried_im, n, size, IS_COMPLEX)
    if not EVERY_STEP:
        _store(d_decay, sum_re, sum_im, n, size, IS_COMPLEX)


@triton.jit
def _zeros_like(pointer, BLOCK: tl.constexpr):
    return tl.zeros((BLOCK,), dtype=pointer.dtype.element_ty)


@triton.jit
def _load(pointer, n, size, IS_COMPLEX: tl.constexpr):
    """Real and imaginary parts."""
    re = tl.load(pointer + n, mask=n < size, other=0.0)
    im = tl.load(pointer + size + n, mask=n < size, other=0.0) if IS_COMPLEX else tl.zeros_like(re)
    return re, im


@triton.jit
def _store(pointer, re, im, n, size, IS_COMPLEX: tl.constexpr):
    tl.store(pointer + n, re, mask=n < size)
    if IS_COMPLEX:
        tl.store(pointer + size + n, im, mask=n < size)


@triton.jit
def _product(a_re, a_im, b_re, b_im, IS_COMPLEX: tl.constexpr):
    re = a_re * b_re - a_im * b_im if IS_COMPLEX else a_re * b_re
    return re, a_re * b_im + a_im * b_re if IS_COMPLEX else a_im
