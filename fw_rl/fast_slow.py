"""A slow and a fast weight on every connection of any module (HP87).

The effective weight is the sum of the two. Each has its own rate and momentum, and the fast weight decays towards zero after
every change. Where a linear layer sees one case at a time, its fast weights are a `fw_rl.memory`, as in the fast-weight cell of
Ba16: `associate` writes a case, and `recall` attends to the cases that were written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fw_rl import memory
from fw_rl.memory import Memory

__all__ = [
    "FastSlowSGD",
    "SlowPlusFast",
    "associate",
    "decay_fast_weights",
    "fast_slow",
    "fast_weights",
    "is_fast",
    "load_fast_weights",
    "merge",
    "recall",
]

_Module = TypeVar("_Module", bound=nn.Module)


class SlowPlusFast(nn.Module):
    """The effective weight of a connection, ``slow + fast`` (HP87 §1); `fast` starts at zero, and is trained if `slow` is.

    Args:
        slow: The slow weight.
    """

    def __init__(self, slow: Tensor) -> None:
        super().__init__()
        self.fast = nn.Parameter(torch.zeros_like(slow), requires_grad=slow.requires_grad)

    def forward(self, slow: Tensor) -> Tensor:
        return slow + self.fast


def fast_slow(module: _Module, names: Iterable[str] | None = None) -> _Module:
    """Give parameters of a module a fast weight each, in place; returns the module.

    The slow weight holds the old values, so the module computes what it did before; tied parameters stay tied. A recurrent
    module asks for its weights at every step; in `torch.nn.utils.parametrize.cached()` they are added up only once.

    Args:
        module: Any module.
        names: Names of parameters, as in `module.named_parameters()`; None for all without a parametrization.

    Raises:
        ValueError: If a name is not that of a plain parameter, or there is none to choose.

    Examples:
        >>> net = fast_slow(nn.Linear(2, 1, bias=False))
        >>> [name for name, _ in net.named_parameters()]
        ['parametrizations.weight.original', 'parametrizations.weight.0.fast']
    """
    plain = {name: slow for name, slow in module.named_parameters(remove_duplicate=False) if not _is_parametrized(name)}
    chosen = list(plain) if names is None else list(names)
    for name in chosen:
        if name not in plain:
            raise ValueError(f"names must be among {', '.join(plain) or 'none (no plain parameter is left)'}, got {name!r}")
    if not chosen:
        raise ValueError("module must have a plain parameter to give a fast weight to, got none")
    # Every name of a tied parameter gets the same fast weight.
    tied = {slow for name, slow in plain.items() if name in chosen}
    sums = {slow: SlowPlusFast(slow) for slow in tied}
    for name, slow in plain.items():
        if slow in tied:
            prefix, _, own_name = name.rpartition(".")
            owner = module.get_submodule(prefix)
            if not parametrize.is_parametrized(owner, own_name):  # a module may have several names
                parametrize.register_parametrization(owner, own_name, sums[slow])
    return module


def is_fast(name: str) -> bool:
    """Whether a name is that of a fast weight.

    Args:
        name: As in `named_parameters()`.
    """
    return _is_parametrized(name) and name.endswith(".fast")


def _is_parametrized(name: str) -> bool:
    return "parametrizations" in name.split(".")


def _pairs(module: nn.Module) -> Iterator[tuple[str, nn.Module, Tensor, SlowPlusFast]]:
    """For each connection with a fast weight: its name, the module that owns it, the slow weight and the sum."""
    for prefix, owner in module.named_modules():
        if parametrize.is_parametrized(owner):
            for name, chain in owner.parametrizations.items():  # type: ignore[union-attr, operator]
                if isinstance(chain[0], SlowPlusFast):
                    yield f"{prefix}.{name}".lstrip("."), owner, chain.original, chain[0]


def fast_weights(module: nn.Module) -> dict[str, Tensor]:
    """The fast weights by the names of their connections; the tensors are the parameters themselves.

    Args:
        module: After `fast_slow`.

    Examples:
        >>> fast_weights(fast_slow(nn.Linear(2, 1), names=["weight"]))["weight"].tolist()
        [[0.0, 0.0]]
    """
    return {name: pair.fast for name, _, _, pair in _pairs(module)}


@torch.no_grad()
def load_fast_weights(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy fast weights back into a module.

    Args:
        module: After `fast_slow`.
        values: As `fast_weights` returns them.

    Raises:
        ValueError: If names or shapes do not match the module.
    """
    own = fast_weights(module)
    if {name: part.shape for name, part in own.items()} != {name: part.shape for name, part in values.items()}:
        known = ", ".join(own) or "none"
        raise ValueError(f"values must be the fast weights of this module ({known}) in their shapes, got {', '.join(values)}")
    for name, part in own.items():
        part.copy_(values[name])


@torch.no_grad()
def decay_fast_weights(module: nn.Module, decay: float, steps: int = 1) -> None:
    """Let time pass without learning: ``fast <- decay**steps * fast``.

    Args:
        module: After `fast_slow`.
        decay: Fraction of the fast weights kept by a step; 0 clears them.
        steps: Time steps.
    """
    for part in set(fast_weights(module).values()):
        part.mul_(decay**steps)


@torch.no_grad()
def merge(module: _Module) -> _Module:
    """Turn every pair back into one plain parameter with the effective weight as its value, in place; returns the module.

    To keep the slow weights alone, clear the fast ones first.

    Args:
        module: After `fast_slow`.
    """
    for name, owner, slow, pair in list(_pairs(module)):
        slow.add_(pair.fast)
        pair.fast.zero_()  # Another name of a tied parameter must not add it again.
        # Torch made a class for the owner, which copies of the module share, and takes the property of this weight from it.
        shared = type(owner)
        owner.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
        parametrize.remove_parametrizations(owner, name.rpartition(".")[2], leave_parametrized=False)
    return module


class FastSlowSGD(torch.optim.Optimizer):
    """Gradient descent with momentum on slow and fast weights, and decay of the fast ones (HP87 §3).

        change(t) = momentum * change(t-1) - lr * dE/dw         each with its own lr and momentum
        slow     <- slow + change
        fast     <- decay * (fast + change)

    Parameters without a fast weight learn like slow ones. A scheduler can change the options in `param_groups`, slow first.

    Args:
        named_parameters: Of a module after `fast_slow`, or of a stack of such modules (`torch.func.stack_module_state`).
        slow_lr: Step size of the slow weights.
        slow_momentum: Fraction of the slow weights' last change that a step repeats.
        fast_lr: Step size of the fast weights.
        fast_momentum: Fraction of the fast weights' last change that a step repeats.
        decay: Fraction of the fast weights kept at each weight change, from 0 to 1; HP87 has 0.99.

    Raises:
        ValueError: If an option is outside its range.

    Examples:
        >>> net = fast_slow(nn.Linear(2, 1))
        >>> optimizer = FastSlowSGD(net.named_parameters(), slow_lr=0.02, slow_momentum=0.9, fast_lr=0.02, fast_momentum=0.5)
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        slow_lr: float,
        slow_momentum: float,
        fast_lr: float,
        fast_momentum: float,
        decay: float = 0.99,
    ) -> None:
        rates = dict(slow_lr=slow_lr, slow_momentum=slow_momentum, fast_lr=fast_lr, fast_momentum=fast_momentum)
        for name, rate in rates.items():
            if not 0 <= rate < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {rate}")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be between 0 and 1, got {decay}")
        slow: dict[str, Any] = dict(params=[], lr=slow_lr, momentum=slow_momentum, decay=1.0)
        fast: dict[str, Any] = dict(params=[], lr=fast_lr, momentum=fast_momentum, decay=decay)
        for name, parameter in named_parameters:
            (fast if is_fast(name) else slow)["params"].append(parameter)
        super().__init__([slow, fast], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if "change" not in state:
                        state["change"] = torch.zeros_like(parameter)
                    parameter.add_(state["change"].mul_(group["momentum"]).sub_(parameter.grad, alpha=group["lr"]))
                if group["decay"] != 1:
                    parameter.mul_(group["decay"])
        return loss


def associate(layer: nn.Linear, fast: Memory, x: Tensor, target: Tensor, lr: float | Tensor, decay: float) -> Memory:
    """Present one case to a linear layer whose fast weights are a memory: one step of HP87 §3 without momentum.

    With F the fast weights and E half the squared error, ``F <- F + lr * (target - layer(x) - F x) x^T``. The decay follows
    with the next time step, as in Ba16 Eq. 1. A rate of ``1 / |x|^2`` stores the case in one trial.

    Args:
        layer: Its weights are the slow ones, which do not change.
        fast: From `memory.empty(B, I, value_size=O)` or an earlier call; every row has fast weights of its own.
        x: Inputs, [B, I].
        target: What the layer should answer, [B, O].
        lr: Step size, a number or one for each row [B].
        decay: Fraction of the fast weights kept by a time step.

    Examples:
        >>> layer, x, target = nn.Linear(3, 2), torch.ones(1, 3), torch.ones(1, 2)
        >>> fast = associate(layer, memory.empty(1, 3, value_size=2), x, target, lr=1 / 3, decay=0.99)
        >>> bool((recall(layer, fast, x, decay=1.0) - target).abs().max() < 1e-6)
        True
    """
    error = memory.correction(fast, x, target - layer(x), decay)
    return memory.write(fast, error, x, torch.as_tensor(lr, dtype=x.dtype, device=x.device).expand(len(x)), decay)


def recall(layer: nn.Linear, fast: Memory, x: Tensor, decay: float) -> Tensor:
    """What such a layer answers [B, O] one time step after the last case, ``layer(x) + decay * F x``.

    A read is attention to the presented cases (Ba16 Eq. 4).

    Args:
        layer: As in `associate`.
        fast: What `associate` returned last.
        x: Inputs, [B, I].
        decay: Fraction of the fast weights kept by a time step.
    """
    return layer(x) + decay * memory.read(fast, x)
