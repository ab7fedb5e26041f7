"""Other forms of the state of fast weights, each of a fixed shape, for who stores it or sends it around."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fw_rl import memory
from fw_rl.cells.base import Cell, State
from fw_rl.memory import Memory

if TYPE_CHECKING:
    from fw_rl.cells.fast_weights import FastWeightsCell

__all__ = ["MatrixCell", "RecentCell", "pack", "unpack"]


def pack(h: Tensor, fast: Memory) -> State:
    """The state of a `FastWeightsCell`: h and the parts of its memory that there are."""
    return (h, *(part for part in fast if part is not None))


def unpack(state: State) -> tuple[Tensor, Memory]:
    """h and the memory of a state."""
    return state[0], Memory(*state[1:])


class MatrixCell(Cell):
    """A fast-weight cell whose state is h [B, H] and the matrix A [B, H, H]."""

    def __init__(self, cell: FastWeightsCell) -> None:
        super().__init__(cell.input_size, cell.hidden_size)
        self.cell = cell

    def initial_state(self, batch_size: int) -> State:
        blank = self.cell.recurrent_map.weight.new_zeros
        return blank(batch_size, self.hidden_size), blank(batch_size, self.hidden_size, self.hidden_size)

    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        h, matrix = state
        blank = memory.empty(h.shape[0], self.hidden_size, separate_values=self.cell.rule != "hebb", like=h)
        state = pack(h, blank._replace(matrix=matrix))
        y, state = _go_on(self.cell, x, state, episode_starts, window=0)
        h, fast = unpack(state)
        return y, (h, memory.fold(fast, self.cell.decay).matrix if fast.keys.shape[1] else fast.matrix)


class RecentCell(Cell):
    """A fast-weight cell whose state is its last K hidden vectors [B, K, H], the latest last.

    They are h and A in one: with Hebb's rule, A is the sum of eta * decay**j * h(t-j) h(t-j)^T over the steps (Ba16 Eq. 1).
    """

    def __init__(self, cell: FastWeightsCell, length: float) -> None:
        super().__init__(cell.input_size, cell.hidden_size)
        self.cell, self.length = cell, int(length)

    def initial_state(self, batch_size: int) -> State:
        return (self.cell.recurrent_map.weight.new_zeros(batch_size, self.length, self.hidden_size),)

    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        (recent,) = state
        ages = torch.arange(self.length - 1, -1, -1, dtype=recent.dtype, device=recent.device)
        strengths = (self.cell.eta * self.cell.decay**ages).expand(len(recent), -1)
        blank = recent.new_zeros(len(recent), 0, 0)
        before = pack(recent[:, -1], Memory(blank, recent, strengths))
        y, _ = _go_on(self.cell, x, before, episode_starts, window=self.length + 1)
        hidden = torch.cat([recent, y.transpose(0, 1)], dim=1)
        if episode_starts is not None:
            episode = nn.functional.pad(episode_starts.T.cumsum(1), (self.length, 0))
            hidden = hidden.masked_fill((episode < episode[:, -1:]).unsqueeze(2), 0.0)
        return y, (hidden[:, -self.length :],)


def _go_on(cell: FastWeightsCell, x: Tensor, state: State, starts: Tensor | None, window: int) -> tuple[Tensor, State]:
    """What the cell does; one step in plain Torch with its own `window`, which is faster than a kernel and can be exported."""
    if len(x) > 1:
        return cell(x, state, starts)  # type: ignore[no-any-return]
    ((h, _, state),) = cell._unroll(x, state, starts, window=window)
    return h.unsqueeze(0), state
