"""Measurements on the simulation of HP87: Figure 2, what fast weights add, the theory, the uses, and a recurrent cell.

Each function returns a record of numbers that JSON can hold. A spread is [mean, low, high], where low and high bound the 95 %
interval over seeds (bootstrap); a curve is a list of spreads over time. FloatingPointError is raised if one is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fw_rl.intervals import estimate
from fw_rl.tasks.deblur import simulation, theory
from fw_rl.tasks.deblur.simulation import Course, DeblurTask, Ensemble, Protocol, Rates
from fw_rl.tasks.deblur.theory import Inputs, Plane
from fw_rl.tasks.deblur.uses import bind, learn_in_one_trial

__all__ = ["FORGETTING", "Sequences", "Study", "check_theory", "deblur_sequences", "figure_2", "figure_4", "layered_studies"]
__all__ += ["part_of", "temporary_uses", "ways_to_rehearse"]

Record = dict[str, Any]

FORGETTING = tuple(range(0, 501, 25))
"""Steps without learning after which the errors are measured again."""


@dataclass(frozen=True)
class Study:
    """The result of the simulation: nets that have learned the old associations, and then, `blurred`, the new ones."""

    protocol: Protocol
    rates: Rates
    task: DeblurTask
    learned: Ensemble
    blurred: Ensemble


def blur(nets: Ensemble, task: DeblurTask, protocol: Protocol, rates: Rates) -> Study:
    """Learn the old associations, then the new ones without the old (HP87 §4)."""
    learned = nets.copy()
    simulation.learn(learned, task.old, rates, protocol.learning_sweeps)
    blurred = learned.copy()
    simulation.learn(blurred, task.new, rates, protocol.interfering_sweeps)
    return Study(protocol, rates, task, learned, blurred)


def layered_studies(protocol: Protocol, rates: Rates) -> tuple[Study, Study]:
    """The simulation of HP87 §4, and the same with slow weights alone."""
    task, nets = simulation.draw_task(protocol), simulation.layered_nets(protocol)
    return blur(nets, task, protocol, rates), blur(nets, task, protocol, replace(rates, fast_lr=0.0))


def figure_2(study: Study, percents: Sequence[int]) -> Record:
    """HP87 Figure 2: the errors of retrained and unretrained associations while parts of the old ones are rehearsed."""
    errors = [study.learned.errors(study.task.old), study.blurred.errors(study.task.old), study.blurred.errors(study.task.new)]
    learned, blurred, new = ([_spread(part.mean(1)[:, i]) for i in range(2)] for part in errors)
    return dict(
        measures=["|y - d|", "(y - d)^2"],
        learned=learned,
        blurred=blurred,
        new=new,
        learned_worst_seed=errors[0].mean(1)[:, 0].max().item(),
        subsets={str(percent): _transfer(_rehearse(study, study.rates, percent)[1]) for percent in percents},
    )


def _rehearse(study: Study, rates: Rates, percent: int) -> tuple[Tensor, Course, Ensemble]:
    shown = simulation.choose(study.protocol, part_of(study.protocol, percent))
    nets, course = simulation.rehearse(study.blurred, study.task, shown, rates, study.protocol.rehearsal_sweeps)
    return shown, course, nets


def part_of(protocol: Protocol, percent: int) -> int:
    """How many of the old associations a percentage is; ValueError if none or all of them."""
    count = round(protocol.associations * percent / 100)
    if not 0 < count < protocol.associations:
        raise ValueError(f"{percent} % of {protocol.associations} associations must be neither none nor all, got {count}")
    return count


def _transfer(course: Course) -> Record:
    """The curves of both measures, and the improvement of unretrained over that of retrained associations."""
    measures = []
    for i in range(2):
        retrained, unretrained = course.retrained[..., i], course.unretrained[..., i]
        gains = [(part[0] - part[1:]).numpy() for part in (unretrained, retrained)]
        measures.append(dict(retrained=_curve(retrained), unretrained=_curve(unretrained), ratio=_ratio(*gains)))
    return dict(zip(("absolute", "squared"), measures, strict=True))


def ways_to_rehearse(study: Study, without_fast: Study, percent: int) -> Record:
    """HP87 §6: the errors during rehearsal and, after it, while the fast weights decay and nothing is learned."""
    rates = study.rates
    ways = {
        "slow and fast": (study, rates),
        "slow at 1/100": (study, replace(rates, slow_lr=rates.slow_lr / 100)),
        "fast alone": (study, replace(rates, slow_lr=0.0)),
        "slow alone": (without_fast, without_fast.rates),
    }
    return {name: _rehearse_and_forget(source, chosen, percent) for name, (source, chosen) in ways.items()}


def _rehearse_and_forget(study: Study, rates: Rates, percent: int) -> Record:
    shown, course, nets = _rehearse(study, rates, percent)
    later = simulation.forget(nets, study.task, shown, rates.decay, FORGETTING)
    curves = {
        name: dict(rehearsal=_curve(during[..., 0]), forgetting=_curve(after[..., 0]))
        for name, during, after in zip(Course._fields, course, later, strict=True)
    }
    start, end = course.new[0, :, 0].numpy(), later.new[-1, :, 0].numpy()
    summary = dict(new_after_over_before=float(end.mean() / start.mean()), times=list(FORGETTING))
    return dict(curves=curves, transfer=_transfer(course)) | summary


def check_theory(seed: int, pairs: int, linear_nets: int) -> Record:
    """HP87 §5: every formula beside its Monte Carlo value, over pairs of inputs and over linear nets."""
    generator = torch.Generator().manual_seed(seed)
    equations, transfers, ratios = [], [], []
    for signed, densities in ((False, (0.25, 0.5, 0.75)), (True, (0.1, 0.25, 0.4))):
        for n, p in product((10, 100, 1000), densities):
            check = theory.check_pairs(Inputs(n, p, signed), pairs, 200, generator)
            equations.append(dict(equation=3 if signed else 2, n=n, p=p) | check)

    for signed, n in product((False, True), (10, 100, 1000)):
        inputs, expected = _random_inputs(n, signed)
        measured = theory.measure_transfer(inputs, 5000, generator)
        transfers.append(dict(signed=signed, n=n, measured=measured) | expected)

    for n, cases, signed in ((10, 100, False), (100, 100, False), (400, 100, False), (50, 50, True), (200, 200, True)):
        inputs, transfer = _random_inputs(n, signed)
        runs = [min(250, linear_nets - done) for done in range(0, linear_nets, 250)]  # Not all of them fit into a cache.
        falls = [theory.rehearse_linear(inputs, cases, cases // 2, 0, count, generator) for count in runs]
        retrained, unretrained = torch.cat([fall.slopes for fall in falls], dim=1).numpy()
        expected = {name: theory.expected_ratio(value, cases // 2) for name, value in transfer.items()}
        ratios.append(dict(signed=signed, n=n, cases=cases, measured=_ratio(unretrained[None], retrained[None])[0]) | expected)

    fall = theory.rehearse_linear(Inputs(100, 0.5), 100, 50, 200, min(linear_nets, 1000), generator)
    left = (fall.retrained.mean(1) / fall.retrained[0].mean()).tolist()
    falling = dict(left=left[1:], ratio=fall.ratios().tolist(), at_start=fall.start_ratio())
    return dict(equations=equations, transfers=transfers, ratios=ratios, fall=falling)


def _random_inputs(n: int, signed: bool) -> tuple[Inputs, dict[str, float]]:
    """Inputs of length n as in HP87 §5.2, and their transfer, in the limit for large n and by the formula."""
    inputs = Inputs(n, 0.25 if signed else 0.5, signed)
    return inputs, dict(limit=1 / n if signed else 0.25, formula=theory.mean_transfer(inputs))


def figure_4() -> Record:
    """HP87 Figure 4 as a run: the circle, the ellipse after some retraining, and the share of positive transfer."""
    plane = Plane(torch.tensor([[1.0, 0.25], [0.6, 1.0]]), torch.tensor([0.8, 0.9]), start=torch.tensor([-0.6, -0.3]))
    path = plane.retrain(plane.circle(radius=0.5, points=360), sweeps=30, lr=0.1)
    misses = (path @ plane.inputs[0] - plane.targets[0]).abs().amax(1)
    left = misses / misses[0]
    return dict(
        inputs=plane.inputs.tolist(),
        targets=plane.targets.tolist(),
        solution=plane.solution.tolist(),
        learning=plane.path[:: max(len(plane.path) // 200, 1)].tolist(),
        circle=path[0].tolist(),
        ellipse=path[8].tolist(),
        positive=plane.transfers(path[0]).tolist(),
        left=left.tolist(),
        measured=plane.transfers(path).double().mean(1).tolist(),
        formula=plane.probability(left).tolist(),
    )


def temporary_uses(study: Study) -> Record:
    """HP87 §1: a new association learned in one trial and forgotten again, and shapes bound to colours for a while."""
    decay = study.rates.decay
    times = [1, *FORGETTING[1:]]
    trial = learn_in_one_trial(study.learned, study.task, decay, times)
    bindings = bind(
        scenes=500, objects=4, vocabulary=16, size=128, decay=decay, later=300,
        generator=torch.Generator().manual_seed(study.protocol.seed),
    )  # fmt: skip
    before = dict(new_before=_spread(trial["untaught"]), old_before=_spread(trial["blank"]))
    one_trial = dict(times=times, **before, new=_curve(trial["new"]), old=_curve(trial["old"]))
    return dict(one_trial=one_trial, binding=bindings)


@dataclass(frozen=True)
class Sequences:
    """The simulation with sequences as inputs and the fast-weight cell as the net."""

    sequences: int = 50
    """Old associations of a sequence with an output."""
    sequence_length: int = 4
    """Random binary vectors in a sequence."""
    sequence_units: int = 50
    """Units of the cell."""
    sequence_sweeps: int = 600
    """Sweeps through the sequences while learning."""
    sequence_lr: float = 0.005
    """Epsilon of slow and of fast weights."""
    sequence_seeds: int = 8
    """Cells that are trained side by side."""
    cell_eta: float = 0.5
    """Eta of the memory A of the cell (Ba16)."""
    cell_decay: float = 0.95
    """Decay of the memory A of the cell (Ba16)."""


def deblur_sequences(options: Sequences, protocol: Protocol, rates: Rates, percents: Sequence[int]) -> Record:
    """The simulation with fast-weight cells that read sequences, rehearsed by the fast weights alone.

    The record has a part for cells as in Ba16, `memory`, and one for the same cells with an eta of 0, `no memory`.
    """
    protocol = replace(
        protocol,
        hidden=options.sequence_units,
        associations=options.sequences,
        learning_sweeps=options.sequence_sweeps,
        seeds=options.sequence_seeds,
    )
    rates = replace(rates, slow_lr=options.sequence_lr, fast_lr=options.sequence_lr)
    task = simulation.draw_task(protocol, steps=options.sequence_length)
    record = {}
    for name, eta in (("memory", options.cell_eta), ("no memory", 0.0)):
        study = blur(simulation.recurrent_nets(protocol, eta, options.cell_decay), task, protocol, rates)
        fast_alone = replace(rates, slow_lr=0.0)
        subsets = {str(percent): _rehearse_and_forget(study, fast_alone, percent) for percent in percents}
        learned = _spread(study.learned.errors(task.old).mean(1)[:, 0])
        record[name] = dict(eta=eta, learned=learned, subsets=subsets)
    return record


def _spread(values: Tensor) -> list[float]:
    """Mean and 95 % interval over seeds of values [S]."""
    (spread,) = _curve(values.unsqueeze(0))
    return spread


def _curve(values: Tensor) -> list[list[float]]:
    """A spread for each time, of values [time, S]."""
    return _spreads(np.mean, values.numpy())


def _ratio(above: Any, below: Any) -> list[list[float]]:
    """The spread of the ratio of two means over seeds for each time, of values [time, S]."""
    with np.errstate(divide="ignore", invalid="ignore"):  # nets that learned nothing have no ratio
        return _spreads(lambda a, b, axis: a.mean(axis) / b.mean(axis), above, below)


def _spreads(statistic: Any, *values: Any) -> list[list[float]]:
    samples = [np.asarray(part.T, np.float64) for part in values]
    if np.isfinite(statistic(*samples, axis=0)).all():
        spreads = np.stack(estimate(statistic, samples, paired=len(samples) > 1, resamples=1000), axis=1)
        if np.isfinite(spreads).all():
            return spreads.round(6).tolist()
    raise FloatingPointError("some results are not finite: the nets diverged or did not learn, lower the rates")
