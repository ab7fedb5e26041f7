"""`memories`: every cell on every game, with one set of settings per cell, beside the returns of POPGym's paper."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import tyro

from fw_rl.commands.command_line import fail, fault, parse
from fw_rl.experiments.checks import check_count, check_processes, check_seed, make_folder, require_option
from fw_rl.experiments.memories import jobs, published, settings_by_cell, train
from fw_rl.experiments.memories_report import write_report
from fw_rl.processes import WorkerError

__all__ = ["MemoriesOptions", "main"]


@dataclass(frozen=True)
class MemoriesOptions:
    """Compare memory cells on many games, beside the returns of POPGym's paper.

    Every cell is trained by PPO with its own settings, the same in all games; they are in tuned.yaml and memories.yaml in
    fw_rl/experiments. The score is the paper's: the mean return of the best epoch of a training, of about 65,536 frames.
    Trainings in OUT/runs.json are not repeated: run an interrupted command again to continue it. Each agent is kept in a folder
    in OUT/agents, for `fw-rl play` and `fw-rl export`.
    """

    games: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--game"], metavar="ID ...")] = field(
        default_factory=lambda: tuple(published())
    )
    """Games; by default those of POPGym whose published returns are known here, and the retrieval game."""
    cells: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--cell"], metavar="NAME ...")] = field(
        default_factory=lambda: tuple(settings_by_cell())
    )
    """Memory cells, or module:name for one that a module registers."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(aliases=["--seed"], metavar="INT ...")] = (0, 1, 2)
    """Seeds with which each cell is trained on each game."""
    frames: int = 3_000_000
    """Frames of a training; trainings of other lengths are kept apart."""
    eval_episodes: int = 100
    """Episodes of the greedy evaluation at the end of a training."""
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Trainings side by side, each in a process with one thread."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs/memories")
    """Folder for the trainings, the tables and the pictures."""
    show_table: bool = False
    """Train nothing: make the tables and pictures of the existing trainings."""
    quiet: bool = False
    """Print a line for each finished training instead of a live table."""


def main(arguments: Sequence[str], program: str = "fw-rl memories") -> int:
    """Run the command; returns its exit code: 0 done, 1 a worker failed or a fault, 2 bad input, 130 interrupted."""
    options = parse(MemoriesOptions, arguments, program)
    command = shlex.join([*program.split(), *arguments])
    try:
        _check(options)
        wanted = jobs(options.games, options.cells, options.seeds, options.frames, options.out)
        make_folder("out", options.out)
    except (ValueError, OSError, gym.error.Error) as error:
        return fail(program, error)
    try:
        if not options.show_table:
            train(wanted, options.out, options.jobs, options.eval_episodes, options.quiet)
        report = write_report(command, wanted, options.out)
    except KeyboardInterrupt:
        print(f"Interrupted. The same command goes on where it was ({options.out}).")
        return 130
    except ModuleNotFoundError as error:
        return fail(program, f"{error.name} is missing: pip install 'fw-rl[sweep]'")
    except (ValueError, gym.error.Error) as error:
        return fail(program, error)
    except OSError as error:
        whole = f"the trainings in {options.out} are whole: once that is fixed, the same command goes on"
        return fault(program, error, whole)
    except WorkerError as error:
        return fail(program, error.summary, code=1, details=error.details)
    print(f"\n{report}\nTables, pictures and agents: {options.out}")
    return 0


def _check(options: MemoriesOptions) -> None:
    for name in ("frames", "eval_episodes"):
        check_count(name, getattr(options, name))
    check_processes("jobs", options.jobs)
    for seed in options.seeds:
        check_seed("seeds", seed)
    for name in ("games", "cells", "seeds"):
        require_option(name, "none", len(getattr(options, name)) > 0, "one or more")
