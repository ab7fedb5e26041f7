"""A linear recurrence over time, ``h(t) = a(t) * h(t-1) + b(t)``, element by element, in real or complex numbers.

Linear recurrent units share it. The last h enters a step linearly, so the steps of a sequence can be grouped in any way (Martin
& Cundy 2018). Compiled loops take them one after another, on the processor and on a GPU. Elsewhere all steps of a chunk are
computed at once: each of log2(chunk) rounds doubles how many steps back every h(t) has seen.

A complex vector of N elements is its real parts and then its imaginary parts, [..., 2, N], in a real tensor, which works with
every dtype, ONNX and NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fw_rl.kernels import Array, Kernel, array_of_starts, can_run, can_run_triton, compiled, first_derivative, is_traced

__all__ = ["product", "scan", "scan_kernels"]

_CHUNK = 64
"""Steps computed at once where there are no compiled loops."""


def scan(decay: Tensor, inputs: Tensor, before: Tensor, episode_starts: Tensor | None = None) -> Tensor:
    """Every ``h(t) = decay(t) * h(t-1) + inputs(t)`` of a sequence, with h = 0 before the start of an episode.

    All numbers are real, with the shapes below, or complex, with [..., 2, N] instead of [..., N]; the inputs may still be real
    then.

    Args:
        decay: The factor on each element in a step, [T, B, N], or [N] if it is the same at every step.
        inputs: What a step adds, [T, B, N].
        before: h before the first step, [B, N].
        episode_starts: Where row b starts an episode before step t, [T, B] bool; or None.

    Returns:
        All h(t), [T, B, N].

    Raises:
        ValueError: If a shape does not fit the others.

    Examples:
        >>> scan(torch.tensor([0.5]), torch.ones(3, 1, 1), torch.zeros(1, 1)).flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """
    if decay.dim() < before.dim():
        decay = decay[None, None]
    if inputs.dim() == before.dim():  # real inputs of complex numbers
        inputs = inputs.unsqueeze(2)
    _check_shapes(decay, inputs, before, episode_starts)
    learns = torch.is_grad_enabled() and any(part.requires_grad for part in (decay, inputs, before))
    run = _Scan.apply if learns else _Scan.forward
    return run(decay, inputs, before, episode_starts)  # type: ignore[no-any-return]


def _check_shapes(decay: Tensor, inputs: Tensor, before: Tensor, starts: Tensor | None) -> None:
    """Raise ValueError for shapes that do not fit: the compiled loops rely on them."""
    if is_traced():
        return
    whole = len(inputs), *before.shape
    constant = 1, 1, *before.shape[1:]
    real = (*whole[:2], *(1,) * (before.dim() - 2), whole[-1])
    fits = tuple(decay.shape) in (whole, constant) and tuple(inputs.shape) in (whole, real)
    has_starts = starts is None or (tuple(starts.shape) == whole[:2] and starts.dtype is torch.bool)
    if not (fits and has_starts):
        shapes = ", ".join(str(list(part.shape)) for part in (decay, inputs, before, starts) if part is not None)
        wanted = "[T, B, N] or [N], [T, B, N], [B, N] and [T, B] of bool"
        raise ValueError(f"decay, inputs, before and episode_starts must be {wanted}, got {shapes}")


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product of complex numbers [..., 2, N], element by element.

    Args:
        a: [..., 2, N].
        b: [..., 2, N].
    """
    (a_re, a_im), (b_re, b_im) = a.unbind(-2), b.unbind(-2)
    return torch.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], dim=-2)


def scan_kernels(*, is_complex: bool) -> tuple[Kernel, ...]:
    """What is compiled when `scan` and its gradient are called for the first time on a machine.

    Args:
        is_complex: Whether the numbers are complex.
    """
    return (_complex_forward, _complex_back) if is_complex else (_real_forward, _real_back)


class _Scan(torch.autograd.Function):
    """`scan` of a decay [T or 1, B or 1, ...] and inputs [T, B, N], [T, B, 2, N], or [T, B, 1, N] without imaginary parts."""

    generate_vmap_rule = True

    @staticmethod
    def forward(decay: Tensor, inputs: Tensor, before: Tensor, starts: Tensor | None) -> Tensor:
        if can_run_triton(decay, inputs, before):
            from fw_rl.gpu import scan as gpu

            return gpu.run_forward(decay, inputs, before, starts)
        if not can_run(decay, inputs, before):
            return _forward(decay, F.pad(inputs, (0, 0, 0, before.shape[1] - inputs.shape[2])), before, starts)
        h = inputs.new_empty(len(inputs), *before.shape)
        run = _real_forward if h.dim() == 3 else _complex_forward
        run(*_arrays(decay, inputs, before), array_of_starts(starts), h.numpy())
        return h

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        decay, driven, before, starts = inputs
        ctx.save_for_backward(decay, before, starts, output)
        ctx.shape = driven.shape

    @staticmethod
    @first_derivative
    def backward(ctx: Any, d_h: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        decay, before, starts, h = ctx.saved_tensors
        if can_run_triton(decay, before, h, d_h):
            from fw_rl.gpu import scan as gpu

            return *gpu.run_back(decay, before, starts, h, d_h, ctx.shape), None
        if not can_run(decay, before, h, d_h):
            d_decay, d_inputs, d_before = _back(decay, before, starts, h, d_h)
            return d_decay, d_inputs[:, :, : ctx.shape[2]], d_before, None
        d_decay, d_inputs, d_before = h.new_zeros(decay.shape), h.new_empty(ctx.shape), h.new_empty(before.shape)
        run = _real_back if h.dim() == 3 else _complex_back
        run(*_arrays(decay, before, h, d_h), array_of_starts(starts), *_arrays(d_decay, d_inputs, d_before))
        return d_decay, d_inputs, d_before, None


def _arrays(*tensors: Tensor) -> list[Array]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


# In Torch, for every device and dtype, and where something has to see the operations.


def _forward(decay: Tensor, inputs: Tensor, before: Tensor, starts: Tensor | None) -> Tensor:
    chunks = []
    for begin in range(0, len(inputs), _CHUNK):
        steps = slice(begin, begin + _CHUNK)
        own_decay, own_starts = decay if len(decay) == 1 else decay[steps], None if starts is None else starts[steps]
        chunks.append(_chunk(own_decay, inputs[steps], before, own_starts))
        before = chunks[-1][-1]
    return torch.cat(chunks)


def _chunk(decay: Tensor, inputs: Tensor, before: Tensor, starts: Tensor | None) -> Tensor:
    """Steps at once: a round knows what the last `reach` steps added to each h(t), and adds the part of as many before them."""
    h = torch.cat([inputs[:1] + _cleared(_times(decay[:1], before[None]), _first(starts)), inputs[1:]])
    decay, starts = decay if len(decay) == 1 else decay[1:], None if starts is None else starts[1:]
    reach = 1
    while reach < len(h):
        h = torch.cat([h[:reach], h[reach:] + _cleared(_times(decay, h[:-reach]), starts)])
        decay = _times(decay, decay) if len(decay) == 1 else _times(decay[reach:], decay[:-reach])
        starts = None if starts is None else starts[reach:] | starts[:-reach]
        reach *= 2
    return h


def _back(decay: Tensor, before: Tensor, starts: Tensor | None, h: Tensor, d_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of decay, inputs and the h before: the recurrence in reversed time, with the decay of the next step."""
    conjugate, nothing = _conjugate(decay), torch.zeros_like(before)
    starts_to_come = None if starts is None else starts.roll(-1, 0).flip(0)
    d_inputs = _forward(conjugate.roll(-1, 0).flip(0), d_h.flip(0), nothing, starts_to_come).flip(0)
    earlier = _cleared(torch.cat([before[None], h[:-1]]), starts)
    d_before = _cleared(_times(conjugate[:1], d_inputs[:1]), _first(starts))[0]
    return _times(d_inputs, _conjugate(earlier)).sum_to_size(decay.shape), d_inputs, d_before


def _times(a: Tensor, b: Tensor) -> Tensor:
    """The product of real numbers [T, B, N] or of complex ones [T, B, 2, N]."""
    return a * b if a.dim() == 3 else product(a, b)


def _conjugate(a: Tensor) -> Tensor:
    return a if a.dim() == 3 else torch.stack([a[..., 0, :], -a[..., 1, :]], dim=-2)


def _first(starts: Tensor | None) -> Tensor | None:
    return None if starts is None else starts[:1]


def _cleared(h: Tensor, starts: Tensor | None) -> Tensor:
    """What is carried over, unless an episode starts: then not even an infinite number is."""
    return h if starts is None else h.masked_fill(starts.view(*starts.shape, *(1,) * (h.dim() - 2)), 0.0)


# Compiled for the processor. A decay that is the same at every step has a length of 1 there, and starts of [0, 0] are nowhere.
# Real and imaginary parts go one after the other, and each inner loop writes one array: with more, the compiler would take one
# number at a time.


@compiled
def _real_forward(decay: Array, inputs: Array, before: Array, starts: NDArray[np.bool_], h: Array) -> None:
    steps, rows, size = h.shape
    for t in range(steps):
        for b in range(rows):
            a, x, out, last = decay[t % len(decay), b % decay.shape[1]], inputs[t, b], h[t, b], h[t - 1, b] if t else before[b]
            if len(starts) and starts[t, b]:
                out[:] = x
            else:
                for n in range(size):
                    out[n] = x[n] + a[n] * last[n]


@compiled
def _complex_forward(decay: Array, inputs: Array, before: Array, starts: NDArray[np.bool_], h: Array) -> None:
    steps, rows, _, size = h.shape
    for t in range(steps):
        for b in range(rows):
            a, out, last = decay[t % len(decay), b % decay.shape[1]], h[t, b], h[t - 1, b] if t else before[b]
            if len(starts) and starts[t, b]:
                out[:] = 0
            else:
                for n in range(size):
                    out[0, n] = a[0, n] * last[0, n] - a[1, n] * last[1, n]
                for n in range(size):
                    out[1, n] = a[0, n] * last[1, n] + a[1, n] * last[0, n]
            for part in range(inputs.shape[2]):
                for n in range(size):
                    out[part, n] += inputs[t, b, part, n]


@compiled
def _real_back(
    decay: Array,
    before: Array,
    h: Array,
    d_h: Array,
    starts: NDArray[np.bool_],
    d_decay: Array,
    d_inputs: Array,
    d_before: Array,
) -> None:
    """From the gradient `d_h` of all h to the others; `d_decay` is zero at first, `d_before` goes from step to step."""
    steps, rows, size = h.shape
    d_before[:] = 0
    for t in range(steps - 1, -1, -1):
        for b in range(rows):
            a, d_a = decay[t % len(decay), b % decay.shape[1]], d_decay[t % len(decay), b % decay.shape[1]]
            d, carried, last = d_inputs[t, b], d_before[b], h[t - 1, b] if t else before[b]
            for n in range(size):
                d[n] = d_h[t, b, n] + carried[n]
            if len(starts) and starts[t, b]:
                carried[:] = 0
            else:
                for n in range(size):
                    d_a[n] += d[n] * last[n]
                for n in range(size):
                    carried[n] = a[n] * d[n]


@compiled
def _complex_back(
    decay: Array,
    before: Array,
    h: Array,
    d_h: Array,
    starts: NDArray[np.bool_],
    d_decay: Array,
    d_inputs: Array,
    d_before: Array,
) -> None:
    """As `_real_back`; the gradient of a product is that of the other factor's conjugate."""
    steps, rows, _, size = h.shape
    d = np.empty_like(h[0, 0])
    d_before[:] = 0
    for t in range(steps - 1, -1, -1):
        for b in range(rows):
            a, d_a = decay[t % len(decay), b % decay.shape[1]], d_decay[t % len(decay), b % decay.shape[1]]
            carried, last = d_before[b], h[t - 1, b] if t else before[b]
            for part in range(2):
                for n in range(size):
                    d[part, n] = d_h[t, b, part, n] + carried[part, n]
            for part in range(d_inputs.shape[2]):
                d_inputs[t, b, part] = d[part]
            if len(starts) and starts[t, b]:
                carried[:] = 0
            else:
                for n in range(size):
                    d_a[0, n] += d[0, n] * last[0, n] + d[1, n] * last[1, n]
                for n in range(size):
                    d_a[1, n] += d[1, n] * last[0, n] - d[0, n] * last[1, n]
                for n in range(size):
                    carried[0, n] = a[0, n] * d[0, n] + a[1, n] * d[1, n]
                for n in range(size):
                    carried[1, n] = a[0, n] * d[1, n] - a[1, n] * d[0, n]
