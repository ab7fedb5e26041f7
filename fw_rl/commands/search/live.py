"""Trainings side by side, as a person watches them."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from fw_rl.commands.config import RunConfig
from fw_rl.commands.search.learning import CURVE_POINTS, Learning, Progress, Trainings
from fw_rl.commands.search.report import BEST, best, number, scores, words

__all__ = ["LiveTable", "train_missing"]


class LiveTable:
    """The trainings that run and the best of those that are done; a context while which it is on the screen.

    Without a screen, or `quiet`, each training that ends is a line.
    """

    def __init__(self, title: str, total: int, done: dict[int, Learning], quiet: bool) -> None:
        self.title, self.total, self.done = title, total, dict(done)
        self.running: dict[int, tuple[dict[str, Any], Progress]] = {}
        console = Console()
        shown = console.is_terminal and not quiet
        self._live = Live(console=console, get_renderable=self._table, auto_refresh=False) if shown else None

    def __enter__(self) -> LiveTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, key: int, parameters: dict[str, Any]) -> None:
        """A training has begun."""
        self.running[key] = parameters, Progress(0, math.nan)
        self._refresh()

    def show(self, key: int, event: Progress | Learning) -> None:
        """A training has told something."""
        if isinstance(event, Progress):
            self.running[key] = self.running[key][0], event
        else:
            del self.running[key]
            self.done[key] = event
            self._say(f"[{len(self.done)}/{self.total}] {_line(key, event)}")
        self._refresh()

    def drop(self, key: int) -> None:
        """A training was ended early."""
        del self.running[key]
        self._say(f"{key}: pruned")
        self._refresh()

    def _say(self, line: str) -> None:
        if self._live is None:
            print(line, flush=True)

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.refresh()

    def _table(self) -> Table:
        table = Table(title=f"{self.title}: {len(self.done)} of {self.total}", title_justify="left")
        for name in ("", "done", "area", "last tenth", "greedy", "settings"):
            table.add_column(name, justify="left" if name == "settings" else "right")
        for key, (parameters, progress) in sorted(self.running.items()):
            table.add_row(str(key), f"{progress.points / CURVE_POINTS:.0%}", number(progress.area), "", "", words(parameters))
        table.add_section()
        for key, learning in best(self.done, BEST):
            table.add_row(str(key), "100%", *scores(learning), words(learning.parameters))
        return table


def train_missing(
    wanted: dict[int, tuple[RunConfig, dict[str, Any]]],
    done: dict[int, Learning],
    table: LiveTable,
    trainings: Trainings,
    keep: Callable[[dict[int, Learning]], None],
) -> dict[int, Learning]:
    """Train what is wanted and not done yet; returns what was learned in all, by key.

    `wanted`: the settings, and the parameters that a table names, by key. `keep`: called with all that is done after each.
    """
    done = dict(done)
    missing = [key for key in wanted if key not in done]
    while missing or trainings.keys:
        while missing and trainings.has_room:
            key = missing.pop(0)
            config, parameters = wanted[key]
            trainings.start(key, config, parameters)
            table.begin(key, parameters)
        for key, event in trainings.events():
            table.show(key, event)
            if isinstance(event, Learning):
                done[key] = event
                keep(done)
    return done


def _line(key: int, learning: Learning) -> str:
    if learning.diverged:
        return f"{key}: diverged; {words(learning.parameters)}"
    area, final, greedy = scores(learning)
    return f"{key}: area {area}, last tenth {final}, greedy {greedy}, {learning.seconds:.0f} s; {words(learning.parameters)}"
