"""`figure5`: Figure 5 of Ba16 from the trainings of a sweep, beside results with new seeds that had no part in the search."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fw_rl.commands.command_line import fail, parse
from fw_rl.experiments.checks import make_folder
from fw_rl.experiments.figure5 import read_sweeps, summarise
from fw_rl.experiments.figure5_report import describe, draw
from fw_rl.files import write_file

__all__ = ["Figure5Options", "main"]


@dataclass(frozen=True)
class Figure5Options:
    """Draw Figure 5 of Ba16: how fast agents with different memories learn, from the trainings of `fw-rl sweep`.

    It has the mean of the five best trials of the search, as in the paper; the best settings trained with new seeds, with
    interquartile means, bootstrap intervals and probabilities of improvement; and the results of all settings that were drawn.
    The command trains nothing, and writes a picture, a table and the numbers.
    """

    data: Path = Path("runs/sweep")
    """Folder with ENV/CELL/trials.json and, if there are any, finals.json for the finalists and seeds.json for the best
    settings with new seeds."""
    out: Path = Path("runs/figure5")
    """Folder for the picture, the table and the numbers."""


def main(arguments: Sequence[str], program: str = "fw-rl figure5") -> int:
    """Run the command; returns its exit code: 0 done, 1 if the files cannot be written, 2 bad input."""
    options = parse(Figure5Options, arguments, program)
    command = shlex.join([*program.split(), *arguments])
    try:
        make_folder("out", options.out)
        record = dict(command=command) | summarise(read_sweeps(options.data))
        text, picture = describe(record), draw(record)
        write_file(options.out / "figure5.json", (json.dumps(record, allow_nan=False) + "\n").encode())
        write_file(options.out / "figure5.md", text.encode())
        write_file(options.out / "figure5.png", picture)
    except (ValueError, OSError) as error:
        return fail(program, error)
    print(f"{text}\nPicture, table and numbers: {options.out}")
    return 0
