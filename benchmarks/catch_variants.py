"""Which parts of an agent matter on Catch, and which memory copes with harder games: variants of the best settings of a sweep.

    python benchmarks/catch_variants.py --sweep results/figure5 --out results/variants

The ablations change one thing at a time in the best settings of the fast weights. The harder games are larger, or have
meaningless pixels in the frames that would be blank; every cell plays them with its best settings, for the same number of
episodes. Runs are recorded one by one, and recorded runs are not repeated.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tabulate import tabulate

from fw_rl.commands.command_line import fail
from fw_rl.experiments.checks import check_count
from fw_rl.experiments.search.learning import Job, Learning, Trainings, read_learnings
from fw_rl.experiments.search.live import train_missing
from fw_rl.experiments.search.swept import SEEDS
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file
from fw_rl.intervals import interquartile_mean

FIRST_SEED = 20_000
CELLS = ("fast-weights", "lstm", "rnn")

ABLATIONS: dict[str, dict[str, Any]] = {
    "as found": {},
    "no fast weights (eta 0)": dict(cell_options=dict(eta=0.0)),
    "no layer norm": dict(cell_options=dict(layer_norm=False)),
    "layer norm of h_0 as well": dict(cell_options=dict(norm_placement="all")),
    "layer norm of the recall alone": dict(cell_options=dict(norm_placement="recall")),
    "one inner step": dict(cell_options=dict(inner_steps=1)),
    "two inner steps": dict(cell_options=dict(inner_steps=2)),
    "three inner steps": dict(cell_options=dict(inner_steps=3)),
    "eta 0.5, decay 0.95 (the paper's)": dict(cell_options=dict(eta=0.5, decay=0.95)),
    "decay 0.9": dict(cell_options=dict(decay=0.9)),
    "the delta rule, eta 1, decay 0.5": dict(cell_options=dict(rule="delta", eta=1.0, decay=0.5)),
    "eta and decay learned": dict(cell_options=dict(learn_eta=True, learn_decay=True)),
    "W at 0.05 I (the paper's)": dict(cell_options=dict(recurrent_scale=0.05)),
    "W at 0.5 I": dict(cell_options=dict(recurrent_scale=0.5)),
    "Adam": dict(optimizer="adam"),
    "RMSprop": dict(optimizer="rmsprop"),
    "16 environments": dict(n_envs=16),
    "sees its previous step": dict(previous_step=True),
}
"""What is different, by name."""

HARDER = {"Catch-32-3": 32, "Catch-48-3": 48, "Catch-16-3-8": 16}
"""Games, and the steps of a rollout plus one."""


@dataclass(frozen=True)
class Settings:
    """What to train."""

    sweep: Path = Path("results/figure5")
    """Folder of a sweep, with ENV/CELL/seeds.json."""
    env: str = "Catch-16-3"
    """Game of the sweep whose best settings are varied."""
    kinds: tuple[str, ...] = ("ablations", "harder")
    """ablations, harder, or both."""
    seeds: int = 5
    """Seeds of each variant."""
    harder_episodes: int = 200_000
    """Episodes of a training in a harder game; an episode of Catch-N has N - 1 frames."""
    timesteps: int | None = None
    """Frames of an ablation; by default those of the sweep."""
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Trainings side by side."""
    eval_episodes: int = 1000
    """Episodes of the greedy evaluation."""
    out: Path = Path("results/variants")
    """Folder for the records and tables."""


def main(settings: Settings) -> int:
    """Train and write the tables; returns the exit code: 0 done, 2 bad input."""
    try:
        check(settings)
        wanted = {kind: dict(KINDS[kind](settings)) for kind in settings.kinds}
        for kind, variants in wanted.items():
            learnings = train(kind, variants, settings)
            text = f"## {kind.capitalize()}\n\n{table(learnings)}\n"
            write_file(settings.out / f"{kind}.md", text.encode())
            print(f"\n{text}")
    except (ValueError, OSError) as error:
        return fail("catch_variants.py", error)
    return 0


def check(settings: Settings) -> None:
    """Raises ValueError if nothing can be trained with the settings."""
    for name in ("seeds", "jobs", "eval_episodes", "harder_episodes"):
        check_count(name, getattr(settings, name))
    if unknown := [kind for kind in settings.kinds if kind not in KINDS]:
        raise ValueError(f"--kinds must be some of {', '.join(KINDS)}, got {unknown[0]!r}")


def best_settings(settings: Settings, cell: str) -> RunSettings:
    """The settings that the sweep has trained with new seeds."""
    path = settings.sweep / settings.env / cell / SEEDS
    if not (learnings := read_learnings(path)):
        raise ValueError(f"--sweep must have {path}, which `fw-rl sweep` leaves with --retrain, got none")
    return RunSettings(**learnings[0].settings)


def ablations(settings: Settings) -> Iterator[tuple[str, RunSettings]]:
    """The fast weights with one thing changed; changes that the best settings already have are left out."""
    base = best_settings(settings, "fast-weights")
    base = replace(base, timesteps=settings.timesteps or base.timesteps, seed=0)
    for name, changes in ABLATIONS.items():
        options = base.cell_options | changes.get("cell_options", {})
        changed = replace(base, **changes | dict(cell_options=options))
        if changed != base or not changes:
            yield name, changed


def harder(settings: Settings) -> Iterator[tuple[str, RunSettings]]:
    """Every cell with its best settings in every harder game, in rollouts of an episode."""
    for game, n in HARDER.items():
        for cell in CELLS:
            base = best_settings(settings, cell)
            frames = settings.harder_episodes * (n - 1)
            yield f"{game}, {cell}", replace(base, env=f"fw_rl/{game}-v0", n_steps=n - 1, timesteps=frames, seed=0)


def train(kind: str, wanted: dict[str, RunSettings], settings: Settings) -> list[Learning]:
    """Make the trainings that are missing; returns all that are wanted."""
    seeds = range(FIRST_SEED, FIRST_SEED + settings.seeds)
    jobs = [Job(replace(config, seed=seed), dict(variant=name)) for seed in seeds for name, config in wanted.items()]
    return train_missing(settings.out / f"{kind}.json", jobs, kind, Trainings(settings.jobs, settings.eval_episodes))


def table(learnings: list[Learning]) -> str:
    """A row for each variant, in the order in which they were trained."""
    area_column = "area (interquartile mean, 95 % interval)"
    columns = ["variant", "frames", "seeds", area_column, "frames to 0.9, median", "greedy return", "greedy 0.95 or more"]
    rows = []
    for name in dict.fromkeys(learning.parameters["variant"] for learning in learnings):
        own = [learning for learning in learnings if learning.parameters["variant"] == name]
        area = interquartile_mean(np.array([learning.area for learning in own]))
        to_level = np.median([learning.frames_to(0.9) for learning in own])
        greedy = [learning.greedy for learning in own if learning.greedy is not None]
        solved = sum(value >= 0.95 for value in greedy)
        reached = f"{to_level:,.0f}" if np.isfinite(to_level) else "not reached"
        mean = f"{np.mean(greedy):.3f}" if greedy else "diverged"
        interval = f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})"
        frames = f"{own[0].settings['timesteps']:,}"
        rows.append([name, frames, len(own), interval, reached, mean, f"{solved} of {len(own)}"])
    return tabulate(rows, columns, "github", disable_numparse=True)


KINDS = {"ablations": ablations, "harder": harder}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
