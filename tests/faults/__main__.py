"""`python -m tests.faults`, which is `make faults`: the package under faults, counted.

It ends with code 1 if a column is not zero that should be.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import tyro

from fw_rl.files import write_file
from tests.faults.command_lines import count_command_lines
from tests.faults.count import Count, table
from tests.faults.damage import count_damages
from tests.faults.kills import count_full_disks, count_interrupts, count_kills, count_worker_kills


@dataclass(frozen=True)
class Tries:
    """How often each fault is tried."""

    kills: int = 50
    """Trainings of each algorithm that are killed."""
    worker_kills: int = 20
    """Kills of each worker."""
    interrupts: int = 20
    """Ctrl-C, and SIGTERM, at any moment from the start of a command on."""
    full_disks: int = 20
    """Trainings whose disk is full."""
    checkpoints: int = 100
    """Damaged checkpoints."""
    command_lines: int = 500
    """Wrong command lines."""
    seed: int = 0
    """Seed of moments, damages and command lines."""
    jobs: int = 2
    """Kinds of fault side by side."""
    out: Path | None = None
    """The table as a file."""


def counters(tries: Tries) -> list[Callable[[], Count]]:
    """What counts each kind of fault; the longest come first."""
    seed = tries.seed
    return [
        *(partial(count_kills, algorithm, tries.kills, seed) for algorithm in ("a3c", "ppo", "a2c")),
        *(partial(count_worker_kills, algorithm, tries.worker_kills, seed) for algorithm in ("a3c", "ppo")),
        *(partial(count_interrupts, number, tries.interrupts, seed) for number in (signal.SIGINT, signal.SIGTERM)),
        partial(count_full_disks, tries.full_disks, seed),
        partial(count_damages, tries.checkpoints, seed),
        partial(count_command_lines, tries.command_lines, seed),
    ]


def main(tries: Tries) -> int:
    """Count, some kinds of fault side by side; returns the exit code."""
    begin = time.monotonic()
    with ProcessPoolExecutor(tries.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [pool.submit(counter) for counter in counters(tries)]
        for future in as_completed(futures):
            print(table([future.result()]).splitlines()[-1], file=sys.stderr, flush=True)
    counts = [future.result() for future in futures]
    minutes = (time.monotonic() - begin) / 60
    command = " ".join(["python -m tests.faults", *sys.argv[1:]])
    text = f"{table(counts)}\n\n`{command}`, {minutes:.0f} minutes.\n"
    print(text)
    if tries.out is not None:
        write_file(tries.out, text.encode())
    return int(not all(count.is_clean for count in counts))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Tries, description=__doc__)))
