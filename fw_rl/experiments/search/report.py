"""What comes out of a sweep: the best trials, which settings mattered, and what new seeds say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from tabulate import tabulate

from fw_rl.experiments.search.learning import Learning
from fw_rl.experiments.search.swept import SEEDS, Swept
from fw_rl.intervals import mean_interval

__all__ = ["BEST", "number", "report", "scores", "words"]

BEST = 5
"""Trials that are shown."""


def report(title: str, swept: Swept, importances: dict[str, float]) -> Iterator[str]:
    """What came out of a sweep, as paragraphs of Markdown."""
    diverged, pruned = (sum(getattr(trial, name) for trial in swept.trials) for name in ("diverged", "pruned"))
    yield f"## {title}: {len(swept.trials)} trials, {diverged} diverged, {pruned} pruned"
    chosen = swept.chosen
    if chosen is None:
        yield "No trial has a value."
        return
    rows = []
    for trial in swept.ranked[:BEST]:
        own = [final.area for final in swept.finals_of(trial)]
        again = f"{np.mean(own):.3f} ({len(own)})" if own else ""
        area, *others = scores(trial)
        rows.append([trial.seed, area, again, *others, *map(_word, trial.parameters.values())])
    columns = ["trial", "area", "with new seeds", "last tenth", "greedy", *chosen.parameters]
    yield tabulate(rows, columns, "github", disable_numparse=True)
    if importances:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in importances.items())
        yield f"Importance of the settings for being among the best quarter (PED-ANOVA):\n{shares}."
    if swept.seeds:
        yield f"The best settings, those of trial {chosen.seed}, {_of_seeds(chosen, swept)}"


def _of_seeds(chosen: Learning, swept: Swept) -> str:
    if not all(learning.differs_by_seed(chosen) for learning in swept.seeds):
        return f"have no new seeds: {SEEDS} is of other settings. Move it away, and sweep again with --retrain."
    count = len(swept.seeds)
    mean, low, high = mean_interval(np.array([learning.area for learning in swept.seeds]))
    solved = sum(learning.greedy is not None and learning.greedy >= 0.95 for learning in swept.seeds)
    interval = "" if count == 1 else f" ({low:.3f} to {high:.3f})"
    return f"with {count} new seeds: area {mean:.3f}{interval}, {solved} of {count} at 0.95 greedy."


def scores(learning: Learning) -> tuple[str, str, str]:
    """The area under the curve, the return in its last tenth and that of the greedy agent, for a table."""
    return number(learning.area), number(learning.final), number(learning.greedy)


def number(value: float | None) -> str:
    """Three decimals, or nothing for what is not known."""
    return "" if value is None or not math.isfinite(value) else f"{value:.3f}"


def words(parameters: dict[str, Any]) -> str:
    """Settings as name=value."""
    return " ".join(f"{name}={_word(value)}" for name, value in parameters.items())


def _word(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
