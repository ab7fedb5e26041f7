"""The simulation of HP87 §4: learn random associations, blur them by learning others, rehearse a part of them.

Everything runs for all S seeds side by side: the nets are one stack of weights, and `torch.func.vmap` gives each its own data.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from fw_rl.cells import BA16, Cell, make_cell
from fw_rl.fast_slow import FastSlowSGD, fast_slow, is_fast, merge

__all__ = ["Associations", "DeblurTask", "Ensemble", "Protocol", "Rates", "draw_task", "layered_nets", "learn"]


@dataclass(frozen=True)
class Rates:
    """How slow and fast weights learn: epsilon and alpha of HP87 §3 for each, and what remains of the fast ones after each
    weight change.

    The paper has 0.02, 0.9 and 0.99 and gives no other rates for the fast weights, so those are free. The E of its §3 lacks the
    factor 1/2 that §5 and this simulation have, so a step of 0.02 there may be twice as long as here.
    """

    slow_lr: float = 0.02
    """Epsilon of the slow weights."""
    slow_momentum: float = 0.9
    """Alpha of the slow weights."""
    fast_lr: float = 0.02
    """Epsilon of the fast weights, which the paper leaves open. With 0.03 and more some nets saturate and learn nothing."""
    fast_momentum: float = 0.5
    """Alpha of the fast weights, which the paper leaves open."""
    decay: float = 0.99
    """What remains of the fast weights after each weight change; the paper lets 1 % go."""


@dataclass(frozen=True)
class Protocol:
    """Sizes and lengths of the simulation; the defaults are those of HP87 §4, which leaves `init` and the seeds open."""

    inputs: int = 10
    """Input units."""
    hidden: int = 100
    """Hidden units."""
    outputs: int = 10
    """Output units."""
    associations: int = 100
    """Old associations."""
    interfering: int = 5
    """New associations, which blur the old ones."""
    learning_sweeps: int = 1300
    """Sweeps through the old associations while learning."""
    interfering_sweeps: int = 400
    """Sweeps through the new associations."""
    rehearsal_sweeps: int = 20
    """Sweeps through the rehearsed subset of the old associations."""
    init: float = 0.3
    """Slow weights start uniformly between plus and minus this, which the paper leaves open."""
    seeds: int = 20
    """Nets that are trained side by side."""
    seed: int = 0
    """The first seed."""

    def generators(self, purpose: str) -> list[torch.Generator]:
        """A random generator for each seed; those for nets, associations and subsets differ."""
        offset = ("nets", "associations", "subsets").index(purpose) << 40
        return [torch.Generator().manual_seed(offset + seed) for seed in range(self.seed, self.seed + self.seeds)]


class Associations(NamedTuple):
    """Associations of each of S seeds: inputs [S, N, ...] and desired outputs [S, N, O]."""

    inputs: Tensor
    targets: Tensor


class DeblurTask(NamedTuple):
    """What is learned: the old associations, and the new ones that interfere with them."""

    old: Associations
    new: Associations


def draw_task(protocol: Protocol, steps: int | None = None) -> DeblurTask:
    """Random binary inputs [S, N, inputs], or sequences [S, N, steps, inputs], all of a seed different, and binary outputs."""
    cases, shape = protocol.associations + protocol.interfering, (-1,) if steps is None else (steps, -1)
    bits = protocol.inputs * (steps or 1)
    inputs, targets = [], []
    for generator in protocol.generators("associations"):
        inputs.append(_distinct(cases, bits, generator).unflatten(1, shape))
        targets.append(torch.randint(2, (cases, protocol.outputs), generator=generator))
    x, y = torch.stack(inputs).float(), torch.stack(targets).float()
    n = protocol.associations
    return DeblurTask(Associations(x[:, :n], y[:, :n]), Associations(x[:, n:], y[:, n:]))


def _distinct(count: int, bits: int, generator: torch.Generator) -> Tensor:
    """Different random binary vectors, [count, bits]."""
    if bits <= 20:
        return torch.randperm(2**bits, generator=generator)[:count].unsqueeze(1) >> torch.arange(bits) & 1
    while True:  # So few of so many are hardly ever equal.
        vectors = torch.randint(2, (count, bits), generator=generator)
        if len(vectors.unique(dim=0)) == count:
            return vectors


class Ensemble:
    """S nets of one architecture as one stack of weights: a call maps [S, N, ...] to [S, N, O], each net on its own data."""

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        self.net = nets[0]
        self.weights, _ = stack_module_state(list(nets))

    def __call__(self, x: Tensor) -> Tensor:
        return vmap(lambda weights, x: functional_call(self.net, weights, (x,)))(self.weights, x)

    def copy(self) -> Ensemble:
        """Nets with the same weights that learn separately from these."""
        twin = copy.copy(self)
        twin.weights = {name: part.detach().clone().requires_grad_() for name, part in self.weights.items()}
        return twin

    @torch.no_grad()
    def faded(self, factor: float) -> Ensemble:
        """A copy whose fast weights are multiplied by `factor`."""
        twin = self.copy()
        for name, part in twin.weights.items():
            if is_fast(name):
                part.mul_(factor)
        return twin

    def member(self, seed: int) -> nn.Module:
        """A copy of one of the nets, with the sums of slow and fast weights as plain weights."""
        net = copy.deepcopy(self.net)
        net.load_state_dict({name: part[seed] for name, part in self.weights.items()})
        return merge(net)

    @torch.no_grad()
    def errors(self, data: Associations) -> Tensor:
        """The mean over output units of |y - d| and of its square, [S, N, 2]."""
        misses = (self(data.inputs) - data.targets).abs()
        return torch.stack([misses.mean(2), misses.square().mean(2)], dim=2)


def layered_nets(protocol: Protocol) -> Ensemble:
    """The nets of HP87 §4: input, hidden and output units with biases, sigmoid, slow weights uniform within +-`init`."""
    nets = []
    for generator in protocol.generators("nets"):
        first, last = nn.Linear(protocol.inputs, protocol.hidden), nn.Linear(protocol.hidden, protocol.outputs)
        net = nn.Sequential(first, nn.Sigmoid(), last, nn.Sigmoid())
        for parameter in net.parameters():
            nn.init.uniform_(parameter, -protocol.init, protocol.init, generator=generator)
        nets.append(fast_slow(net))
    return Ensemble(nets)


class SequenceNet(nn.Module):
    """A cell that reads a sequence, and sigmoid output units that look at its last state: x [N, T, I] to y [N, O]."""

    def __init__(self, cell: Cell, output_size: int) -> None:
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(cell.hidden_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x.transpose(0, 1), self.cell.initial_state(len(x)))
        return torch.sigmoid(self.head(y[-1]))


def recurrent_nets(protocol: Protocol, eta: float, decay: float) -> Ensemble:
    """New fast-weight cells of `hidden` units; with an eta of 0 they are ReLU nets without a memory A.

    Their parameters W get a fast weight each (HP87); A (Ba16) is different, and holds what one sequence has shown so far.
    """
    nets = []
    for seed in range(protocol.seed, protocol.seed + protocol.seeds):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            cell = make_cell("fast-weights", protocol.inputs, protocol.hidden, **BA16 | dict(eta=eta, decay=decay))
            nets.append(fast_slow(SequenceNet(cell, protocol.outputs)))
    return Ensemble(nets)


def learn(
    nets: Ensemble,
    data: Associations,
    rates: Rates,
    sweeps: int,
    shown: Tensor | None = None,
    before_sweep: Callable[[], None] = lambda: None,
) -> None:
    """Sweep through the associations and change the weights after each sweep (HP87 §3), for all seeds at once.

    E is half the squared error, summed over cases, or those of `shown` [S, N], and output units.
    """
    optimizer = FastSlowSGD(nets.weights.items(), **vars(rates))
    for _ in range(sweeps):
        before_sweep()
        squares = (nets(data.inputs) - data.targets).square()
        if shown is not None:
            squares = squares * shown.unsqueeze(2)
        optimizer.zero_grad()
        (squares.sum() / 2).backward()
        optimizer.step()


class Course(NamedTuple):
    """Errors |y - d| and their squares, [time, S, 2], of old associations that are rehearsed, of the others, and of the new."""

    retrained: Tensor
    unretrained: Tensor
    new: Tensor


def choose(protocol: Protocol, count: int) -> Tensor:
    """A random subset of `count` old associations for each seed, [S, N] bool; smaller subsets are parts of larger ones."""
    cases = protocol.associations
    return torch.stack([torch.randperm(cases, generator=generator) < count for generator in protocol.generators("subsets")])


def rehearse(nets: Ensemble, task: DeblurTask, shown: Tensor, rates: Rates, sweeps: int) -> tuple[Ensemble, Course]:
    """Retrain a copy of the nets on a subset of the old associations; returns it and the errors at 0 .. `sweeps` sweeps."""
    nets, rows = nets.copy(), list[Course]()
    learn(nets, task.old, rates, sweeps, shown, before_sweep=lambda: rows.append(_look(nets, task, shown)))
    rows.append(_look(nets, task, shown))
    return nets, _course(rows)


def forget(nets: Ensemble, task: DeblurTask, shown: Tensor, decay: float, times: Sequence[int]) -> Course:
    """The errors at these `times`: after as many steps without learning, while the fast weights decay."""
    return _course([_look(nets.faded(decay**time), task, shown) for time in times])


def _look(nets: Ensemble, task: DeblurTask, shown: Tensor) -> Course:
    old, share = nets.errors(task.old), shown.float().unsqueeze(2)
    retrained, unretrained = ((old * part).sum(1) / part.sum(1) for part in (share, 1 - share))
    return Course(retrained, unretrained, nets.errors(task.new).mean(1))


def _course(rows: Sequence[Course]) -> Course:
    return Course(*(torch.stack(parts) for parts in zip(*rows, strict=True)))
