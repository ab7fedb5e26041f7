"""The delta net on top of a linear recurrent unit."""

from __future__ import annotations

import torch
from torch import Tensor

from fw_rl.cells.base import Cell, State, Stepper, register_cell
from fw_rl.cells.delta_net import DeltaNetCell
from fw_rl.cells.lru import LRUCell
from fw_rl.kernels import Kernel

__all__ = ["LRUDeltaNetCell"]


@register_cell("lru-delta-net")
class LRUDeltaNetCell(Cell):
    """Fast weights that can be addressed by time as well as by content: a linear recurrence is part of what they see.

    One step, with the equations of `LRUCell`, and of `DeltaNetCell` without `shift`:

        r(t) = lru(x)(t)                                when it was
        y(t) = delta_net(x, r)(t)                       what it was, and when

    Keys, queries, values, rates and the skip of the delta net all see both. Yang et al. 2024 let them see the last few inputs
    through short convolutions. At the start the norm of the recurrence has a gain of 0.1, and queries and keys see only x(t):
    with more of the past in them, key-value pairs are learned several times more slowly.

    Modules: `recurrence` and `memory`. The state is h of the recurrence [B, 2, N], and A of the memory [B, heads, d, d].

    Args:
        input_size: Numbers I of an input.
        hidden_size: Units H.
        heads: As in `DeltaNetCell`.
        rule: As in `DeltaNetCell`.
        gated: As in `DeltaNetCell`.
        states: As in `LRUCell`.
        r_min: As in `LRUCell`.
        r_max: As in `LRUCell`.

    Raises:
        ValueError: If an option is outside its range.
    """

    attends = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        heads: int = 4,
        rule: str = "delta",
        gated: bool = False,
        states: int | None = None,
        r_min: float = 0.96,
        r_max: float = 0.999,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.recurrence = LRUCell(input_size, hidden_size, states=states, r_min=r_min, r_max=r_max)
        self.memory = DeltaNetCell(input_size + hidden_size, hidden_size, heads=heads, rule=rule, gated=gated, shift=False)
        with torch.no_grad():
            self.recurrence.norm.weight.fill_(0.1)
            addresses = 2 * heads * self.memory.units
            self.memory.input_map.weight[:addresses, input_size:] = 0.0

    def initial_state(self, batch_size: int) -> State:
        return self.recurrence.initial_state(batch_size) + self.memory.initial_state(batch_size)

    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        when, h = self.recurrence(x, state[:1], episode_starts)
        y, A = self.memory(torch.cat([x, when], dim=2), state[1:], episode_starts)
        return y, h + A

    def stepper(self, state: State) -> Stepper:
        return _LRUDeltaNetStepper(self, state)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        return self.recurrence.kernels(replays) + self.memory.kernels(replays)

    def attention(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> Tensor:
        """That of the delta net, [T, B, T]; no gradient.

        Args:
            x: Inputs, [T, B, I].
            state: The state before them, which is not part of the sequence and is left out.
            episode_starts: Where rows start an episode, [T, B] bool, or None.
        """
        with torch.no_grad():
            when, _ = self.recurrence(x, state[:1], episode_starts)
        return self.memory.attention(torch.cat([x, when], dim=2), state[1:], episode_starts)


class _LRUDeltaNetStepper(Stepper):
    def __init__(self, cell: LRUDeltaNetCell, state: State) -> None:
        self.recurrence, self.memory = cell.recurrence.stepper(state[:1]), cell.memory.stepper(state[1:])

    @property
    def state(self) -> State:
        return self.recurrence.state + self.memory.state

    @torch.no_grad()
    def step(self, x: Tensor, episode_starts: Tensor) -> Tensor:
        when = self.recurrence.step(x, episode_starts)
        return self.memory.step(torch.cat([x, when], dim=1), episode_starts)
