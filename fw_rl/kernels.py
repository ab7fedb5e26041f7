"""What the compiled forms of the cells share: Numba's options, and when a kernel can take the place of plain Torch.

Numba's kernels run on the processor, Triton's (`fw_rl.gpu`) on a GPU; everywhere else, and where Torch has to see every
operation, it is plain Torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

__all__ = ["Array", "Kernel", "Real", "are_cached", "can_run", "can_run_triton", "compiled", "helper", "in_place", "inlined"]

Array = NDArray[np.floating]
Real = float | np.floating
"""A number, of Python or of an array."""

Kernel = Callable[..., Any]

# Sums may be taken in any order; not a number stays not a number.
_OPTIONS: dict[str, Any] = dict(nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


def compiled(kernel: Kernel) -> Kernel:
    """Decorator of a kernel, which is made when it is first called, and kept in a file for later processes."""
    return njit(cache=True, **_OPTIONS)(kernel)


def in_place(kernel: Kernel) -> Kernel:
    """As `compiled`, of a kernel that makes no arrays: without counts of references, which every slice would pay for."""
    return njit(cache=True, _nrt=False, **_OPTIONS)(kernel)


def helper(function: Kernel) -> Kernel:
    """Decorator of what several kernels call: it is made once for all of them."""
    return njit(**_OPTIONS)(function)


def inlined(function: Kernel) -> Kernel:
    """Decorator of a loop that becomes part of what calls it: as fast as can be, but made again for each of these."""
    return njit(inline="always", **_OPTIONS)(function)


def can_run(*tensors: Tensor) -> bool:
    """Whether Numba's kernels can take these tensors: on the processor, in float32 or float64, and seen by nobody."""
    return _are_plain(tensors, "cpu")


def can_run_triton(*tensors: Tensor) -> bool:
    """Whether Triton's kernels can take these tensors: on a GPU, or where Triton's interpreter runs them on the processor."""
    return _are_plain(tensors, "cpu" if _is_interpreted() else "cuda") and _has_triton()


def _are_plain(tensors: tuple[Tensor, ...], device: str) -> bool:
    """Whether Torch need not see operations, as it has to under `torch.func`, `torch.compile`, autocast and for an export."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(device):
        return False
    return all(
        part.device.type == device and part.dtype in (torch.float32, torch.float64) and not is_functorch_wrapped_tensor(part)
        for part in tensors
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
