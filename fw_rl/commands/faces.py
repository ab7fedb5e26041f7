"""`faces`: facial expressions in 24 glimpses, Table 3 of Ba16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fw_rl.commands.command_line import fail
from fw_rl.experiments.glimpse_pictures import draw_faces
from fw_rl.experiments.table import TableOptions, make_table
from fw_rl.tasks.faces import Expressions

__all__ = ["FacesOptions", "main"]


@dataclass(frozen=True)
class FacesOptions(TableOptions):
    """Facial expressions in 24 glimpses at two scales (Ba16 §4.3): train nets and make Table 3.

    Runs are recorded one by one: what is there is not made again, and an interrupted command goes on.
    """

    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: drawn faces stand in)")] = (
        None
    )
    """Folder of your copy of CMU Multi-PIE: files such as 001_01_01_051_07.png, cropped to aligned squares."""
    show_faces: bool = False
    """Train nothing: only draw some of the faces, by expression."""


def main(arguments: Sequence[str], program: str = "fw-rl faces") -> int:
    """Run the command; returns its exit code: 0 done, 2 bad input, 130 interrupted."""
    options = tyro.cli(FacesOptions, args=arguments, prog=program)
    task = Expressions(options.data_dir)
    if not options.show_faces:
        return make_table(task, options, program)
    try:
        path = (options.out or Path("runs") / task.name) / "faces.png"
        draw_faces(task.load().train, path)
    except (ValueError, OSError) as error:
        return fail(program, error)
    print(f"Picture: {path}")
    return 0
