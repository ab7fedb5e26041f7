"""The learning curve of a run, the curves of many runs as one picture, and the labels that such pictures share."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from fw_rl.experiments.run_folder import RunFolder
from fw_rl.experiments.settings import RunSettings
from fw_rl.intervals import mean_interval
from fw_rl.lines import STYLE, as_png, handles, line_styles, name_ends, plot_mean

__all__ = ["LearningCurve", "count_of", "draw", "draw_learning_curve", "group", "label_panel", "put_titles", "read_run"]

RETURN, FRAMES = "rollout/ep_rew_mean", "time/total_timesteps"
POINTS = 300


@dataclass(frozen=True)
class LearningCurve:
    """The learning curve of one run: smoothed mean returns [P] at some frames [P]."""

    path: Path
    config: RunSettings
    frames: NDArray[np.float64]
    returns: NDArray[np.float64]


Kind = list[LearningCurve]
"""Runs that differ only in the seed."""


def read_run(path: Path) -> LearningCurve:
    """The learning curve of a run; ValueError if it has none."""
    folder, config = RunFolder.open(path)
    rows = [row for row in folder.read_progress() if RETURN in row]
    if not rows:
        raise ValueError(f"{path} must have a learning curve, got none yet: no episode has ended")
    frames, returns = (np.array([row[name] for row in rows]) for name in (FRAMES, RETURN))
    return LearningCurve(path, config, frames, smooth(returns))


def group(runs: Sequence[LearningCurve]) -> dict[str, dict[str, Kind]]:
    """The runs by environment and by the label of their kind, in the given order."""
    kinds: dict[str, dict[str, Kind]] = {}
    for run in runs:
        of_env = kinds.setdefault(run.config.short_env, {})
        of_env.setdefault(repr(_settings(run)), []).append(run)
    return {env: _label(list(of_env.values())) for env, of_env in kinds.items()}


def _settings(run: LearningCurve) -> dict[str, Any]:
    """The settings that define the kind of a run, by name, the most telling first."""
    settings = asdict(run.config)
    for name in ("seed", "env"):
        del settings[name]
    options = settings.pop("cell_options")
    return dict(cell=settings.pop("cell"), algo=settings.pop("algo")) | settings | options


def _label(kinds: list[Kind]) -> dict[str, Kind]:
    """Kinds by label: the cell, the algorithm if there are several, and the other settings that differ between its kinds.

    Settings that differ only between cells, such as tuned learning rates, are not in the labels.
    """
    settings = [_settings(runs[0]) for runs in kinds]
    several_algorithms = len({own["algo"] for own in settings}) > 1
    labels = []
    for own in settings:
        rivals = [other for other in settings if (other["cell"], other["algo"]) == (own["cell"], own["algo"])]
        told = [f"{name}={value}" for name, value in own.items() if any(other.get(name) != value for other in rivals)]
        labels.append(", ".join([own["cell"], *[own["algo"]] * several_algorithms, *told]))
    return dict(zip(labels, kinds, strict=True))


def mean_curve(runs: Kind) -> tuple[NDArray[Any], ...]:
    """Frames [P] that all runs have in common, and the mean return there with both ends of its interval.

    ValueError if one run ends before another begins.
    """
    begin, end = max(run.frames[0] for run in runs), min(run.frames[-1] for run in runs)
    if end < begin:
        raise ValueError(f"runs of one kind must have frames in common, got one up to {end:,.0f} and one from {begin:,.0f}")
    frames = np.linspace(begin, end, POINTS)
    return frames, *mean_interval(np.array([np.interp(frames, run.frames, run.returns) for run in runs]))


def draw(panels: dict[str, dict[str, Kind]]) -> bytes:
    """A panel for each environment, with a line for each kind of run, as a PNG file."""
    styles = line_styles({label: runs[0].config.short_cell for kinds in panels.values() for label, runs in kinds.items()})
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(7, 4.6 * columns), 0.6 + 3.7 * rows), dpi=150, layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, (env, kinds) in zip(places, panels.items(), strict=False):
            for place, (label, runs) in enumerate(kinds.items()):
                frames, *band = mean_curve(runs)
                plot_mean(axes, frames, band, styles[label], (place, len(kinds)))
            axes.set_ylim(*_limits([run.returns for runs in kinds.values() for run in runs]))
            label_panel(axes, env, kinds.values())
            name_ends(axes, styles)
        for axes in places[len(panels) :]:
            axes.remove()
        room = figure.get_figwidth() // (0.7 + 0.085 * max(map(len, styles)))  # in entries of the longest label
        ncols = int(max(1, min(room, 4 if columns > 1 else 2)))
        figure.legend(handles=handles(styles), loc="outside lower center", ncols=ncols, frameon=False)
        return as_png(figure)


def _limits(returns: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Limits that fit the returns of the runs: the interval over a few of them may be many times as wide as is possible."""
    low, high = min(map(np.min, returns)), max(map(np.max, returns))
    margin = 0.06 * max(high - low, 1e-3 * max(abs(high), 1))
    return low - margin, high + margin


def draw_learning_curve(rows: list[dict[str, float]], title: str, cell: str, greedy: float) -> bytes:
    """The mean return of the training episodes over frames, if one has ended, and of greedy ones at the end, as a PNG file."""
    end = rows[-1][FRAMES] if rows else 0
    rows = [row for row in rows if RETURN in row]
    frames = [row[FRAMES] for row in rows]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
        axes = figure.subplots()
        returns = np.array([row[RETURN] for row in rows])
        color = line_styles({"training": cell})["training"]["color"]
        axes.plot(frames, returns, color=color, alpha=0.25, linewidth=1)
        told = "training episodes" if rows else "training episodes: none has ended"
        axes.plot(frames, smooth(returns), color=color, linewidth=2, label=told)
        axes.plot(end, greedy, "o", color="#111827", clip_on=False, zorder=3, label=f"greedy at the end: {greedy:.3f}")
        axes.set(title=textwrap.fill(title, 60), xlabel="frames", ylabel="mean return", xlim=(0, end or None))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.ticklabel_format(axis="y", useOffset=False)
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
        return as_png(figure)


def smooth(values: NDArray[np.float64], share: float = 0.05) -> NDArray[np.float64]:
    """The mean over a window around each value."""
    half = int(len(values) * share / 2)
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def label_panel(axes: Axes, title: str, groups: Iterable[Sequence[Any]]) -> None:
    """Titles and labels of a panel with learning curves, each of a group of seeds."""
    counts = count_of(groups)
    put_titles(axes, title, "one seed" if counts == "1" else f"mean and 95 % interval over {counts} seeds")
    axes.set(xlabel="frames", ylabel="mean return")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.ticklabel_format(axis="y", useOffset=False)


def put_titles(axes: Axes, title: str, subtitle: str) -> None:
    """A title, and a smaller line below it."""
    axes.set_title(f"{title}\n", fontsize=12)
    axes.text(0.5, 1.02, subtitle, transform=axes.transAxes, ha="center", va="bottom", fontsize=9, color="#4b5563")


def count_of(groups: Iterable[Sequence[Any]]) -> str:
    """The sizes of the groups: "5", or "3 to 5"."""
    counts = [len(group) for group in groups]
    return " to ".join(dict.fromkeys(str(count) for count in (min(counts), max(counts))))
