"""What is in the folder of a sweep, which of its settings are the best, and its report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fw_rl.experiments.markdown import number, table
from fw_rl.experiments.search.learning import Learning, read_learnings
from fw_rl.intervals import mean_interval

__all__ = ["BEST", "FINALS", "SEEDS", "TRIALS", "Swept", "report", "scores", "words"]

TRIALS, FINALS, SEEDS = "trials.json", "finals.json", "seeds.json"
"""Files of a sweep, by environment and cell: the search, its best with new seeds, the best of these with others."""

BEST = 5
"""How many trials are shown."""


@dataclass(frozen=True)
class Swept:
    """The trainings of a cell on an environment: the search, its best settings with new seeds, the best of these again."""

    trials: Sequence[Learning]
    finals: Sequence[Learning] = ()
    seeds: Sequence[Learning] = ()

    @staticmethod
    def read(folder: Path) -> Swept:
        """The trainings in a folder."""
        return Swept(*(read_learnings(folder / name) for name in (TRIALS, FINALS, SEEDS)))

    @property
    def ranked(self) -> list[Learning]:
        """The trials with an area, the largest first; none that diverged or was pruned."""
        return sorted((trial for trial in self.trials if trial.is_ranked), key=lambda trial: -trial.area)

    @property
    def finalists(self) -> list[Learning]:
        """The ranked trials, without repeated settings."""
        ranked = self.ranked
        return [trial for i, trial in enumerate(ranked) if all(trial.parameters != better.parameters for better in ranked[:i])]

    @property
    def chosen(self) -> Learning | None:
        """The trial whose settings are the best, None if no trial has a value.

        The largest area of many trials is partly luck. If there are trainings with new seeds, the mean area over these decides;
        settings with which one of them diverged are the worst.
        """
        ranked = self.ranked
        tried = [trial for trial in ranked if self.finals_of(trial)]
        return max(tried, key=self._worth, default=ranked[0] if ranked else None)

    def finals_of(self, trial: Learning) -> list[Learning]:
        """The trainings of a trial's settings with new seeds."""
        return [final for final in self.finals if final.parameters == trial.parameters]

    def _worth(self, trial: Learning) -> float:
        return float(np.mean([final.area if final.is_ranked else -math.inf for final in self.finals_of(trial)]))


def report(title: str, swept: Swept, importances: dict[str, float]) -> Iterator[str]:
    """The results of a sweep as paragraphs of Markdown, with the importance of each setting."""
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
    yield table(columns, rows)
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


def words(parameters: dict[str, Any]) -> str:
    """Settings as name=value."""
    return " ".join(f"{name}={_word(value)}" for name, value in parameters.items())


def _word(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
