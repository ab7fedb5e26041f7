"""The protocol that every memory cell follows, and the registry that gives cells their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor, nn

from fw_rl.arguments import require
from fw_rl.kernels import Kernel, is_traced
from fw_rl.modules import import_for

__all__ = [
    "Cell",
    "State",
    "Stepper",
    "available_cells",
    "check_rows",
    "find_cell",
    "register_cell",
    "reset_rows",
    "scaled_identity_",
]

State = tuple[Tensor, ...]


class Cell(nn.Module, ABC):
    """A recurrent layer that can start new episodes inside a sequence.

    A call maps x [T, B, I] to y [T, B, H] and carries a state: a tuple of tensors with the batch first, whose shapes follow
    from the cell and B alone. Without a state the call begins at `initial_state`. One call of T steps, T calls of one step and
    any split in between give the same numbers. A state may be detached, moved, saved, indexed by row, and concatenated with
    others.

    Args:
        input_size: Numbers I of an input.
        hidden_size: Numbers H of an output.

    Attributes:
        attends: Whether `attention` says to which past steps the memory attends.
        gated: Whether `forward` also takes `write_gate` and `wipe`, as `FastWeightsCell` does.

    Raises:
        ValueError: If a size is below 1.

    Examples:
        >>> cell = make_cell("fast-weights", input_size=3, hidden_size=8)
        >>> state = cell.initial_state(batch_size=2)
        >>> y, state = cell(torch.zeros(5, 2, 3), state)
        >>> y.shape
        torch.Size([5, 2, 8])
    """

    attends: bool = False
    gated: bool = False

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        self.input_size = input_size
        self.hidden_size = hidden_size

    def __call__(  # type: ignore[override]
        self, x: Tensor, state: State | None = None, episode_starts: Tensor | None = None, **signals: Tensor | None
    ) -> tuple[Tensor, State]:
        """`forward` with a state and with checked shapes, on which kernels rely."""
        state = self._checked(x, state, episode_starts)
        return super().__call__(x, state, episode_starts, **signals)  # type: ignore[no-any-return]

    def _checked(self, x: Tensor, state: State | None, episode_starts: Tensor | None) -> State:
        """The initial state; ValueError for shapes that do not fit."""
        check_input(self, x)
        state = self.initial_state(x.shape[1]) if state is None else state
        self.check_state(state)
        check_rows(x.shape[:2], state, episode_starts)
        return state

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state at the start of an episode, on the cell's device and of its dtype.

        Args:
            batch_size: Rows B.
        """

    @abstractmethod
    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        """Run the cell over a sequence.

        Args:
            x: Inputs, [T, B, I].
            state: From `initial_state` or an earlier call.
            episode_starts: [T, B] bool, True where row b starts an episode, so its state is reset before step t; or None.

        Returns:
            The outputs y [T, B, H] and the new state.
        """

    def check_state(self, state: State) -> None:
        """Raise ValueError for a state of another cell, whose rows have different shapes.

        Args:
            state: With any number of rows.
        """
        if not is_traced() and [part.shape[1:] for part in state] != self._state_shapes:
            wanted = ", ".join(f"[{', '.join(['B', *map(str, shape)])}]" for shape in self._state_shapes)
            raise ValueError(f"state must be of this cell, {wanted}, got {[list(part.shape) for part in state]}")

    @cached_property
    def _state_shapes(self) -> list[torch.Size]:
        return [part.shape[1:] for part in self.initial_state(1)]

    def replay(self, x: Tensor, state: State, episode_starts: Tensor | None, outputs: Tensor | None) -> Tensor:
        """The outputs of `forward` with their gradient, [T, B, H], for when the state after them is not needed.

        Acting may have computed their values already. A cell that can use them saves the sequential pass, 6 to 9 % of A2C's
        time with fast weights; the others run it.

        Args:
            x: Inputs, [T, B, I].
            state: The state before them.
            episode_starts: As in `forward`.
            outputs: What `forward` returned, in one call or in many, for the same x, state and parameters, [T, B, H]; None if
                unknown.
        """
        return self(x, state, episode_starts)[0]

    def stepper(self, state: State) -> Stepper:
        """A stepper that acts from a state on, step by step and without gradient.

        It may write its memory in place: with fast weights A2C then trains at 1.3 times the frames per second. Hooks and
        autocast are those in force when it is made.

        Args:
            state: The initial state, which is not changed.
        """
        self.check_state(state)
        return Stepper(self, state)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        """What Numba compiles when the cell acts and learns for the first time on a machine; nothing by default.

        Args:
            replays: Whether it learns only by `replay`, not by `forward`.
        """
        return ()

    def attention(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> Tensor:
        """How strongly each step of x attends to each earlier step, [T, B, T]; without gradient.

        Args:
            x: Inputs, [T, B, I].
            state: The state before them, which is not part of the sequence and is left out.
            episode_starts: As in `forward`.

        Raises:
            ValueError: If the cell does not attend.
        """
        raise ValueError(f"a cell with attention must be used, got {type(self).__name__}")

    @property
    def has_diagnostics(self) -> bool:
        """Whether `diagnostics` returns anything."""
        return type(self).diagnostics is not Cell.diagnostics

    def diagnostics(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> dict[str, float]:
        """Named numbers that describe what the memory does on a sequence, for logging; none by default.

        Args:
            x: Inputs, [T, B, I].
            state: The state before them.
            episode_starts: As in `forward`.
        """
        return {}

    def extra_repr(self) -> str:
        return f"input_size={self.input_size}, hidden_size={self.hidden_size}"


class Stepper:
    """A cell that acts, and keeps its state.

    Args:
        cell: The cell.
        state: The state to begin with.

    Examples:
        >>> cell = make_cell("lstm", input_size=3, hidden_size=8)
        >>> stepper = cell.stepper(cell.initial_state(2))
        >>> y = stepper.step(torch.zeros(2, 3), torch.tensor([True, False]))
    """

    def __init__(self, cell: Cell, state: State) -> None:
        self.cell, self._state = cell, state

    @property
    def state(self) -> State:
        """The current state, as the cell takes it; later steps do not change it."""
        return self._state

    @torch.no_grad()
    def step(self, x: Tensor, episode_starts: Tensor) -> Tensor:
        """One step, [B, H]; the output may be part of the state, and must not be changed in place.

        Args:
            x: Inputs, [B, I].
            episode_starts: Where rows start an episode, [B] bool.
        """
        y, self._state = self.cell(x.unsqueeze(0), self._state, episode_starts.unsqueeze(0))
        return y[0]


def check_input(cell: Cell, x: Tensor) -> None:
    """Raise ValueError unless x is a sequence of the cell's inputs [T, B, I]; shapes are unknown while tracing."""
    if is_traced():
        return
    fits = x.dim() == 3 and x.shape[0] > 0 and x.shape[2] == cell.input_size
    require("x", list(x.shape), fits, f"of the shape [T, B, {cell.input_size}], with T of at least 1")


def check_rows(shape: Sequence[int], state: State, episode_starts: Tensor | None) -> None:
    """Raise ValueError if the state or the episode starts do not have the rows of the inputs, of the shape [..., B]."""
    if is_traced():
        return
    rows = shape[-1]
    if any(len(part) != rows for part in state):
        raise ValueError(f"state must have {rows} rows, as x has, got {[list(part.shape) for part in state]}")
    if episode_starts is not None and (episode_starts.dtype is not torch.bool or episode_starts.shape != shape):
        got = f"{list(episode_starts.shape)} of {str(episode_starts.dtype).removeprefix('torch.')}"
        raise ValueError(f"episode_starts must be {list(shape)} of bool, got {got}")


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

    Args:
        name: The name by which `make_cell` knows it.

    Raises:
        ValueError: If another class already has the name.

    Examples:
        >>> @register_cell("forgetful")
        ... class ForgetfulCell(Cell):
        ...     def __init__(self, input_size, hidden_size):
        ...         super().__init__(input_size, hidden_size)
        ...         self.input_map = nn.Linear(input_size, hidden_size)
        ...     def initial_state(self, batch_size):
        ...         return (self.input_map.weight.new_zeros(batch_size, self.hidden_size),)
        ...     def forward(self, x, state, episode_starts=None):
        ...         y = self.input_map(x)
        ...         return y, (y[-1],)
        >>> make_cell("forgetful", 3, 8).hidden_size
        8
    """

    def register(cell_class: _CellClass) -> _CellClass:
        known = _REGISTRY.setdefault(name, cell_class)
        # The same class again, as after a notebook cell was run twice, replaces itself.
        if (known.__module__, known.__qualname__) != (cell_class.__module__, cell_class.__qualname__):
            taken = f"{known.__module__}.{known.__qualname__}"
            raise ValueError(f"the name of a cell must be new, got {name!r}, which is that of {taken}")
        _REGISTRY[name] = cell_class
        return cell_class

    return register


def available_cells() -> list[str]:
    """The names of all cells, in the order of their registration."""
    return list(_REGISTRY)


def find_cell(name: str) -> type[Cell]:
    """The class of a cell by its registered name.

    Args:
        name: The name, or `module:name`, where the module that registers it is imported.

    Raises:
        ValueError: If there is no such cell.
    """
    known = f"{', '.join(available_cells())}, or module:name for one that a module registers"
    if not isinstance(name, str):  # the class itself, as SB3 takes those of extractors
        raise ValueError(f"cell must be one of {known}, got {name!r}: see register_cell")
    own_name = import_for(name, "cell")
    if own_name not in _REGISTRY:
        raise ValueError(f"cell must be one of {known}, got {name!r}")
    return _REGISTRY[own_name]
