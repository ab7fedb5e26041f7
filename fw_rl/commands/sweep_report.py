"""What a sweep shows: a live table while it trains, and at the end the best trials and which settings mattered."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fw_rl.commands.learning import CURVE_POINTS, Learning, Progress
from fw_rl.commands.statistics import mean_interval

__all__ = ["LiveTable", "report"]

BEST = 5


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
            table.add_row(str(key), f"{progress.points / CURVE_POINTS:.0%}", _number(progress.area), "", "", _words(parameters))
        table.add_section()
        for key, learning in best(self.done, BEST):
            table.add_row(str(key), "100%", *_scores(learning), _words(learning.parameters))
        return table


def best(learnings: dict[int, Learning], count: int) -> list[tuple[int, Learning]]:
    """The trainings with the largest areas under their curves, the largest first; none that diverged."""
    known = [(key, learning) for key, learning in learnings.items() if not learning.diverged and math.isfinite(learning.area)]
    return sorted(known, key=lambda item: -item[1].area)[:count]


def report(title: str, trials: dict[int, Learning], pruned: int, importances: dict[str, float], seeds: list[Learning]) -> str:
    """Markdown that says what came out of a sweep."""
    return "\n".join(_report(title, trials, pruned, importances, seeds)) + "\n"


def _report(
    title: str, trials: dict[int, Learning], pruned: int, importances: dict[str, float], seeds: list[Learning]
) -> Iterator[str]:
    diverged = sum(learning.diverged for learning in trials.values())
    yield f"## {title}: {len(trials)} trials, {diverged} diverged, {pruned} pruned"
    yield ""
    ranked = best(trials, BEST)
    if not ranked:
        yield "No trial has a value."
        return
    names = list(ranked[0][1].parameters)
    yield f"| trial | area | last tenth | greedy | {' | '.join(names)} |"
    yield f"| --- | --- | --- | --- |{' --- |' * len(names)}"
    for key, learning in ranked:
        cells = [str(key), *_scores(learning), *(_value(learning.parameters[name]) for name in names)]
        yield f"| {' | '.join(cells)} |"
    if importances:
        yield ""
        yield "Importance of the settings for being among the best tenth (PED-ANOVA):"
        yield ", ".join(f"{name} {share:.2f}" for name, share in importances.items()) + "."
    if seeds:
        yield ""
        yield _of_seeds(ranked[0][0], seeds)


def _of_seeds(trial: int, seeds: list[Learning]) -> str:
    mean, low, high = mean_interval(np.array([learning.area for learning in seeds]))
    solved = sum(learning.greedy is not None and learning.greedy >= 0.95 for learning in seeds)
    interval = "" if len(seeds) == 1 else f" ({low:.3f} to {high:.3f})"
    return f"Trial {trial} with {len(seeds)} new seeds: area {mean:.3f}{interval}, {solved} of {len(seeds)} at 0.95 greedy."


def _line(key: int, learning: Learning) -> str:
    if learning.diverged:
        return f"{key}: diverged; {_words(learning.parameters)}"
    area, final, greedy = _scores(learning)
    return f"{key}: area {area}, last tenth {final}, greedy {greedy}, {learning.seconds:.0f} s; {_words(learning.parameters)}"


def _scores(learning: Learning) -> tuple[str, str, str]:
    return _number(learning.area), _number(learning.final), _number(learning.greedy)


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _words(parameters: dict[str, Any]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in parameters.items())


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
