"""What comes out of a sweep: the best trials, which settings mattered, and what new seeds say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fw_rl.commands.search.learning import Learning
from fw_rl.statistics import mean_interval

__all__ = ["BEST", "best", "number", "report", "scores", "words"]

BEST = 5
"""Trials that are shown."""


def best(learnings: dict[int, Learning], count: int) -> list[tuple[int, Learning]]:
    """The trainings with the largest areas under their curves, the largest first; none that diverged."""
    known = [(key, learning) for key, learning in learnings.items() if not learning.diverged and math.isfinite(learning.area)]
    return sorted(known, key=lambda item: -item[1].area)[:count]


def report(title: str, trials: dict[int, Learning], pruned: int, importances: dict[str, float], seeds: list[Learning]) -> str:
    """Markdown that says what came out of a sweep."""
    return "\n".join(_report(title, trials, pruned, importances, seeds)) + "\n"


def _report(
    title: str, trials: dict[int, Learning], pruned: int, importances: dict[str, float], seeds: list[Learning]
) -> Iterator[str]:
    diverged = sum(learning.diverged for learning in trials.values())
    yield f"## {title}: {len(trials)} trials, {diverged} diverged, {pruned} pruned"
    yield ""
    ranked = best(trials, BEST)
    if not ranked:
        yield "No trial has a value."
        return
    names = list(ranked[0][1].parameters)
    yield f"| trial | area | last tenth | greedy | {' | '.join(names)} |"
    yield f"| --- | --- | --- | --- |{' --- |' * len(names)}"
    for key, learning in ranked:
        cells = [str(key), *scores(learning), *(_value(learning.parameters[name]) for name in names)]
        yield f"| {' | '.join(cells)} |"
    if importances:
        yield ""
        yield "Importance of the settings for being among the best tenth (PED-ANOVA):"
        yield ", ".join(f"{name} {share:.2f}" for name, share in importances.items()) + "."
    if seeds:
        yield ""
        yield _of_seeds(ranked[0][0], seeds)


def _of_seeds(trial: int, seeds: list[Learning]) -> str:
    mean, low, high = mean_interval(np.array([learning.area for learning in seeds]))
    solved = sum(learning.greedy is not None and learning.greedy >= 0.95 for learning in seeds)
    interval = "" if len(seeds) == 1 else f" ({low:.3f} to {high:.3f})"
    return f"Trial {trial} with {len(seeds)} new seeds: area {mean:.3f}{interval}, {solved} of {len(seeds)} at 0.95 greedy."


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
