"""What a sweep has left in its folder, and which of its settings are the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fw_rl.experiments.search.learning import Learning, read_learnings

__all__ = ["FINALS", "SEEDS", "TRIALS", "Swept"]

TRIALS, FINALS, SEEDS = "trials.json", "finals.json", "seeds.json"
"""Files of a sweep, by environment and cell: the search, its best settings with new seeds, the best of these with others."""


@dataclass(frozen=True)
class Swept:
    """The trainings of a cell on an environment."""

    trials: Sequence[Learning]
    finals: Sequence[Learning] = ()
    seeds: Sequence[Learning] = ()

    @staticmethod
    def read(folder: Path) -> Swept:
        """What a folder has."""
        return Swept(*(read_learnings(folder / name) for name in (TRIALS, FINALS, SEEDS)))

    @property
    def ranked(self) -> list[Learning]:
        """The trials with an area, the largest first; none that diverged or was pruned."""
        return sorted((trial for trial in self.trials if trial.is_ranked), key=lambda trial: -trial.area)

    @property
    def finalists(self) -> list[Learning]:
        """The ranked trials of different settings."""
        ranked = self.ranked
        return [trial for i, trial in enumerate(ranked) if all(trial.parameters != better.parameters for better in ranked[:i])]

    @property
    def chosen(self) -> Learning | None:
        """The trial whose settings are the best, None if no trial has a value.

        The trial with the largest area, of many, owes it to luck as well. If there are trainings with new seeds, the mean area
        over these decides; settings with which one of them diverged are the worst.
        """
        ranked = self.ranked
        tried = [trial for trial in ranked if self.finals_of(trial)]
        return max(tried, key=self._worth, default=ranked[0] if ranked else None)

    def finals_of(self, trial: Learning) -> list[Learning]:
        """The trainings of a trial's settings with new seeds."""
        return [final for final in self.finals if final.parameters == trial.parameters]

    def _worth(self, trial: Learning) -> float:
        return float(np.mean([final.area if final.is_ranked else -math.inf for final in self.finals_of(trial)]))
