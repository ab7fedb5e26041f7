"""What comes out of a sweep: the best trials, which settings mattered, and what new seeds say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fw_rl.experiments.search.choice import best, choose, with_settings_of
from fw_rl.experiments.search.learning import SEEDS, Learning
from fw_rl.intervals import mean_interval
from fw_rl.markdown import header, row

__all__ = ["BEST", "number", "report", "scores", "words"]

BEST = 5
"""Trials that are shown."""


def report(
    title: str,
    trials: Sequence[Learning],
    importances: dict[str, float],
    finals: Sequence[Learning] = (),
    seeds: Sequence[Learning] = (),
) -> str:
    """Markdown that says what came out of a sweep.

    `finals`: trainings of the best trials' settings with new seeds, see `choose`. `seeds`: of the chosen settings with others.
    """
    return "\n".join(_report(title, trials, importances, finals, seeds)) + "\n"


def _report(
    title: str,
    trials: Sequence[Learning],
    importances: dict[str, float],
    finals: Sequence[Learning],
    seeds: Sequence[Learning],
) -> Iterator[str]:
    diverged, pruned = (sum(getattr(learning, name) for learning in trials) for name in ("diverged", "pruned"))
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
        yield "Importance of the settings for being among the best quarter (PED-ANOVA):"
        yield ", ".join(f"{name} {share:.2f}" for name, share in importances.items()) + "."
    if seeds:
        yield ""
        yield _of_seeds(chosen, seeds)


def _of_seeds(chosen: Learning, seeds: Sequence[Learning]) -> str:
    best_settings = f"The best settings, those of trial {chosen.seed}, "
    if not all(learning.differs_by_seed(chosen) for learning in seeds):
        return f"{best_settings}have no new seeds: {SEEDS} is of other settings. Move it away, and sweep again with --retrain."
    mean, low, high = mean_interval(np.array([learning.area for learning in seeds]))
    solved = sum(learning.greedy is not None and learning.greedy >= 0.95 for learning in seeds)
    interval = "" if len(seeds) == 1 else f" ({low:.3f} to {high:.3f})"
    reached = f"{solved} of {len(seeds)} at 0.95 greedy"
    return f"{best_settings}with {len(seeds)} new seeds: area {mean:.3f}{interval}, {reached}."


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
