"""Cells in layers on top of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from fw_rl.cells.base import Cell, State, Stepper
from fw_rl.kernels import Kernel

__all__ = ["Stack"]


class Stack(Cell):
    """Cells in layers, each of which adds to the one below a function of its normalised outputs:

        y_1(t) = cell_1(x)(t)
        y_l(t) = y_{l-1}(t) + cell_l(layer_norm(y_{l-1}))(t)                    l = 2 .. L
        y(t)   = y_L(t)

    The norm comes before a cell, as in S5 (Smith et al. 2023), so that gradients reach every layer. The first layer sees its
    input unchanged, as if it were alone. The state is that of all layers, one after the other.

    Args:
        cells: The cells from bottom to top; all have the same number of outputs, and those above the first as many inputs.

    Raises:
        ValueError: If there is no cell, or the sizes of one do not fit.

    Examples:
        >>> stack = Stack([make_cell("gru", 3, 8), make_cell("lru", 8, 8)])
        >>> y, state = stack(torch.zeros(5, 2, 3), stack.initial_state(2))
        >>> y.shape, len(state)
        (torch.Size([5, 2, 8]), 2)
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        if not cells:
            raise ValueError("cells must be at least one, got none")
        size = cells[0].hidden_size
        for cell in cells[1:]:
            if (cell.input_size, cell.hidden_size) != (size, size):
                raise ValueError(f"a cell above the first must have {size} inputs and outputs, got {cell}")
        super().__init__(cells[0].input_size, size)
        self.layers = nn.ModuleList(cells)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in cells[1:])
        self.attends = any(cell.attends for cell in cells)
        self._lengths = [len(cell.initial_state(1)) for cell in cells]

    @property
    def cells(self) -> list[Cell]:
        """The cells from the bottom to the top."""
        return list(self.layers)  # type: ignore[arg-type]

    def initial_state(self, batch_size: int) -> State:
        return tuple(chain.from_iterable(cell.initial_state(batch_size) for cell in self.cells))

    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        states = self.split(state)

        def run(layer: int, seen: Tensor) -> Tensor:
            y, states[layer] = self.cells[layer](seen, states[layer], episode_starts)
            return y

        return self.climb(x, run), tuple(chain.from_iterable(states))

    def climb(self, x: Tensor, run: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The outputs of the last layer.

        Args:
            x: Inputs of the first.
            run: A function from the number of a layer and its inputs to the cell's outputs.
        """
        y = run(0, x)
        for layer, norm in enumerate(self.norms, start=1):
            y = y + run(layer, norm(y))
        return y

    def split(self, state: State) -> list[State]:
        """The state of each layer.

        Args:
            state: That of all.
        """
        parts = iter(state)
        return [tuple(islice(parts, length)) for length in self._lengths]

    def stepper(self, state: State) -> Stepper:
        return _StackStepper(self, state)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        every = (cell.kernels(replays=False) for cell in self.cells)
        return tuple(dict.fromkeys(chain.from_iterable(every)))

    def attention(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> Tensor:
        """The mean over the layers that attend, [T, B, T]; no gradient.

        Args:
            x: Inputs, [T, B, I].
            state: The state before them, which is not part of the sequence and is left out.
            episode_starts: Where rows start an episode, [T, B] bool, or None.
        """
        if not self.attends:
            return super().attention(x, state, episode_starts)
        runs = self._runs(x, state, episode_starts)
        return torch.stack([cell.attention(*given) for cell, *given in runs if cell.attends]).mean(0)

    @property
    def has_diagnostics(self) -> bool:
        return any(cell.has_diagnostics for cell in self.cells)

    def diagnostics(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> dict[str, float]:
        runs = enumerate(self._runs(x, state, episode_starts), start=1)
        numbers = {layer: cell.diagnostics(*given) for layer, (cell, *given) in runs}
        return {f"layer{layer}_{name}": number for layer, own in numbers.items() for name, number in own.items()}

    @torch.no_grad()
    def _runs(self, x: Tensor, state: State, episode_starts: Tensor | None) -> list[tuple[Any, ...]]:
        """The cell of each layer, and the arguments of its call."""
        states, runs = self.split(state), []

        def run(layer: int, seen: Tensor) -> Tensor:
            runs.append((self.cells[layer], seen, states[layer], episode_starts))
            return self.cells[layer](seen, states[layer], episode_starts)[0]

        self.climb(x, run)
        return runs


class _StackStepper(Stepper):
    cell: Stack

    def __init__(self, cell: Stack, state: State) -> None:
        self.cell = cell
        self.steppers = [own.stepper(part) for own, part in zip(cell.cells, cell.split(state), strict=True)]

    @property
    def state(self) -> State:
        return tuple(chain.from_iterable(stepper.state for stepper in self.steppers))

    @torch.no_grad()
    def step(self, x: Tensor, episode_starts: Tensor) -> Tensor:
        return self.cell.climb(x, lambda layer, seen: self.steppers[layer].step(seen, episode_starts))
