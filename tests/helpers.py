"""What tests of several places ask of the system."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


def processes_of_session(session):
    """The processes of a session that are alive."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_session) == session and state not in "ZX":
            found.append(int(folder.name))
    return found


WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal")
"""Operations of which the host has to see a result: on a GPU it waits for them."""
TO_HOST = ("cpu", "numpy", "tolist", "item", "__array__", "__bool__", "__float__", "__int__", "__index__")


class _OnDevice(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = [part for part in args[1] if part is not None] if str(func) == "aten.index.Tensor" else []
        waits = str(func).startswith(WAITING) or any(part.dtype == torch.bool for part in masks)
        assert not waits, f"{func} makes the host wait for the device"
        return func(*args, **(kwargs or {}))


class _NothingMoves(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        assert name not in TO_HOST, f"{name} brings a tensor to the host"
        assert not (args and isinstance(args[0], np.ndarray)), f"{name} brings an array to the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def no_downloads():
    """AssertionError where tensors are brought to the host or NumPy's arrays to the device, or where the host waits."""
    with _OnDevice(), _NothingMoves():
        yield
