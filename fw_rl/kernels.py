"""What the compiled forms of the cells share: Numba's options, and when a kernel can replace plain Torch.

Numba's kernels run on the processor, Triton's (`fw_rl.gpu`) on a GPU; everywhere else, and where Torch must see every
operation, plain Torch runs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import cache, wraps
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numba import njit
from numba.core.caching import IndexDataCacheFile
from numpy.typing import NDArray
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack

__all__ = [
    "Array",
    "Kernel",
    "Real",
    "add_product",
    "are_cached",
    "array_of_starts",
    "arrays",
    "can_run",
    "can_run_triton",
    "compiled",
    "first_derivative",
    "helper",
    "in_place",
    "inlined",
    "is_traced",
    "rows_that_start",
    "sigmoid",
    "tanh",
]

Array = NDArray[np.floating]
Real = float | np.floating
"""A number, of Python or of an array."""

Kernel = Callable[..., Any]

# Sums may be taken in any order; NaN stays NaN.
_OPTIONS: dict[str, Any] = dict(nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


class _SharedCacheFile(IndexDataCacheFile):  # type: ignore[misc]  # Numba has no types
    """Numba's index of a kernel's files, one for each signature, with a lock for concurrent processes.

    Without the lock, two that save at once can give the same file to two signatures (numba/numba, issue 4807): every later
    process then calls a kernel with arrays that it was not made for. Where files cannot be written, kernels are compiled again.
    """

    def save(self, key: Any, data: Any) -> None:
        with suppress(OSError), self._lock():
            super().save(key, data)

    def load(self, key: Any) -> Any:
        with suppress(OSError), self._lock():
            return super().load(key)
        return None

    def _lock(self) -> AbstractContextManager[Any]:
        return FileLock(f"{self._cache_path}/fw_rl.lock").acquire(poll_interval=0.005)


def _kept(dispatcher: Kernel) -> Kernel:
    """Keep a kernel in a file."""
    dispatcher.enable_caching()  # type: ignore[attr-defined]
    dispatcher._cache._cache_file.__class__ = _SharedCacheFile  # type: ignore[attr-defined]
    return dispatcher


def compiled(kernel: Kernel) -> Kernel:
    """Decorator of a kernel, which is compiled at its first call, and kept in a file for later processes."""
    return _kept(njit(**_OPTIONS)(kernel))


def in_place(kernel: Kernel) -> Kernel:
    """As `compiled`, for a kernel that makes no arrays: without reference counts, which every slice would pay for."""
    return _kept(njit(**_OPTIONS | {"_nrt": False})(kernel))


def helper(function: Kernel) -> Kernel:
    """Decorator of a function that several kernels call: it is compiled once for all of them."""
    return njit(**_OPTIONS)(function)


def inlined(function: Kernel) -> Kernel:
    """Decorator of a loop that is inlined into its callers: the fastest way, but compiled again for each of them."""
    return njit(inline="always", **_OPTIONS)(function)


@inlined
def _tanh(x: Real) -> Real:
    """To 3e-7, in operations that vectorise: tanh(x) = 2 t / (1 + t^2) for t = tanh(x / 2).

    With u = (x / 2)^2, t = x / 2 p / q is the seventh convergent of Lambert's continued fraction z / (1 + z^2 / (3 + ...)).
    """
    one, half, most = np.float32(1), np.float32(0.5), np.float32(9)
    a = most if x > most else (-most if x < -most else x)  # NaN passes through
    u = (half * a) * (half * a)
    p = np.float32(135135) + u * (np.float32(17325) + u * (np.float32(378) + u))
    q = np.float32(135135) + u * (np.float32(62370) + u * (np.float32(3150) + u * np.float32(28)))
    y = a * p * q / (q * q + u * p * p)
    return one if y > one else (-one if y < -one else y)


@helper
def tanh(x: Array, out: Array) -> None:
    """tanh of x; `out` must be another array, or the loop does not vectorise. In float32 it is exact to 3e-7."""
    if x.itemsize == 4:
        for i in range(len(x)):
            out[i] = _tanh(x[i])
    else:
        for i in range(len(x)):
            out[i] = math.tanh(x[i])


@helper
def sigmoid(x: Array, out: Array) -> None:
    """As `tanh`."""
    half = x.dtype.type(0.5)
    if x.itemsize == 4:
        for i in range(len(x)):
            out[i] = half + half * _tanh(half * x[i])
    else:
        for i in range(len(x)):
            out[i] = half + half * math.tanh(half * x[i])


@helper
def add_product(scale: Real, matrix: Array, vector: Array, out: Array) -> None:
    """Add `scale` times matrix times vector, four rows at a time, so that the vector is fetched once for them."""
    rows, size, zero = len(matrix), len(vector), out.dtype.type(0)
    whole = rows // 4 * 4
    for i in range(0, whole, 4):
        a = b = c = d = zero
        for j in range(size):
            a += matrix[i, j] * vector[j]
            b += matrix[i + 1, j] * vector[j]
            c += matrix[i + 2, j] * vector[j]
            d += matrix[i + 3, j] * vector[j]
        out[i] += scale * a
        out[i + 1] += scale * b
        out[i + 2] += scale * c
        out[i + 3] += scale * d
    for i in range(whole, rows):
        a = zero
        for j in range(size):
            a += matrix[i, j] * vector[j]
        out[i] += scale * a


def first_derivative(backward: Kernel) -> Kernel:
    """Decorator of the `backward` of an `autograd.Function` whose kernels have no derivative themselves.

    RuntimeError with `create_graph=True`: Torch's `once_differentiable` would give zeros there, if nothing else has a graph.
    """

    @wraps(backward)
    def run(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled() and not is_traced():
            raise RuntimeError("create_graph must be False for the kernels of a cell; torch.func has its second derivatives")
        return backward(ctx, *gradients)

    return run


def arrays(*parts: Tensor) -> list[NDArray[Any]]:
    """The arrays that kernels take for tensors, in the same memory."""
    return [part.detach().numpy() for part in parts]


def array_of_starts(starts: Tensor | None) -> NDArray[np.bool_]:
    """Where rows start an episode, [T, B], as kernels take them: [0, 0] for nowhere."""
    return np.empty((0, 0), np.bool_) if starts is None else starts.contiguous().numpy()


def rows_that_start(starts: Tensor | None, steps: int) -> list[Tensor | None]:
    """For each step the rows [B] (bool) that start an episode, or None where none does."""
    if starts is None:
        return [None] * steps
    return [rows if some else None for rows, some in zip(starts, starts.any(dim=1).tolist(), strict=True)]


def is_traced() -> bool:
    """Whether operations are recorded instead of computed: by `torch.compile`, an export, `torch.jit.trace` or `torch.func`."""
    return peek_interpreter_stack() is not None or torch._C._is_tracing() or torch.compiler.is_compiling()


def can_run(*tensors: Tensor) -> bool:
    """Whether Numba's kernels can take these tensors: on the processor, all in float32 or all in float64, and not traced."""
    return _are_plain(tensors, "cpu")


def can_run_triton(*tensors: Tensor) -> bool:
    """Whether Triton's kernels can take these tensors: on a GPU, or where Triton's interpreter runs them on the processor."""
    return not is_traced() and _has_triton() and _are_plain(tensors, "cpu" if _is_interpreted() else "cuda")


def _are_plain(tensors: tuple[Tensor, ...], device: str) -> bool:
    """Whether kernels may read the numbers of tensors on a device, bypassing Torch."""
    if is_traced() or torch.is_autocast_enabled(device):
        return False
    dtype = tensors[0].dtype
    return dtype in (torch.float32, torch.float64) and all(
        part.device.type == device and part.dtype == dtype for part in tensors
    )


@cache
def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def are_cached(*kernels: Any) -> bool:
    """Whether an earlier process has compiled the kernels for float32 and for this processor; True where nobody can tell."""
    try:
        for kernel in kernels:
            machine = kernel.targetctx.codegen().magic_tuple()
            known = kernel._cache._cache_file._load_index()
            if not any(other == machine and "float32" in str(types) for types, other, _ in known):
                return False
    except Exception:  # Numba promises none of these names, nor that its file can be read
        return True
    return True
