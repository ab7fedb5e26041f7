"""Inputs times weights, by the library of Torch that multiplies faster on this processor.

Torch multiplies matrices in float32 with MKL, which does not use AVX-512 on AMD's processors; oneDNN, which Torch also
includes, does. `benchmarks/products.py` measures both.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fw_rl.kernels import can_run, is_traced

__all__ = ["Linear", "linear"]

LEAST = 2**21
"""Number of multiplications below which calling oneDNN costs more than it saves."""


class Linear(nn.Linear):
    """`torch.nn.Linear` with `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x W^T + b as `torch.nn.functional.linear` does, but faster for large products on some processors.

    Args:
        x: Inputs, [..., I].
        weight: W, [O, I].
        bias: b, [O], or None.

    Returns:
        Outputs, [..., O].
    """
    parts = (x, weight) if bias is None else (x, weight, bias)
    is_large = not is_traced() and x.numel() * len(weight) >= LEAST  # traced sizes are not compared
    if not (is_large and _prefers_onednn() and can_run(*parts) and x.dtype == torch.float32):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
        product: Tensor = _Linear.apply(x, weight, bias)
        return product
    return _multiply(x, weight, bias)


class _Linear(torch.autograd.Function):
    """`linear` with its gradient, whose products are `linear` again and so have gradients themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        rows, d_rows = (part.reshape(-1, part.shape[-1]) for part in (x, d_y))
        return (
            linear(d_y, weight.T) if needs_x else None,
            linear(d_rows.T, rows.T) if needs_weight else None,
            d_rows.sum(dim=0) if needs_bias else None,
        )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product by oneDNN, as `torch.compile` makes it; it is slow for weights that are neither W nor W^T in one piece."""
    packed = weight if weight.is_contiguous() else weight.T.contiguous().T
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, bias, "none", [], "")
    return product


@cache
def _prefers_onednn() -> bool:
    has_both = torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_both and torch.backends.cpu.get_cpu_capability() == "AVX512" and "AuthenticAMD" in _processor()


def _processor() -> str:
    """What the operating system says about the processor."""
    listed = Path("/proc/cpuinfo")
    return listed.read_text() if listed.exists() else platform.processor()
