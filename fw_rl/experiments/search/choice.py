"""Which settings of a search are its best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fw_rl.experiments.search.learning import Learning

__all__ = ["best", "choose", "finalists", "with_settings_of"]


def best(trials: Sequence[Learning], count: int) -> list[Learning]:
    """The trainings with the largest areas under their curves, the largest first; none that diverged or was pruned."""
    return sorted((trial for trial in trials if trial.is_ranked), key=lambda trial: -trial.area)[:count]


def finalists(trials: Sequence[Learning], count: int) -> list[Learning]:
    """The best trials of so many different settings."""
    found: list[Learning] = []
    for trial in best(trials, len(trials)):
        if not with_settings_of(trial, found):
            found.append(trial)
    return found[:count]


def choose(trials: Sequence[Learning], finals: Sequence[Learning]) -> Learning | None:
    """The trial whose settings are the best, None if no trial has a value.

    `finals`: trainings of some trials' settings with new seeds. If there are any, the mean area over these decides: the trial
    with the largest area, of many, owes it to luck as well. Settings with which one of them diverged are the worst.
    """
    ranked = best(trials, len(trials))
    tried = [trial for trial in ranked if with_settings_of(trial, finals)]
    if not tried:
        return ranked[0] if ranked else None
    return max(tried, key=lambda trial: np.mean([_worth(final) for final in with_settings_of(trial, finals)]))


def with_settings_of(trial: Learning, trainings: Sequence[Learning]) -> list[Learning]:
    """Those of the trainings that have what was searched as in the trial."""
    return [training for training in trainings if training.parameters == trial.parameters]


def _worth(training: Learning) -> float:
    return training.area if training.is_ranked else -math.inf
