"""Two cells side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from fw_rl.cells.base import Cell, State, Stepper
from fw_rl.kernels import Kernel

__all__ = ["CellPair"]


class CellPair(Cell):
    """Two cells of one kind as one: each sees its half of the inputs, has its part of the state and gives half of the outputs.

    An actor and a critic can thus remember separately. Nothing passes from one cell to the other.

    Args:
        first: The cell of the first half.
        second: The cell of the second half.

    Raises:
        ValueError: If the cells differ in kind or sizes.

    Examples:
        >>> pair = CellPair(make_cell("gru", 3, 8), make_cell("gru", 3, 8))
        >>> y, state = pair(torch.zeros(5, 2, 6), pair.initial_state(2))
        >>> y.shape
        torch.Size([5, 2, 16])
    """

    def __init__(self, first: Cell, second: Cell) -> None:
        kinds = [(type(cell), cell.input_size, cell.hidden_size) for cell in (first, second)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"second must be a cell of the kind and the sizes of the first, {first}, got {second}")
        super().__init__(first.input_size + second.input_size, first.hidden_size + second.hidden_size)
        self.first, self.second = first, second
        self._length = len(first.initial_state(1))

    def initial_state(self, batch_size: int) -> State:
        return self.first.initial_state(batch_size) + self.second.initial_state(batch_size)

    def _split(self, state: State) -> tuple[State, State]:
        """The states of both cells, which may have options of their own."""
        return state[: self._length], state[self._length :]

    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        (x1, x2), (state1, state2) = _halves(x), self._split(state)
        y1, state1 = self.first(x1, state1, episode_starts)
        y2, state2 = self.second(x2, state2, episode_starts)
        return torch.cat([y1, y2], dim=-1), state1 + state2

    def replay(self, x: Tensor, state: State, episode_starts: Tensor | None, outputs: Tensor | None) -> Tensor:
        (x1, x2), (state1, state2) = _halves(x), self._split(state)
        outputs1, outputs2 = (None, None) if outputs is None else _halves(outputs)
        y1 = self.first.replay(x1, state1, episode_starts, outputs1)
        y2 = self.second.replay(x2, state2, episode_starts, outputs2)
        return torch.cat([y1, y2], dim=-1)

    def stepper(self, state: State) -> Stepper:
        self.check_state(state)
        return _PairStepper(self, state)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        return tuple(dict.fromkeys(self.first.kernels(replays) + self.second.kernels(replays)))

    @property
    def has_diagnostics(self) -> bool:
        return self.first.has_diagnostics or self.second.has_diagnostics

    def diagnostics(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> dict[str, float]:
        (x1, x2), (state1, state2) = _halves(x), self._split(state)
        of_first = self.first.diagnostics(x1, state1, episode_starts).items()
        of_second = self.second.diagnostics(x2, state2, episode_starts).items()
        return {f"first_{name}": value for name, value in of_first} | {f"second_{name}": value for name, value in of_second}


class _PairStepper(Stepper):
    def __init__(self, cell: CellPair, state: State) -> None:
        state1, state2 = cell._split(state)
        self.first, self.second = cell.first.stepper(state1), cell.second.stepper(state2)

    @property
    def state(self) -> State:
        return self.first.state + self.second.state

    @torch.no_grad()
    def step(self, x: Tensor, episode_starts: Tensor) -> Tensor:
        x1, x2 = _halves(x)
        return torch.cat([self.first.step(x1, episode_starts), self.second.step(x2, episode_starts)], dim=-1)


def _halves(features: Tensor) -> tuple[Tensor, Tensor]:
    """Split [..., 2 N] into two of [..., N]."""
    first, second = features.chunk(2, dim=-1)
    return first, second
