"""Fast weights on the processor, compiled by Numba: a sequence with its gradient, and a memory written in place while acting.

It is the compiled form (`fast_weights_kernels`) of `FastWeightsCell`, for Hebb's rule and method 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fw_rl import memory
from fw_rl.cells.backends import Backend, register_backend
from fw_rl.cells.base import State, Stepper, check_rows
from fw_rl.cells.fast_weights import FastWeightsCell
from fw_rl.cells.fast_weights_function import (
    Constants,
    FastWeightsFunction,
    Script,
    Weights,
    episode_first_steps,
    matrix_of,
    room_to_settle,
    written,
)
from fw_rl.cells.fast_weights_kernels import run_back, run_forward, step_forward
from fw_rl.kernels import Kernel, can_run
from fw_rl.memory import Memory

__all__ = ["NumbaFastWeights"]

_LONGEST = 64
"""Steps of a sequence that are read one by one before they are folded into a matrix, at least."""


@register_backend(FastWeightsCell)
class NumbaFastWeights(Backend[FastWeightsCell]):
    """Kernels for the processor."""

    def can_run(self, cell: FastWeightsCell, *tensors: Tensor) -> bool:
        learned = cell.log_eta is not None or cell.logit_decay is not None
        as_published = cell.rule == "hebb" and cell.method == 1 and cell.norm_placement == "sum"
        return as_published and not learned and cell.has_known_modules and can_run(cell.recurrent_map.weight, *tensors)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        return (step_forward, run_back) if replays else (step_forward, run_forward, run_back)

    def sequence(
        self, cell: FastWeightsCell, x: Tensor, state: State, episode_starts: Tensor | None, **signals: Tensor | None
    ) -> tuple[Tensor, State]:
        gate, wipe = signals.get("write_gate"), signals.get("wipe")
        if len(x) == 1 and gate is None and wipe is None and not torch.is_grad_enabled():
            stepper = _FastWeightsStepper(cell, state)
            none = torch.zeros(x.shape[1], dtype=torch.bool)
            y = stepper.step(x[0], none if episode_starts is None else episode_starts[0])
            return y.unsqueeze(0).clone(), stepper.state
        write = x.new_full(x.shape[:2], float(cell.eta))
        write = write if gate is None else write * gate
        y, fast, length = _run(cell, x, state, episode_starts, write, wipe)
        last = slice(len(x) - length, None)
        fast = _after(cell, fast, y[last], write[last], None if episode_starts is None else episode_starts[last])
        return y, cell.pack(y[-1].clone() if wipe is None else y[-1].masked_fill(wipe[-1, :, None], 0.0), fast)

    def replay(
        self, cell: FastWeightsCell, x: Tensor, state: State, episode_starts: Tensor | None, outputs: Tensor | None
    ) -> Tensor:
        write = x.new_full(x.shape[:2], float(cell.eta))
        return _run(cell, x, state, episode_starts, write, outputs=outputs)[0]

    def stepper(self, cell: FastWeightsCell, state: State) -> Stepper:
        return _FastWeightsStepper(cell, state)


def _weights(cell: FastWeightsCell) -> Weights:
    weight, norm = cell.recurrent_map.weight, cell.norm
    none = weight.new_empty(0)
    return Weights(weight, norm.weight, norm.bias) if isinstance(norm, nn.LayerNorm) else Weights(weight, none, none)


def _constants(cell: FastWeightsCell) -> Constants:
    eps = cell.norm.eps if isinstance(cell.norm, nn.LayerNorm) else 0.0
    lasting = np.iinfo(np.int32).max if cell.has_matrix else cell.length
    return Constants(eps, float(cell.decay), cell.inner_steps, cell.activation == "tanh", int(lasting))


class _FastWeightsStepper(Stepper):
    """Acts with a memory that is written in place.

    There is room for more writes than a state has. When it is full, the writes are folded into the matrix, or, where older ones
    are lost in rounding, the latest move to the front.
    """

    cell: FastWeightsCell
    _faded: Tensor

    @torch.no_grad()
    def __init__(self, cell: FastWeightsCell, state: State) -> None:
        self.cell, self._constants = cell, _constants(cell)
        self._h, fast = cell.unpack(tuple(part.detach() for part in state))
        capacity = cell.length + 1 if cell.has_matrix else 2 * cell.length + 1
        self._keys = self._h.new_empty(len(self._h), capacity, cell.hidden_size)
        self._strengths = self._h.new_empty(len(self._h), capacity)
        self._room = room_to_settle(self._h, cell.inner_steps)
        self._hold(_without_nothing(fast))

    @property
    def state(self) -> State:
        return self.cell.pack(self._h, self._memory)

    @torch.no_grad()
    def step(self, x: Tensor, episode_starts: Tensor) -> Tensor:
        check_rows(x.shape[:1], (self._h,), episode_starts)
        cell, constants = self.cell, self._constants
        if episode_starts.any():
            self._forget(episode_starts)
        weights = Weights(*(part.detach() for part in _weights(cell)))
        boundary = torch.addmm(cell.input_map(x), self._h, weights.recurrent.T)
        self._h = torch.empty_like(boundary)
        write = np.full(len(x), cell.eta, dtype=boundary.numpy().dtype)
        fast: tuple[Any, ...] = (self._keys.numpy(), self._strengths.numpy(), self._matrix.numpy(), self._faded.numpy())
        net: tuple[Any, ...] = (*weights.arrays()[1:], *constants[:-1])
        first = max(self._count - constants.lasting, 0)
        step_forward(boundary.numpy(), *fast, first, self._count, write, *net, *self._room, self._h.numpy())
        self._count += 1
        if self._matrix.shape[1]:
            self._faded = self._faded * constants.decay  # anew: what a state was made of stays as it is
        if self._count == self._keys.shape[1]:
            self._hold(memory.fold(self._memory) if cell.has_matrix else memory.recent(self._memory, cell.length))
        return self._h

    @property
    def _memory(self) -> Memory:
        """The fast weights now; later steps do not change it."""
        kept = slice(max(self._count - self._constants.lasting, 0), self._count)
        keys, strengths = self._keys[:, kept].clone(), self._strengths[:, kept].clone()
        if not self._matrix.shape[1]:
            return Memory(keys, strengths)
        # What an episode start has left in the matrix may even be infinite.
        matrix = self._matrix.masked_fill(self._faded.eq(0)[:, None, None], 0.0)
        return Memory(keys, strengths, None, matrix, self._faded)

    def _hold(self, fast: Memory) -> None:
        self._count = fast.keys.shape[1]
        self._keys[:, : self._count] = fast.keys
        self._strengths[:, : self._count] = fast.strengths
        self._matrix, self._faded = (part.contiguous() for part in matrix_of(fast))

    def _forget(self, rows: Tensor) -> None:
        if rows.all():
            self._hold(memory.empty(len(rows), self.cell.hidden_size, like=self._h))
            self._h = torch.zeros_like(self._h)
            return
        self._h = self._h.masked_fill(rows[:, None], 0.0)
        self._keys[rows, : self._count] = 0.0
        self._strengths[rows, : self._count] = 0.0
        self._faded = self._faded.masked_fill(rows, 0.0)


def _run(
    cell: FastWeightsCell,
    x: Tensor,
    state: State,
    starts: Tensor | None,
    write: Tensor,
    wipes: Tensor | None = None,
    outputs: Tensor | None = None,
) -> tuple[Tensor, Memory, int]:
    """Every h(t) [T, B, H], the memory before the last stretch of steps, and the length of that."""
    h, fast = cell.unpack(state)
    fast = _without_nothing(fast)
    lengths = _stretches(len(x), max(cell.window, _LONGEST), fast.keys.shape[1]) if cell.has_matrix else [len(x)]
    before = (h, fast.keys, fast.strengths, *matrix_of(fast))
    script = (write, starts, wipes, outputs, _constants(cell), lengths)
    y, *folded = FastWeightsFunction.apply(cell.input_map(x), *_weights(cell), *before, *script)
    if len(lengths) > 1:
        fast = Memory(fast.keys[:, :0], fast.strengths[:, :0], None, *folded)
    return y, fast, lengths[-1]


def _stretches(steps: int, room: int, pending: int) -> list[int]:
    """The steps run at a time: the first fill the room that the pending writes leave, the others all of it."""
    first = min(steps, room - pending if pending < room else room)
    whole, rest = divmod(steps - first, room)
    return [first, *[room] * whole, *[rest] * (rest > 0)]


def _after(cell: FastWeightsCell, fast: Memory, outputs: Tensor, write: Tensor, starts: Tensor | None) -> Memory:
    """The memory after the last steps of a sequence."""
    first_steps = episode_first_steps(starts, *write.shape)[-1]
    if not cell.has_matrix and len(write) > cell.length:  # what is older is lost in rounding
        first_steps = np.maximum(first_steps - (len(write) - cell.length), -1)
        outputs, write = outputs[-cell.length :], write[-cell.length :]
    if (first_steps >= 0).all():  # nothing of what was before is left
        fast = memory.empty(len(first_steps), cell.hidden_size, like=outputs)
    script = Script(write.numpy(), first_steps[None], np.empty(0, dtype=bool))
    fast = written(fast, outputs, script, float(cell.decay))
    return _without_nothing(fast) if cell.has_matrix else fast


def _without_nothing(fast: Memory) -> Memory:
    """The memory without writes and matrix that are empty in every row; unchanged if it has a gradient."""
    if any(part is not None and part.requires_grad for part in fast[1:]):
        return fast
    written = np.flatnonzero(fast.strengths.numpy().any(axis=0))
    fast = memory.recent(fast, fast.strengths.shape[1] - int(written[0]) if len(written) else 0)
    if fast.faded is None or fast.faded.any():
        return fast
    return fast._replace(matrix=None, faded=None)
