"""Lines of learning curves: the same look for a cell in every picture, bars for intervals, and names where lines end."""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import chain, cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

__all__ = ["CELLS", "STYLE", "as_png", "handles", "line_styles", "name_ends", "plot_mean"]

CELLS = {
    "fast-weights": ("#1e40af", "o"),
    "lstm": ("#ef4444", "s"),
    "rnn": ("#2dbd85", "^"),
    "gru": ("#d97706", "D"),
    "lru": ("#7c3aed", "v"),
    "delta-net": ("#0891b2", "P"),
    "lru-delta-net": ("#9d174d", "X"),
    "min-gru": ("#84cc16", "<"),
    "ffm": ("#78350f", ">"),
    "shm": ("#6b7280", "h"),
    "associative-lstm": ("#e879f9", "p"),
}
"""Colour and marker of each cell. The markers, and for the three of Ba16 the brightness, tell them apart in grey."""

OTHERS = (("#111827", "d"), ("#a8a29e", "8"), ("#4d7c0f", "H"), ("#38bdf8", "*"))
"""Colours and markers of everything else, in the order in which it is drawn."""

DASHES = ("-", "--", ":", "-.")
"""Dashes of the first line of a cell in a picture, of the second, and so on; from the second on markers are hollow."""

MARKERS = "*v^sD<>"
"""Markers of the lines of a cell for which there are no more dashes."""

STYLE: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
"""The common style of the pictures of learning, for `matplotlib.rc_context`."""

BARS = 6
"""Intervals along a line, each with a marker."""


def line_styles(cells: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """How to draw each line, by its label, given the cell of each: keyword arguments of `Axes.plot`.

    If all are of one cell, each has the look of a different cell.
    """
    if len(cells) > 1 and len({*cells.values()}) == 1:
        own, *_ = cells.values()
        cells = dict(zip(cells, cycle([own, *(cell for cell in CELLS if cell != own)]), strict=False))
    others = iter(chain(OTHERS, (OTHERS[-1] for _ in cells)))
    looks = {cell: CELLS.get(cell) or next(others) for cell in dict.fromkeys(cells.values())}
    styles: dict[str, dict[str, Any]] = {}
    for label, cell in cells.items():
        color, marker = looks[cell]
        earlier = sum(style["color"] == color for style in styles.values())
        filled = dict(markerfacecolor="white") if earlier else dict(markeredgecolor="white", markeredgewidth=0.5)
        times, dashed = divmod(earlier, len(DASHES))
        marker, dashes = [marker, *MARKERS][times % (len(MARKERS) + 1)], DASHES[dashed]
        styles[label] = dict(label=label, color=color, marker=marker, linestyle=dashes, linewidth=1.8, **filled)
    return styles


def plot_mean(
    axes: Axes,
    x: ArrayLike,
    band: ArrayLike,
    style: Mapping[str, Any],
    place: tuple[int, int] = (0, 1),
    possible: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """A line with markers, and with bars for its interval at the markers.

    `band` is the mean [1, P], or the mean and both ends of its interval [3, P], nan where there is none. `place` is the number
    of the line and of all lines, so that their bars stand side by side. Nothing is drawn outside the `possible` range.
    """
    x = np.asarray(x)
    mean, *ends = np.clip(np.asarray(band, dtype=float), *possible)
    at = _marked(len(mean), *place)
    axes.plot(x, mean, markevery=at.tolist(), markersize=6, **style)
    for low, high in [ends] if ends else ():
        told = at[np.isfinite(high[at] - low[at])]
        reach = np.stack([mean - low, high - mean])[:, told]
        axes.errorbar(x[told], mean[told], reach, fmt="none", ecolor=style["color"], elinewidth=1.3, capsize=3, alpha=0.75)


def _marked(points: int, number: int, lines: int) -> NDArray[np.intp]:
    """Where along a line of `points` points its markers stand."""
    places = (np.arange(BARS) + (number + 1) / (lines + 1)) / BARS
    return np.unique((places * points).astype(np.intp).clip(0, points - 1))


def name_ends(axes: Axes, styles: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the labels of the axes' lines beside their last points, moved apart where these are close together."""
    axes.get_ylim()  # fixes the limits with all lines
    lines = {str(line.get_label()): line for line in axes.lines if line.get_label() in styles}
    ends = {label: _end(axes, line) for label, line in lines.items()}
    labels = sorted((label for label, end in ends.items() if np.isfinite(end)), key=lambda label: ends[label])
    height = axes.get_figure(root=True).get_figheight() * axes.get_position().height * 72  # type: ignore[union-attr]
    heights = spread(np.array([ends[label] for label in labels]), gap=11 / height)
    for label, y in zip(labels, heights, strict=True):
        axes.text(1.015, y, label, transform=axes.transAxes, color=styles[label]["color"], fontsize=9, va="center")


def _end(axes: Axes, line: Line2D) -> float:
    """How high the last point of a line lies, as a share of the axes' height."""
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    known = np.flatnonzero(np.isfinite(y))
    if not len(known):
        return np.nan
    end = axes.transData.transform((x[known[-1]], y[known[-1]]))
    return float(np.clip(axes.transAxes.inverted().transform(end)[1], 0, 1))


def spread(heights: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Rising heights from 0 to 1, moved as little as it takes to keep them `gap` apart and below 1."""
    steps = gap * np.arange(len(heights))
    blocks: list[list[float]] = []  # neighbours that touch stand together around their mean
    for height in np.minimum(heights, 1 - steps[::-1]) - steps:
        blocks.append([float(height)])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return steps + np.array([np.mean(block) for block in blocks for _ in block])


def handles(styles: Mapping[str, Mapping[str, Any]]) -> list[Line2D]:
    """The entries of a legend."""
    return [Line2D([], [], **style) for style in styles.values()]


def as_png(figure: Figure) -> bytes:
    """A picture as a PNG file, which is the same for the same picture."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
