"""The numbers of Figure 5 of Ba16, from the trainings of sweeps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fw_rl.experiments.search.learning import Learning
from fw_rl.experiments.search.swept import SEEDS, TRIALS, Swept
from fw_rl.intervals import RESAMPLES, interquartile_mean, plain, probability_of_improvement

__all__ = ["read_sweeps", "summarise"]

TOP = 5
"""Trials that are averaged (Ba16 A.3)."""

LEVEL = 0.9
"""The frames until a curve first reaches this return are counted."""

GREEDY_LEVELS = (0.9, 0.95)
"""The trainings whose final greedy return reaches each of these are counted."""

Record = dict[str, Any]


Sweeps = dict[str, dict[str, Swept]]
"""Sweeps by environment and cell."""


def read_sweeps(data: Path) -> Sweeps:
    """All trainings in a folder, by environment and cell; ValueError if there are none, or they can't be compared."""
    sweeps: Sweeps = {}
    for path in sorted(data.glob(f"*/*/{TRIALS}")):
        swept = Swept.read(path.parent)
        if swept.trials:
            sweeps.setdefault(path.parent.parent.name, {})[path.parent.name] = swept
    if not sweeps:
        raise ValueError(f"--data must be a folder with ENV/CELL/{TRIALS}, which `fw-rl sweep` leaves, got {data}")
    for env, cells in sweeps.items():
        _require_same_length(data / env, cells.values())
        for cell, swept in cells.items():
            if len({trial.seed for trial in swept.trials}) < len(swept.trials):
                raise ValueError(f"{data / env / cell / TRIALS} must have every trial once, got one twice")
            _require_new_seeds(data / env / cell / SEEDS, swept)
    return sweeps


def _require_same_length(folder: Path, cells: Iterable[Swept]) -> None:
    learnings = [learning for swept in cells for learning in (*swept.trials, *swept.finals, *swept.seeds)]
    lengths = {(float(learning.frames[-1]), len(learning.returns)) for learning in learnings}
    if len(lengths) > 1:
        frames = " and ".join(f"{frames:,.0f} frames ({parts} points)" for frames, parts in sorted(lengths))
        raise ValueError(f"{folder} must have trainings of one length, which alone can be compared, got {frames}")


def _require_new_seeds(path: Path, swept: Swept) -> None:
    """ValueError unless the seeds are new, and of the best settings: the search chose these by its own seeds' results."""
    chosen = swept.chosen
    taken = {training.seed for training in (*([chosen] if chosen else []), *swept.finals)}
    for learning in swept.seeds:
        seed = learning.seed
        if chosen is None or not learning.differs_by_seed(chosen):
            raise ValueError(
                f"{path} must have the settings of the best trial, got seed {seed} with others: move it away, and sweep again "
                "with --retrain"
            )
        if seed in taken:
            raise ValueError(f"{path} must have new seeds, got {seed} twice, or it had a part in the choice of the settings")
        if not math.isfinite(learning.area):
            raise ValueError(f"{path} must have learning curves, got seed {seed} without one: no episode has ended")
        taken.add(seed)


def summarise(sweeps: Sweeps) -> Record:
    """All numbers of the picture and of the table, as JSON values; unknown or infinite ones are None."""
    environments = {env: _of_environment(cells) for env, cells in sweeps.items()}
    record = dict(level=LEVEL, greedy_levels=GREEDY_LEVELS, top=TOP, resamples=RESAMPLES, environments=environments)
    if len(sweeps) > 1:
        record["over_all"] = _compare(list(sweeps.values()))
    return record


def _of_environment(cells: dict[str, Swept]) -> Record:
    frames = next(iter(cells.values())).trials[0].frames
    found = {cell: _of_cell(swept) for cell, swept in cells.items()}
    return dict(frames=plain(frames), cells=found) | _compare([cells])


def _of_cell(swept: Swept) -> Record:
    top = swept.ranked[:TOP]
    return dict(
        trials=len(swept.trials),
        diverged=sum(trial.diverged for trial in swept.trials),
        pruned=sum(trial.pruned for trial in swept.trials),
        areas=[plain(trial.area) for trial in swept.ranked],
        greedy_reached=_reached(swept.trials),
        top=dict(
            trainings=[_of_training(trial) for trial in top],
            curves=[plain(trial.curve) for trial in top],
            curve=plain(np.mean([trial.curve for trial in top], axis=0)) if top else None,
            area=_mean([trial.area for trial in top]),
            greedy=_mean(_greedy(top)),
        ),
        finals=_of_finals(swept) if swept.finals else None,
        seeds=_of_seeds(swept.seeds) if swept.seeds else None,
    )


def _of_finals(swept: Swept) -> Record:
    """What the best settings of the search are worth without its luck; each of them counts equally."""
    by_settings = [found for trial in swept.finalists if (found := swept.finals_of(trial))]
    areas = [np.array([final.area for final in found if math.isfinite(final.area)]) for found in by_settings]
    known = [some for some in areas if len(some)]  # without those in which no episode has ended
    return dict(
        trainings=[_of_training(final) for final in swept.finals],
        settings=len(by_settings),
        area=plain(interquartile_mean(*known)) if known else None,
        greedy_reached=_reached(swept.finals),
    )


def _of_seeds(seeds: Sequence[Learning]) -> Record:
    frames_to = np.array([seed.frames_to(LEVEL) for seed in seeds])
    return dict(
        trainings=[_of_training(seed) for seed in seeds],
        diverged=sum(seed.diverged for seed in seeds),
        curve=plain(interquartile_mean(np.array([seed.curve for seed in seeds]))),
        frames_to=plain(float(np.median(frames_to))),
        reached=int(np.isfinite(frames_to).sum()),
        greedy=_mean(_greedy(seeds)),
        greedy_reached=_reached(seeds),
    )


def _reached(trainings: Sequence[Learning]) -> list[int]:
    return [sum(value >= level for value in _greedy(trainings)) for level in GREEDY_LEVELS]


def _greedy(trainings: Sequence[Learning]) -> list[float]:
    """The greedy returns; trainings that diverged have none."""
    return [training.greedy for training in trainings if training.greedy is not None]


def _of_training(learning: Learning) -> Record:
    return dict(
        seed=learning.seed,
        parameters=learning.parameters,
        area=plain(learning.area),
        frames_to=plain(learning.frames_to(LEVEL)),
        greedy=learning.greedy,
        diverged=learning.diverged,
    )


def _compare(environments: Sequence[dict[str, Swept]]) -> Record:
    """The areas of the cells that have new seeds in all of the environments, and which of two is probably larger."""
    areas = {
        cell: [np.array([seed.area for seed in cells[cell].seeds]) for cells in environments]
        for cell in environments[0]
        if all(cell in cells and cells[cell].seeds for cells in environments)
    }
    improvement = [
        dict(x=x, y=y, probability=plain(probability_of_improvement(*zip(areas[x], areas[y], strict=True))))
        for x, y in combinations(areas, 2)
    ]
    return dict(areas={cell: plain(interquartile_mean(*scores)) for cell, scores in areas.items()}, improvement=improvement)


def _mean(values: Sequence[float]) -> Any:
    return plain(float(np.mean(values))) if values else None
