"""`figure5`: Figure 5 of Ba16 from the trainings of a sweep, and beside it what seeds that no search has chosen say."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from fw_rl.commands.command_line import fail
from fw_rl.experiments.figure5_report import describe, draw
from fw_rl.experiments.search.choice import best, choose, finalists, with_settings_of
from fw_rl.experiments.search.learning import FINALS, SEEDS, TRIALS, Learning, known_learnings, read_learnings
from fw_rl.files import write_file
from fw_rl.intervals import RESAMPLES, Estimate, interquartile_mean, probability_of_improvement

__all__ = ["Figure5Options", "Swept", "main", "read_sweeps", "summarise"]

TOP = 5
"""Trials that are averaged (Ba16 A.3)."""

LEVEL = 0.9
"""The return whose first reaching is counted in frames."""

GREEDY_LEVELS = (0.9, 0.95)
"""The greedy returns for which it is counted how many trainings have them in the end."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Figure5Options:
    """Figure 5 of Ba16: how fast agents with different memories learn, from the trainings of `fw-rl sweep`.

    The mean of the five best trials of the search, as in the paper; the best settings trained with new seeds: interquartile
    means, bootstrap intervals, probabilities of improvement; and what all settings that were drawn came to. It trains nothing,
    and leaves a picture, a table and the numbers.
    """

    data: Path = Path("runs/sweep")
    """Folder with ENV/CELL/trials.json; finals.json for the finalists, and seeds.json for the best settings with new seeds."""
    out: Path = Path("runs/figure5")
    """Folder of the picture, the table and the numbers."""


@dataclass(frozen=True)
class Swept:
    """The trainings of a cell on an environment: the trials of the search, the finalists, the best settings with new seeds."""

    trials: list[Learning]
    finals: list[Learning]
    seeds: list[Learning]

    @property
    def all(self) -> list[Learning]:
        """All of them."""
        return self.trials + self.finals + self.seeds

    @property
    def top(self) -> list[Learning]:
        """The five trials with the largest areas under their curves, the largest first; none that diverged."""
        return best(self.trials, TOP)


Sweeps = dict[str, dict[str, Swept]]
"""By environment and cell."""


def main(arguments: Sequence[str], program: str = "fw-rl figure5") -> int:
    """Run the command; returns its exit code: 0 done, 2 bad input."""
    options = tyro.cli(Figure5Options, args=arguments, prog=program)
    command = shlex.join([*program.split(), *arguments])
    try:
        record = dict(command=command) | summarise(read_sweeps(options.data))
        text, picture = describe(record), draw(record)
        write_file(options.out / "figure5.json", (json.dumps(record, allow_nan=False) + "\n").encode())
        write_file(options.out / "figure5.md", text.encode())
        write_file(options.out / "figure5.png", picture)
    except (ValueError, OSError) as error:
        return fail(program, error)
    print(f"{text}\nThe picture, this table and the numbers: {options.out}")
    return 0


def read_sweeps(data: Path) -> Sweeps:
    """All trainings in a folder.

    Raises ValueError if there are none, or if those of an environment can't be compared, and OSError for an unreadable file.
    """
    if not data.is_dir():
        raise ValueError(f"{data} is not a folder: --data is the one that `fw-rl sweep` has left")
    sweeps: Sweeps = {}
    for path in sorted(data.glob(f"*/*/{TRIALS}")):
        if trials := read_learnings(path):
            finals, seeds = (known_learnings(path.with_name(name)) for name in (FINALS, SEEDS))
            swept = Swept(trials, finals, seeds)
            sweeps.setdefault(path.parent.parent.name, {})[path.parent.name] = swept
    if not sweeps:
        raise ValueError(f"{data} has no trainings: `fw-rl sweep` leaves them in ENV/CELL/{TRIALS}")
    for env, cells in sweeps.items():
        _require_same_length(data / env, [learning for swept in cells.values() for learning in swept.all])
        for cell, swept in cells.items():
            _require_once(data / env / cell / TRIALS, swept.trials)
            _require_new_seeds(data / env / cell / SEEDS, swept)
    return sweeps


def _require_once(path: Path, trials: Sequence[Learning]) -> None:
    if len({trial.seed for trial in trials}) < len(trials):
        raise ValueError(f"{path} has a trial twice")


def _require_same_length(folder: Path, learnings: Sequence[Learning]) -> None:
    lengths = {(float(learning.frames[-1]), len(learning.returns)) for learning in learnings}
    if len(lengths) > 1:
        frames = " and ".join(f"{frames:,.0f} frames ({parts} points)" for frames, parts in sorted(lengths))
        raise ValueError(f"{folder} has trainings of {frames}: only equal ones can be compared")


def _require_new_seeds(path: Path, swept: Swept) -> None:
    """New seeds are to tell about the best settings what the search, which chose them for what they came to, can't."""
    chosen = choose(swept.trials, swept.finals)
    taken = {training.seed for training in ([chosen] if chosen else []) + swept.finals}
    for learning in swept.seeds:
        seed = learning.seed
        if chosen is None or not learning.differs_by_seed(chosen):
            raise ValueError(
                f"{path} has seed {seed} with other settings than those of the best trial: move it away, and sweep again "
                "with --retrain"
            )
        if seed in taken:
            raise ValueError(f"{path} has seed {seed} twice, or it had a part in the choice of the settings")
        if not math.isfinite(learning.area):
            raise ValueError(f"{path} has seed {seed} without a learning curve: no episode has ended")
        taken.add(seed)


def summarise(sweeps: Sweeps) -> Record:
    """All numbers of the picture and of the table, as JSON has them: what is not known, or infinite, is None."""
    environments = {env: _of_environment(cells) for env, cells in sweeps.items()}
    record = dict(level=LEVEL, greedy_levels=GREEDY_LEVELS, top=TOP, resamples=RESAMPLES, environments=environments)
    if len(sweeps) > 1:
        record["over_all"] = _compare(list(sweeps.values()))
    return record


def _of_environment(cells: dict[str, Swept]) -> Record:
    frames = next(iter(cells.values())).trials[0].frames
    found = {cell: _of_cell(swept) for cell, swept in cells.items()}
    return dict(frames=_plain(frames), cells=found) | _compare([cells])


def _of_cell(swept: Swept) -> Record:
    top = swept.top
    return dict(
        trials=len(swept.trials),
        diverged=sum(trial.diverged for trial in swept.trials),
        pruned=sum(trial.pruned for trial in swept.trials),
        areas=[_plain(trial.area) for trial in best(swept.trials, len(swept.trials))],
        greedy_reached=_reached(swept.trials),
        top=dict(
            trainings=[_of_training(trial) for trial in top],
            curves=[_plain(trial.curve) for trial in top],
            curve=_plain(np.mean([trial.curve for trial in top], axis=0)) if top else None,
            area=_mean([trial.area for trial in top]),
            greedy=_mean(_greedy(top)),
        ),
        finals=_of_finals(swept) if swept.finals else None,
        seeds=_of_seeds(swept.seeds) if swept.seeds else None,
    )


def _of_finals(swept: Swept) -> Record:
    """What the best settings of the search are worth without its luck: each of them counts alike."""
    tried = finalists(swept.trials, len(swept.trials))
    by_settings = [found for trial in tried if (found := with_settings_of(trial, swept.finals))]
    return dict(
        trainings=[_of_training(final) for final in swept.finals],
        settings=len(by_settings),
        area=_plain(interquartile_mean(*(np.array([final.area for final in found]) for found in by_settings))),
        greedy_reached=_reached(swept.finals),
    )


def _of_seeds(seeds: list[Learning]) -> Record:
    frames_to = np.array([seed.frames_to(LEVEL) for seed in seeds])
    return dict(
        trainings=[_of_training(seed) for seed in seeds],
        diverged=sum(seed.diverged for seed in seeds),
        curve=_plain(interquartile_mean(np.array([seed.curve for seed in seeds]))),
        frames_to=_plain(float(np.median(frames_to))),
        reached=int(np.isfinite(frames_to).sum()),
        greedy=_mean(_greedy(seeds)),
        greedy_reached=_reached(seeds),
    )


def _reached(trainings: list[Learning]) -> list[int]:
    return [sum(value >= level for value in _greedy(trainings)) for level in GREEDY_LEVELS]


def _greedy(trainings: list[Learning]) -> list[float]:
    """The greedy returns; those that diverged have none."""
    return [training.greedy for training in trainings if training.greedy is not None]


def _of_training(learning: Learning) -> Record:
    return dict(
        seed=learning.seed,
        parameters=learning.parameters,
        area=_plain(learning.area),
        frames_to=_plain(learning.frames_to(LEVEL)),
        greedy=learning.greedy,
        diverged=learning.diverged,
    )


def _compare(environments: Sequence[dict[str, Swept]]) -> Record:
    """The areas of the cells that have new seeds in every one of the environments, and which of two has the larger one."""
    areas = {
        cell: [_areas(cells[cell]) for cells in environments]
        for cell in environments[0]
        if all(cell in cells and cells[cell].seeds for cells in environments)
    }
    improvement = [
        dict(x=x, y=y, probability=_plain(probability_of_improvement(*zip(areas[x], areas[y], strict=True))))
        for x, y in combinations(areas, 2)
    ]
    return dict(areas={cell: _plain(interquartile_mean(*scores)) for cell, scores in areas.items()}, improvement=improvement)


def _areas(swept: Swept) -> NDArray[np.float64]:
    return np.array([seed.area for seed in swept.seeds])


def _mean(values: Sequence[float]) -> Any:
    return _plain(float(np.mean(values))) if values else None


def _plain(values: NDArray[np.float64] | Estimate | float) -> Any:
    """As JSON has it, without digits that say nothing; of an estimate [value, low, high], for each point of a curve."""
    numbers = np.asarray(np.round(values, 6))
    if isinstance(values, Estimate):
        numbers = np.moveaxis(numbers, 0, -1)
    plain = numbers.astype(object)
    plain[~np.isfinite(numbers)] = None
    return plain.tolist()
