"""A live view of trainings side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from fw_rl.experiments.markdown import number
from fw_rl.experiments.search.learning import CURVE_POINTS, Job, Learning, Progress, Trainings, read_learnings, write_learnings
from fw_rl.experiments.search.swept import BEST, Swept, scores, words

__all__ = ["LiveTable", "train_missing"]


class LiveTable:
    """The running trainings and the best of the finished ones; a context, on the screen until its end.

    Without a terminal, or with `quiet`, it prints a line for each training that ends.
    """

    def __init__(self, title: str, total: int, done: Sequence[Learning], quiet: bool) -> None:
        self.title, self.total, self.done = title, total, list(done)
        self.running: dict[int, tuple[Job, Progress]] = {}
        console = Console()
        shown = console.is_terminal and not quiet
        self._live = Live(console=console, get_renderable=self._table, auto_refresh=False) if shown else None

    def __enter__(self) -> LiveTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, key: int, job: Job) -> None:
        """Show a training."""
        self.running[key] = job, Progress(0, math.nan)
        self._refresh()

    def show(self, key: int, event: Progress | Learning) -> None:
        """Show what a training has reported."""
        if isinstance(event, Progress):
            self.running[key] = self.running[key][0], event
        else:
            del self.running[key]
            self.done.append(event)
            if self._live is None:
                print(f"[{len(self.done)}/{self.total}] {_line(event)}", flush=True)
        self._refresh()

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.refresh()

    def _table(self) -> Table:
        table = Table(title=f"{self.title}: {len(self.done)} of {self.total}", title_justify="left")
        for name in ("seed", "done", "area", "last tenth", "greedy", "settings"):
            table.add_column(name, justify="left" if name == "settings" else "right")
        for _, (job, progress) in sorted(self.running.items()):
            share = f"{progress.points / CURVE_POINTS:.0%}"
            table.add_row(str(job.config.seed), share, number(progress.area), "", "", words(job.parameters))
        table.add_section()
        for learning in Swept(self.done).ranked[:BEST]:
            table.add_row(str(learning.seed), "100%", *scores(learning), words(learning.parameters))
        return table


def train_missing(path: Path, wanted: Sequence[Job], title: str, trainings: Trainings, quiet: bool = False) -> list[Learning]:
    """Make the trainings that a file does not have yet; returns the results of all wanted ones, in order.

    The file is written after each training, and keeps all others, also those that another command has added meanwhile.
    """
    known = read_learnings(path)
    done = {key: training for key, job in enumerate(wanted) for training in known if training.is_of(job)}
    missing = [key for key in range(len(wanted)) if key not in done]
    if missing:
        with LiveTable(title, len(wanted), list(done.values()), quiet) as table, trainings:
            while missing or trainings.keys:
                while missing and trainings.has_room:
                    key = missing.pop(0)
                    trainings.start(key, wanted[key])
                    table.begin(key, wanted[key])
                for key, event in trainings.events():
                    table.show(key, event)
                    if isinstance(event, Learning):
                        done[key] = event
                        found = read_learnings(path)
                        others = [training for training in found if not any(training.is_of(wanted[key]) for key in done)]
                        write_learnings(path, others + [done[key] for key in sorted(done)])
    return [done[key] for key in range(len(wanted))]


def _line(learning: Learning) -> str:
    if learning.pruned:
        return f"{learning.seed}: pruned"
    if learning.diverged:
        return f"{learning.seed}: diverged; {words(learning.parameters)}"
    area, final, greedy = scores(learning)
    settings = words(learning.parameters)
    return f"{learning.seed}: area {area}, last tenth {final}, greedy {greedy}, {learning.seconds:.0f} s; {settings}"
