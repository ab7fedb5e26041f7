"""The delta net on a GPU: its memory by Triton's kernels (`fw_rl.gpu.delta_rule`), the rest in Torch."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from fw_rl.cells.backends import Backend, register_backend
from fw_rl.cells.base import State
from fw_rl.cells.delta_net import DeltaNetCell
from fw_rl.kernels import can_run_triton

__all__ = ["TritonDeltaNet"]

_LARGEST_KEY = 512
"""Bytes of a key, at most: then what a program holds fits into the shared memory of every GPU from Ampere on."""


@register_backend(DeltaNetCell)
class TritonDeltaNet(Backend[DeltaNetCell]):
    """Kernels for a GPU, for heads of up to 128 units, 64 in float64."""

    def can_run(self, cell: DeltaNetCell, *tensors: Tensor) -> bool:
        weight = cell.output_map.weight
        return cell.units * weight.element_size() <= _LARGEST_KEY and can_run_triton(weight, *tensors)

    def sequence(
        self, cell: DeltaNetCell, x: Tensor, state: State, episode_starts: Tensor | None, **signals: Tensor | None
    ) -> tuple[Tensor, State]:
        from fw_rl.gpu.delta_rule import write_and_read

        return cell.run(partial(cell.remember, write_and_read=write_and_read), x, state, episode_starts)
