"""`glimpse`: handwritten digits in 24 glimpses, Table 2 of Ba16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fw_rl.commands.command_line import fail
from fw_rl.experiments.glimpse_pictures import describe_glimpses, draw_glimpses
from fw_rl.experiments.table import TableOptions, make_table
from fw_rl.tasks.glimpse import Digits

__all__ = ["GlimpseOptions", "main"]


@dataclass(frozen=True)
class GlimpseOptions(TableOptions):
    """Handwritten digits in 24 glimpses at two scales (Ba16 §4.2): train nets and make Table 2.

    Runs are recorded one by one: what is there is not made again, and an interrupted command goes on.
    """

    data_dir: Annotated[
        Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: download once, and check)")
    ] = None
    """Folder of MNIST's four idx files, gzipped or not."""
    most_shift: int = 0
    """Move every training image by up to so many pixels each time it is shown."""
    show_glimpses: bool = False
    """Train nothing: print the sequence with its signals, and draw it for the first training image."""


def main(arguments: Sequence[str], program: str = "fw-rl glimpse") -> int:
    """Run the command; returns its exit code: 0 done, 2 bad input, 130 interrupted."""
    options = tyro.cli(GlimpseOptions, args=arguments, prog=program)
    try:
        task = Digits(options.data_dir, options.most_shift)
        if options.show_glimpses:
            path = (options.out or Path("runs") / task.name) / "glimpses.png"
            image = task.load().train.inputs[0]
            draw_glimpses(image, path)
            print(f"{describe_glimpses(len(image))}\nPicture: {path}")
            return 0
    except (ValueError, OSError) as error:
        return fail(program, error)
    return make_table(task, options, program)
