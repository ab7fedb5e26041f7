"""The protocol that every memory cell follows, and the registry that gives cells their names."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fw_rl.modules import import_for

__all__ = [
    "Cell",
    "State",
    "Stepper",
    "available_cells",
    "find_cell",
    "make_cell",
    "register_cell",
    "reset_rows",
    "scaled_identity_",
]

State = tuple[Tensor, ...]


class Cell(nn.Module, ABC):
    """A recurrent layer that can start new episodes inside a sequence.

    A call maps x [T, B, I] to y [T, B, H] and carries a state, a tuple of tensors with the batch first. One call of T steps, T
    calls of one step and any split in between give the same numbers. A state may be detached, moved, saved, and indexed by row;
    its tensors need not have the same shapes from call to call.

    >>> cell = make_cell("fast-weights", input_size=3, hidden_size=8)
    >>> state = cell.initial_state(batch_size=2)
    >>> y, state = cell(torch.zeros(5, 2, 3), state)
    >>> y.shape
    torch.Size([5, 2, 8])
    """

    attends = False  # whether there is a method `attention`, as FastWeightsCell has it

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if size < 1:
                raise ValueError(f"{name} is {size}: it must be at least 1")
        self.input_size = input_size
        self.hidden_size = hidden_size

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state at the start of an episode for `batch_size` rows, on the cell's device and of its dtype."""

    @abstractmethod
    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        """Run the cell over a sequence.

        `x`: [T, B, I]. `state`: from `initial_state` or an earlier call. `episode_starts`: [T, B] bool, True where row b starts
        a new episode, so that its state is reset before step t; None where none does. Returns y [T, B, H] and the new state.
        """

    def replay(self, x: Tensor, state: State, episode_starts: Tensor | None, outputs: Tensor) -> Tensor:
        """The outputs [T, B, H] of `forward` again, with their gradient, when acting has already found their values.

        `outputs`: [T, B, H], what `forward` gave, in one call or in many, for the same x, state and parameters. A cell that can
        use them saves the sequential pass; the others run it. The gradient is the same.
        """
        return self(x, state, episode_starts)[0]

    def stepper(self, state: State) -> Stepper:
        """What acts from this state on, step by step and without gradient; the state itself is left as it is."""
        return Stepper(self, state)

    def with_fixed_state(self) -> Cell:
        """The same net, on the same parameters, with a state whose tensors keep their shapes from call to call.

        It is what runs elsewhere, such as in ONNX: one step of it, without `episode_starts`, is plain Torch without branches.
        """
        return self

    def with_compact_state(self) -> Cell:
        """The same net, on the same parameters, with a fixed state of as few numbers as there are: for one that is sent about.

        It may leave out what float32 cannot tell from nothing.
        """
        return self.with_fixed_state()

    def diagnostics(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> dict[str, float]:
        """Numbers that say what the memory does on a sequence, by name, for logging; a cell with nothing to say returns {}."""
        return {}

    def extra_repr(self) -> str:
        return f"input_size={self.input_size}, hidden_size={self.hidden_size}"


class Stepper:
    """A cell that acts: it keeps the state, and may keep it in a form that is faster to write.

    >>> stepper = make_cell("lstm", input_size=3, hidden_size=8).stepper(state)  # doctest: +SKIP
    >>> y = stepper.step(x, episode_starts)  # doctest: +SKIP
    """

    def __init__(self, cell: Cell, state: State) -> None:
        self.cell, self._state = cell, state

    @property
    def state(self) -> State:
        """The state now, as the cell takes it; later steps do not change it."""
        return self._state

    @torch.no_grad()
    def step(self, x: Tensor, episode_starts: Tensor) -> Tensor:
        """y [B, H] for x [B, I] and `episode_starts` [B] (bool)."""
        y, self._state = self.cell(x.unsqueeze(0), self._state, episode_starts.unsqueeze(0))
        return y[0]


def reset_rows(state: State, rows: Tensor) -> State:
    """The state with zeros in the given rows [B] (bool)."""
    return tuple(part.masked_fill(rows.view(-1, *(1,) * (part.dim() - 1)), 0.0) for part in state)


@torch.no_grad()
def scaled_identity_(weight: Tensor, scale: float) -> Tensor:
    """Fill a square weight with `scale` times the identity, in place."""
    return nn.init.eye_(weight).mul_(scale)


_REGISTRY: dict[str, type[Cell]] = {}
_CellClass = TypeVar("_CellClass", bound=type[Cell])


def register_cell(name: str) -> Callable[[_CellClass], _CellClass]:
    """Class decorator that makes a cell available by name to every task, agent and benchmark.

    >>> @register_cell("latch")
    ... class Latch(Cell):
    ...     def initial_state(self, batch_size):
    ...         return (torch.zeros(batch_size, self.hidden_size),)
    ...     def forward(self, x, state, episode_starts=None):
    ...         return state[0].expand(len(x), -1, -1), state
    >>> make_cell("latch", 3, 8)
    Latch(input_size=3, hidden_size=8)

    Raises ValueError if another class has the name.
    """

    def register(cell_class: _CellClass) -> _CellClass:
        known = _REGISTRY.setdefault(name, cell_class)
        # The same class again, as after a notebook cell was run twice, replaces itself.
        if (known.__module__, known.__qualname__) != (cell_class.__module__, cell_class.__qualname__):
            raise ValueError(f"the cell name {name!r} is taken by {known.__module__}.{known.__qualname__}")
        _REGISTRY[name] = cell_class
        return cell_class

    return register


def available_cells() -> list[str]:
    """The names of all cells, in the order of their registration."""
    return list(_REGISTRY)


def find_cell(name: str) -> type[Cell]:
    """The class of a cell by its registered name; with `module:name` the module that registers it is imported.

    Raises ValueError for an unknown name.
    """
    own_name = import_for(name, "cell")
    if own_name not in _REGISTRY:
        known = f"{', '.join(available_cells())}, or module:name for one that a module registers"
        raise ValueError(f"unknown cell {name!r}: choose from {known}")
    return _REGISTRY[own_name]


def make_cell(name: str, input_size: int, hidden_size: int, **options: Any) -> Cell:
    """A new cell by its name, see `find_cell`; `options` are the keyword arguments of its class.

    Raises ValueError for an unknown name, option or value.
    """
    cell_class = find_cell(name)
    parameters = list(inspect.signature(cell_class).parameters.values())[2:]
    allowed = [parameter.name for parameter in parameters]
    unknown = [option for option in options if option not in allowed]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        raise ValueError(f"cell {name!r} has no option {unknown[0]!r}: it takes {', '.join(allowed) or 'none'}")
    try:
        return cell_class(input_size, hidden_size, **options)
    except TypeError as error:
        raise ValueError(f"cell {name!r} got an option of a wrong type: {error}") from error
