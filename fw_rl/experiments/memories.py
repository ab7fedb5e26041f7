"""Cells and games: trainings with one set of settings per cell, and their results beside POPGym's published returns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from fw_rl.experiments.checks import require_option
from fw_rl.experiments.search.learning import Job, Learning, Trainings, read_learnings
from fw_rl.experiments.settings import resolve, settings_of_games
from fw_rl.intervals import mean_interval, plain

__all__ = ["EPOCH", "ROUNDING", "Published", "Record", "jobs", "published", "settings_by_cell", "summarise", "train", "trained"]

Record = dict[str, Any]

RUNS = "runs.json"
"""The file of all trainings of a folder."""

EPOCH = 65_536
"""Frames of an epoch in POPGym's paper, whose score of a training is the mean return of its best epoch."""

ROUNDING = 0.005
"""A return may be this much below the paper's and still reach it: some of the published ones have two decimals."""


class Published(NamedTuple):
    """Two returns of a game in POPGym's paper: its GRU's, and the best of its thirteen models."""

    gru: float
    best: float


@cache
def _data() -> dict[str, Any]:
    return yaml.safe_load(resources.files("fw_rl.experiments").joinpath("memories.yaml").read_text())


def settings_by_cell() -> dict[str, dict[str, Any]]:
    """The settings of the cells that are compared by default, the same in every game."""
    return {cell: _settings(cell) for cell in _data()["cells"]}


def published() -> dict[str, Published | None]:
    """The default games, in order; None where the paper has no such game."""
    return {game: Published(**returns) if returns else None for game, returns in _data()["games"].items()}


def _settings(cell: str) -> dict[str, Any]:
    return settings_of_games(cell) | (_data()["cells"].get(cell) or {})


def jobs(games: Sequence[str], cells: Sequence[str], seeds: Sequence[int], frames: int, out: Path) -> list[Job]:
    """The trainings of a table, seed by seed, so that an interrupted command has some of everything.

    Each leaves its agent in a folder of its own in `out`. ValueError for an unknown game or cell, or too few frames.
    """
    wanted = {}
    for seed, game, cell in product(seeds, games, cells):
        settings = _settings(cell) | dict(env=game, cell=cell, seed=seed, timesteps=frames)
        rollout = settings["n_envs"] * settings["n_steps"]
        require_option("frames", frames, frames >= rollout, f"at least {rollout}, the steps of a rollout")
        config = resolve(**settings)
        name = f"{config.short_env}_{config.short_cell}_{frames}_seed{seed}"
        wanted[name] = Job(config, dict(game=config.short_env, cell=config.short_cell), out / "agents" / name)
    return list(wanted.values())


def train(wanted: Sequence[Job], out: Path, side_by_side: int, eval_episodes: int, quiet: bool) -> None:
    """Make the trainings that the folder does not have yet."""
    from fw_rl.experiments.search.live import train_missing  # needs rich, which a table of existing trainings does not

    train_missing(out / RUNS, wanted, "memories", Trainings(side_by_side, eval_episodes), quiet)


def trained(wanted: Sequence[Job], out: Path) -> list[tuple[Job, Learning]]:
    """The wanted trainings that the folder has, in order."""
    found = read_learnings(out / RUNS)
    return [(job, learning) for job in wanted for learning in found if learning.is_of(job)]


def summarise(learnings: Sequence[Learning]) -> Record:
    """All numbers of the report as JSON values, by game, and by cell within it; unknown ones are None."""
    groups: dict[str, dict[str, list[Learning]]] = {}
    for learning in learnings:
        game, cell = (learning.parameters[name] for name in ("game", "cell"))
        groups.setdefault(game, {}).setdefault(cell, []).append(learning)
    return dict(
        source=_data()["source"],
        frames=learnings[0].settings["timesteps"],
        games={game: _of_game(published().get(game), cells) for game, cells in groups.items()},
    )


def _of_game(paper: Published | None, cells: dict[str, list[Learning]]) -> Record:
    return dict(
        paper=paper and paper._asdict(),
        cells={cell: _of_cell(paper, sorted(found, key=lambda one: one.seed)) for cell, found in cells.items()},
    )


def _of_cell(paper: Published | None, found: list[Learning]) -> Record:
    best = np.array([learning.epochs(EPOCH)[1].max() for learning in found])
    curves = np.array([learning.curve for learning in found])
    seconds = np.array([_seconds_to(paper, learning) for learning in found])
    return dict(
        seeds=[learning.seed for learning in found],
        diverged=sum(learning.diverged for learning in found),
        best=plain(best),
        estimate=plain(np.stack(mean_interval(best))),
        curve=plain(np.stack(mean_interval(curves))),
        frames=plain(found[0].frames),
        frames_per_second=plain(np.median([one.settings["timesteps"] / max(one.seconds or 0, 0.1) for one in found])),
        seconds_to_paper=plain(np.median(seconds)),
        reached_paper=int(np.isfinite(seconds).sum()),
    )


def _seconds_to(paper: Published | None, learning: Learning) -> float:
    """Seconds until an epoch reaches the best of the paper, infinite if none does."""
    if paper is None or learning.seconds is None:
        return float("inf")
    ends, returns = learning.epochs(EPOCH)
    reached = ends[returns >= paper.best - ROUNDING]
    return float(reached[0]) / learning.settings["timesteps"] * learning.seconds if reached.size else float("inf")
