"""Fast weights on a GPU: the steps by Triton's kernels (`fw_rl.gpu.fast_weights`), what they leave in the memory in Torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fw_rl import memory
from fw_rl.cells.backends import Backend, register_backend
from fw_rl.cells.base import State
from fw_rl.cells.fast_weights import FastWeightsCell
from fw_rl.kernels import can_run_triton
from fw_rl.memory import Memory

__all__ = ["TritonFastWeights"]

_LARGEST_SIZE = 1024
"""Units that a program holds."""

_LONGEST = 128
"""Steps of a sequence that are read one by one before they are folded into a matrix, or forgotten where they are lost."""

_NEVER = 2**30
"""Steps until a write is lost in rounding, where none ever is."""


@register_backend(FastWeightsCell)
class TritonFastWeights(Backend[FastWeightsCell]):
    """Kernels for a GPU, for up to 1,024 units."""

    def can_run(self, cell: FastWeightsCell, *tensors: Tensor) -> bool:
        fits = cell.hidden_size <= _LARGEST_SIZE and cell.has_known_modules
        return fits and can_run_triton(cell.recurrent_map.weight, *tensors)

    def sequence(
        self, cell: FastWeightsCell, x: Tensor, state: State, episode_starts: Tensor | None, **signals: Tensor | None
    ) -> tuple[Tensor, State]:
        gate, wipe = signals.get("write_gate"), signals.get("wipe")
        starts = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device) if episode_starts is None else episode_starts
        write = x.new_ones(x.shape[:2]) * cell.eta
        write = write if gate is None else write * gate
        decay, driven, outputs = torch.as_tensor(cell.decay, dtype=x.dtype, device=x.device), cell.input_map(x), []
        for begin in range(0, len(x), _LONGEST):
            steps = slice(begin, begin + _LONGEST)
            own_wipe = None if wipe is None else wipe[steps]
            y, state = _stretch(cell, driven[steps], state, starts[steps], write[steps], decay, own_wipe)
            outputs.append(y)
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0], state


def _stretch(
    cell: FastWeightsCell, driven: Tensor, state: State, starts: Tensor, write: Tensor, decay: Tensor, wipe: Tensor | None
) -> tuple[Tensor, State]:
    """h(t) of some steps [T, B, H], and the state after them."""
    from fw_rl.gpu import fast_weights as gpu

    h, fast = cell.unpack(state)
    clock = torch.arange(len(driven), device=driven.device, dtype=torch.int32)
    first_steps = torch.where(starts, clock.unsqueeze(1), -1).cummax(dim=0).values
    cut = starts if wipe is None else torch.cat([starts[:1], starts[1:] | wipe[:-1]])
    keys, strengths = fast.keys.transpose(0, 1), fast.strengths.T
    past = gpu.Past(keys if fast.values is None else fast.values.transpose(0, 1), keys, strengths, fast.matrix, fast.faded)
    norm = (cell.norm.weight, cell.norm.bias) if isinstance(cell.norm, nn.LayerNorm) else (None, None)
    options = gpu.Options(
        inner_steps=cell.inner_steps,
        eps=cell.norm.eps if isinstance(cell.norm, nn.LayerNorm) else None,
        norm_placement=cell.norm_placement,
        method=cell.method,
        rule=cell.rule,
        activation=cell.activation,
        lasting=_NEVER if cell.has_matrix else cell.length,
    )
    y, values, keys = gpu.run(driven, (cell.recurrent_map.weight, *norm), h, past, write, decay, first_steps, cut, options)
    after = _after(fast, values, keys, write * decay ** clock.flip(0).unsqueeze(1), decay ** len(driven), first_steps[-1])
    last = y[-1].clone() if wipe is None else y[-1].masked_fill(wipe[-1, :, None], 0.0)
    return y, cell.pack(last, after)


def _after(fast: Memory, values: Tensor, keys: Tensor, strengths: Tensor, left: Tensor, begin: Tensor) -> Memory:
    """The memory after steps that wrote values and keys [T, B, H].

    `strengths` [T, B] is what is left of them, `left` of the memory before them, and `begin` [B] where the last episode began.
    """
    gone = torch.arange(len(keys), device=keys.device).unsqueeze(1) < begin
    fast = memory.fade(memory.forget(fast, begin >= 0), left)
    keys, values = (part.masked_fill(gone.unsqueeze(2), 0.0).transpose(0, 1) for part in (keys, values))
    return fast._replace(
        keys=torch.cat([fast.keys, keys], dim=1),
        strengths=torch.cat([fast.strengths, strengths.masked_fill(gone, 0.0).T], dim=1),
        values=None if fast.values is None else torch.cat([fast.values, values], dim=1),
    )
