"""How the steps of a cell are computed: in plain Torch, or by kernels for a device.

A cell defines in plain Torch what happens in a sequence. A backend computes the same numbers and gradients faster, where it
can. Each backend is one file of `fw_rl/cells`, which registers it; the package imports every file there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from fw_rl.arguments import require
from fw_rl.cells.base import Cell, State, Stepper
from fw_rl.kernels import Kernel, is_traced
from fw_rl.linear import Linear

__all__ = ["AcceleratedCell", "Backend", "register_backend"]

_Cell = TypeVar("_Cell", bound="AcceleratedCell")


class Backend(Generic[_Cell]):
    """One way to compute the steps of a cell; this one is plain Torch, which runs everywhere."""

    def can_run(self, cell: _Cell, *tensors: Tensor) -> bool:
        """Whether it can run this cell with its options, and these tensors.

        Args:
            cell: The cell.
            tensors: What the cell is called with.
        """
        return True

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        """See `Cell.kernels`.

        Args:
            replays: Whether it learns only by `replay`, not by `sequence`.
        """
        return ()

    def sequence(
        self, cell: _Cell, x: Tensor, state: State, episode_starts: Tensor | None, **signals: Tensor | None
    ) -> tuple[Tensor, State]:
        """See `Cell.forward`.

        Args:
            cell: The cell.
            x: Inputs, [T, B, I].
            state: The state before them.
            episode_starts: Where rows start an episode, [T, B] bool, or None.
            signals: Other arguments of the cell's `forward`.
        """
        return cell.unroll(x, state, episode_starts, **signals)

    def replay(self, cell: _Cell, x: Tensor, state: State, episode_starts: Tensor | None, outputs: Tensor | None) -> Tensor:
        """See `Cell.replay`.

        Args:
            cell: The cell.
            x: Inputs, [T, B, I].
            state: The state before them.
            episode_starts: Where rows start an episode, [T, B] bool, or None.
            outputs: What `sequence` returned, [T, B, H], or None.
        """
        return self.sequence(cell, x, state, episode_starts)[0]

    def stepper(self, cell: _Cell, state: State) -> Stepper:
        """See `Cell.stepper`.

        Args:
            cell: The cell.
            state: The initial state.
        """
        return Stepper(cell, state)


class AcceleratedCell(Cell):
    """A cell whose steps are computed by the latest registered backend that can run, or by plain Torch where none can.

    Backends read the weights of the cell's modules. So plain Torch, which calls the modules, is used where one of them has
    hooks or a `forward` of its own. A derived class has the backends of its base, unless it has an `unroll` or a `step` of its
    own.
    """

    _backends: ClassVar[list[Backend[Any]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        computes_anew = {"unroll", "step"} & vars(cls).keys()
        cls._backends = [Backend(), *([] if computes_anew else getattr(cls, "_backends", [])[1:])]

    @abstractmethod
    def unroll(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        """`forward` step by step in plain Torch.

        Args:
            x: Inputs, [T, B, I].
            state: From `initial_state` or an earlier call.
            episode_starts: Where rows start an episode, [T, B] bool, or None.
        """

    def backend(self, *tensors: Tensor) -> Backend[Any]:
        """Choose the backend for a call.

        Args:
            tensors: What the cell will be called with.
        """
        backends = self._backends if all(map(is_plain, self._modules.values())) else self._backends[:1]
        return next(backend for backend in reversed(backends) if backend.can_run(self, *tensors))

    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        return self.backend(x, *state).sequence(self, x, state, episode_starts)

    def replay(self, x: Tensor, state: State, episode_starts: Tensor | None, outputs: Tensor | None) -> Tensor:
        state = self._checked(x, state, episode_starts)
        if outputs is not None and not is_traced():
            shape = [*x.shape[:2], self.hidden_size]
            require("outputs", list(outputs.shape), list(outputs.shape) == shape, f"of the shape {shape}")
        return self.backend(x, *state).replay(self, x, state, episode_starts, outputs)

    def stepper(self, state: State) -> Stepper:
        self.check_state(state)
        return self.backend(*state).stepper(self, state)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        return self.backend(*self.parameters()).kernels(replays)


_KNOWN = {kind.forward for kind in (Linear, nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.RNN, nn.LSTM, nn.GRU)}


def is_plain(module: nn.Module | None) -> bool:
    """Whether a module computes the same as Torch's with the same weights, parametrized or not."""
    if module is None:
        return True
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return not any(hooks) and "forward" not in vars(module) and type(module).forward in _KNOWN


_BackendClass = TypeVar("_BackendClass", bound=type[Backend])


def register_backend(cell_class: type[AcceleratedCell]) -> Callable[[_BackendClass], _BackendClass]:
    """Class decorator: the backend is tried before those registered earlier for the cell.

    Args:
        cell_class: The cell that it computes.
    """

    def register(backend_class: _BackendClass) -> _BackendClass:
        cell_class._backends.append(backend_class())
        return backend_class

    return register
