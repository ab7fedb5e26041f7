"""`python -m tests.faults`, which is `make faults`: the package under faults, counted.

It ends with code 1 if a column is not zero that should be. The whole takes twenty minutes on two cores.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import tyro

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


def counts(tries: Tries) -> Iterator[Count]:
    """The counts, some kinds side by side."""
    with ProcessPoolExecutor(tries.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for future in [pool.submit(counter) for counter in counters(tries)]:
            count = future.result()
            print(table([count]).splitlines()[-1], file=sys.stderr, flush=True)
            yield count


if __name__ == "__main__":
    found = list(counts(tyro.cli(Tries, description=__doc__)))
    print(table(found))
    sys.exit(not all(count.is_clean for count in found))
