"""`curves`: the learning curves of many runs as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from fw_rl.commands.command_line import fail, parse
from fw_rl.experiments.checks import check_output
from fw_rl.experiments.curves import LearningCurve, draw, group, read_run
from fw_rl.files import write_file
from fw_rl.intervals import mean_interval

__all__ = ["CurvesOptions", "main"]


@dataclass(frozen=True)
class CurvesOptions:
    """Draw the learning curves of many runs as one picture: a panel for each environment, a line for each kind of run.

    Runs that differ only in the seed are of one kind. Its line is their mean, and the bars along it are the 95 % interval of
    the mean (Student's t). A kind is named after its cell, and after the settings that tell it from the others in its panel.
    Folders that are not runs or have no curve yet are left out, with a message; so is the shorter of two runs with the same
    settings and seed.
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...", help_behavior_hint="")]
    """Folders of runs."""
    out: Path
    """The picture to write, a PNG file."""


def main(arguments: Sequence[str], program: str = "fw-rl curves") -> int:
    """Run the command; returns its exit code: 0 done, 1 if the picture cannot be written, 2 bad input."""
    options = parse(CurvesOptions, arguments, program)
    try:
        if not options.runs:
            raise ValueError("RUN must be the folder of at least one run, got none")
        check_output("out", options.out, ".png")
        panels = group(_read(options.runs))
        write_file(options.out, draw(panels))
    except (ValueError, OSError) as error:
        return fail(program, error)
    for env, kinds in panels.items():
        for label, runs in kinds.items():
            mean, low, high = mean_interval(np.array([run.returns[-1] for run in runs]))
            seeds = "1 seed, " if len(runs) == 1 else f"{len(runs)} seeds, "
            interval = "" if len(runs) == 1 else f" ({low:.3f} to {high:.3f})"
            print(f"{env}, {label}: {seeds}return {mean:.3f}{interval} at the end")
    print(f"Picture: {options.out}")
    return 0


def _read(paths: Sequence[Path]) -> list[LearningCurve]:
    """The curves of the folders that have one; ValueError if none has."""
    runs, problems = [], []
    for path in paths:
        try:
            runs.append(read_run(path))
        except ValueError as error:
            problems.append(error)
    if not runs:
        raise problems[0]
    for problem in problems:
        print(f"Left out: {problem}")
    kept: dict[str, LearningCurve] = {}
    for run in sorted(runs, key=lambda run: run.frames[-1]):  # keeps the longer of two alike, or the later
        if other := kept.get(repr(run.config)):
            print(f"Left out: {other.path} has the settings and the seed of {run.path}")
        kept[repr(run.config)] = run
    return [run for run in runs if kept[repr(run.config)] is run]
