"""Numbers that arrive step by step, kept on the policy's device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

__all__ = ["StepStorage"]


class StepStorage:
    """A tensor [T, B, ...] on a device that is written step by step, from NumPy or from the device itself.

    On the processor NumPy writes into the tensor's own memory. To a GPU each step goes in one asynchronous copy from
    page-locked memory. The next write cannot overtake it, since every step waits for the actions of the policy.
    """

    def __init__(
        self, n_steps: int, n_envs: int, shape: tuple[int, ...], dtype: DTypeLike | None, device: torch.device | str = "cpu"
    ) -> None:
        host = torch.from_numpy(np.zeros((n_steps, n_envs, *shape), dtype))
        self.tensor = host.to(device)
        self._is_on_host = self.tensor.device.type == "cpu"
        self._staged = host[:1].clone() if n_steps else host
        self._open()

    def _open(self) -> None:
        """Make the array that NumPy writes into, in the memory of a tensor."""
        if self.tensor.is_cuda:
            self._staged = self._staged.pin_memory()
        self._array = (self.tensor if self._is_on_host else self._staged).numpy()

    def __getstate__(self) -> dict[str, Any]:
        """Without the array, which a copy would separate from its tensor."""
        return {name: value for name, value in vars(self).items() if name != "_array"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def write(self, step: int, numbers: NDArray[np.generic] | Tensor) -> Tensor:
        """Keep the numbers [B, ...] of a step, and return them as a tensor on the device."""
        row = self.tensor[step]
        if isinstance(numbers, Tensor):
            row.copy_(numbers)
        elif self._is_on_host:
            self._array[step] = numbers
        else:
            self._array[0] = numbers
            row.copy_(self._staged[0], non_blocking=True)
        return row

    def numpy(self) -> NDArray[np.generic]:
        """Everything in NumPy: on the processor the same memory, else a copy."""
        return self._array if self._is_on_host else self.tensor.numpy(force=True)
