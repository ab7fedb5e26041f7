"""Can the fast weights of Catch hold the ball's column themselves, over the blank frames, without W?

    python benchmarks/catch_memory.py --sweep results/variants/sweep --out results/memory

The best settings of the fast weights on Catch-16-3 have a decay at which they fade within two frames. Here W is learned, stays
at its start, or is removed (W = 0), with that decay and with the paper's of 0.95, at the rate eta 0.01, which lets a slow decay
work. The picture shows which frames the agents read at the last decision. Runs are recorded one by one, and recorded runs are
not repeated.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tyro
from catch_variants import best_settings, table
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fw_rl.commands.command_line import fail
from fw_rl.experiments.agents import load_trained
from fw_rl.experiments.attention import attention_shares
from fw_rl.experiments.checks import check_count
from fw_rl.experiments.curves import STYLE, as_png
from fw_rl.experiments.episodes import open_env, play_episode
from fw_rl.experiments.search.learning import Job, Trainings
from fw_rl.experiments.search.live import train_missing
from fw_rl.files import write_file

FIRST_SEED = 20_000
SEEN = 3
"""Frames that show ball and paddle."""

NONE: dict[str, Any] = dict(recurrent_scale=0.0, learn_recurrent=False)
VARIANTS: dict[str, dict[str, Any]] = {
    "W learned, decay 0.24, as found": {},
    "W learned, decay 0.95": dict(decay=0.95, eta=0.01),
    "W at its start, decay 0.95": dict(decay=0.95, eta=0.01, learn_recurrent=False),
    "W = 0, decay 0.24": NONE,
    "W = 0, decay 0.95": dict(decay=0.95, eta=0.01) | NONE,
    "W = 0, decay 0.95, eta 0.5 (the paper's)": dict(decay=0.95, eta=0.5) | NONE,
    "W = 0, no decay": dict(decay=1.0, eta=0.01) | NONE,
    "W = 0, no fast weights (eta 0)": dict(eta=0.0) | NONE,
}
"""What is different from the best settings of the sweep, by name."""


@dataclass(frozen=True)
class Settings:
    """What to train."""

    sweep: Path = Path("results/figure5")
    """Folder of a sweep, with ENV/CELL/seeds.json."""
    env: str = "Catch-16-3"
    """Game of the sweep whose best settings are varied."""
    seeds: int = 5
    """Seeds of each variant."""
    timesteps: int = 2_000_000
    """Frames of a training."""
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Trainings side by side."""
    eval_episodes: int = 1000
    """Episodes of the greedy evaluation."""
    read_episodes: int = 50
    """Episodes of each agent in which its reads are recorded."""
    out: Path = Path("results/memory")
    """Folder for record, table, picture and agents."""


def main(settings: Settings) -> int:
    """Train, and write table and picture; returns the exit code: 0 done, 2 bad input."""
    try:
        for name in ("seeds", "timesteps", "jobs", "eval_episodes", "read_episodes"):
            check_count(name, getattr(settings, name))
        jobs = list(trainings(settings))
    except (ValueError, OSError) as error:
        return fail("catch_memory.py", error)
    learnings = train_missing(settings.out / "memory.json", jobs, "memory", Trainings(settings.jobs, settings.eval_episodes))
    text = table(learnings)
    write_file(settings.out / "memory.md", f"{text}\n".encode())
    write_file(settings.out / "memory.png", draw(dict(read_frames(jobs, settings.read_episodes))))
    print(text)
    return 0


def trainings(settings: Settings) -> Iterator[Job]:
    """All trainings, seed by seed."""
    base = replace(best_settings(settings, "fast-weights"), timesteps=settings.timesteps)  # type: ignore[arg-type]
    for seed in range(FIRST_SEED, FIRST_SEED + settings.seeds):
        for number, (name, options) in enumerate(VARIANTS.items()):
            config = replace(base, seed=seed, cell_options=base.cell_options | options)
            yield Job(config, dict(variant=name), settings.out / "agents" / f"{number}_seed{seed}")


def read_frames(jobs: list[Job], episodes: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """By variant, the share of attention that its agents give to each earlier frame at the last decision, [agents, T - 1]."""
    for name in VARIANTS:
        folders = [job.folder for job in jobs if job.parameters["variant"] == name and job.config.cell_options["eta"]]
        if found := [last_shares(folder, episodes) for folder in folders if folder]:
            yield name, np.stack(found)


def last_shares(folder: Path, episodes: int) -> NDArray[np.float64]:
    """The shares of one agent, the mean over greedy episodes."""
    config, model = load_trained(folder)
    env = open_env(config, None, model)
    played = (play_episode(model, env, seed=seed) for seed in range(episodes))
    shares: NDArray[np.float64] = np.mean([attention_shares(model, episode)[-1, :-1] for episode in played], axis=0)
    return shares


def draw(found: dict[str, NDArray[np.float64]]) -> bytes:
    """A panel for each variant as a PNG file: bars of the mean over agents, and a dot for each agent."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 5.2), dpi=120, layout="constrained")
        panels = figure.subplots(2, -(-len(found) // 2), sharex=True, sharey=True)
        for axes, (name, shares) in zip(panels.flat, found.items(), strict=False):
            frames = np.arange(shares.shape[1])
            axes.bar(frames, 100 * shares.mean(0), color=["#1d4ed8" if frame < SEEN else "#93c5fd" for frame in frames])
            axes.plot(frames, 100 * shares.T, ".", color="#111827", markersize=3)
            axes.set_title(name.replace(", eta", "\neta"), fontsize=9, loc="left")
            axes.tick_params(labelbottom=True)
        for axes in panels.flat[len(found) :]:
            axes.set_visible(False)
        figure.supxlabel("frame that is read at the last decision; the first three show ball and paddle, the others are blank")
        figure.supylabel("share of the attention in percent")
        return as_png(figure)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
