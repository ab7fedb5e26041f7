"""What comes out of a sweep: the best trials, which settings mattered, and what new seeds say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fw_rl.commands.search.choice import best, choose, with_settings_of
from fw_rl.commands.search.learning import Learning
from fw_rl.markdown import header, row
from fw_rl.statistics import mean_interval

__all__ = ["BEST", "number", "report", "scores", "words"]

BEST = 5
"""Trials that are shown."""


def report(
    title: str,
    trials: Sequence[Learning],
    pruned: int,
    importances: dict[str, float],
    finals: Sequence[Learning] = (),
    seeds: Sequence[Learning] = (),
) -> str:
    """Markdown that says what came out of a sweep.

    `finals`: trainings of the best trials' settings with new seeds, see `choose`. `seeds`: of the chosen settings with others.
    """
    return "\n".join(_report(title, trials, pruned, importances, finals, seeds)) + "\n"


def _report(
    title: str,
    trials: Sequence[Learning],
    pruned: int,
    importances: dict[str, float],
    finals: Sequence[Learning],
    seeds: Sequence[Learning],
) -> Iterator[str]:
    diverged = sum(learning.diverged for learning in trials)
    yield f"## {title}: {len(trials)} trials, {diverged} diverged, {pruned} pruned"
    yield ""
    chosen = choose(trials, finals)
    if chosen is None:
        yield "No trial has a value."
        return
    names = list(chosen.parameters)
    yield header("trial", "area", "with new seeds", "last tenth", "greedy", *names)
    for trial in best(trials, BEST):
        area, *others = scores(trial)
        own = with_settings_of(trial, finals)
        again = f"{np.mean([final.area for final in own]):.3f} ({len(own)})" if own else ""
        yield row(trial.seed, area, again, *others, *(_value(trial.parameters[name]) for name in names))
    if importances:
        yield ""
        yield "Importance of the settings for being among the best tenth (PED-ANOVA):"
        yield ", ".join(f"{name} {share:.2f}" for name, share in importances.items()) + "."
    if seeds:
        yield ""
        yield _of_seeds(chosen.seed, seeds)


def _of_seeds(trial: int, seeds: Sequence[Learning]) -> str:
    mean, low, high = mean_interval(np.array([learning.area for learning in seeds]))
    solved = sum(learning.greedy is not None and learning.greedy >= 0.95 for learning in seeds)
    interval = "" if len(seeds) == 1 else f" ({low:.3f} to {high:.3f})"
    reached = f"{solved} of {len(seeds)} at 0.95 greedy"
    return f"The best settings, those of trial {trial}, with {len(seeds)} new seeds: area {mean:.3f}{interval}, {reached}."


def scores(learning: Learning) -> tuple[str, str, str]:
    """The area under the curve, the return in its last tenth and that of the greedy agent, for a table."""
    return number(learning.area), number(learning.final), number(learning.greedy)


def number(value: float | None) -> str:
    """Three decimals, or nothing for what is not known."""
    return "" if value is None or not math.isfinite(value) else f"{value:.3f}"


def words(parameters: dict[str, Any]) -> str:
    """Settings as name=value."""
    return " ".join(f"{name}={_value(value)}" for name, value in parameters.items())


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
