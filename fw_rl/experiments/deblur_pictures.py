"""The pictures of `deblur`, as PNG."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fw_rl.lines import STYLE, as_png

__all__ = ["PICTURES", "draw"]

Record = dict[str, Any]
RETRAINED, UNRETRAINED, NEW = "#2563eb", "#dc2626", "#6b7280"


def draw(record: Record) -> dict[str, bytes]:
    """All pictures by their file names, as PNG."""
    with matplotlib.rc_context(STYLE | {"font.size": 10}):
        return {name: as_png(picture(record)) for name, picture in PICTURES.items()}


def _panels(columns: int, width: float, height: float, sharey: bool = False) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False, sharey=sharey)[0]


def _line(axes: Axes, x: Any, curve: Any, color: str, label: str = "", style: str = "-") -> None:
    """A mean with its interval, from a list of spreads."""
    mean, low, high = np.array(curve).T
    axes.plot(x, mean, style, color=color, label=label, linewidth=1.8)
    axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def _finish(figure: Figure, panels: Any) -> None:
    """Labels and legend of panels with a common error axis."""
    panels[0].set_ylabel("average error of an output unit")
    panels[0].set_ylim(bottom=0)
    _legend_below(figure, panels[0])


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def _figure_2(record: Record) -> Figure:
    subsets = record["figure_2"]["subsets"]
    figure, panels = _panels(len(subsets), 2 + 2.4 * len(subsets), 3.8, sharey=True)
    for axes, (percent, subset) in zip(panels, subsets.items(), strict=True):
        sweeps = range(len(subset["absolute"]["retrained"]))
        _line(axes, sweeps, subset["absolute"]["unretrained"], UNRETRAINED, "unretrained")
        _line(axes, sweeps, subset["absolute"]["retrained"], RETRAINED, "retrained")
        axes.axhline(record["figure_2"]["learned"][0][0], color=NEW, linestyle=":", label="before interference")
        axes.set(title=f"{percent} % retrained", xlabel="sweeps")
    _finish(figure, panels)
    figure.suptitle("Rehearsal of a part deblurs the rest (HP87 Figure 2; mean and 95 % interval over seeds)")
    return figure


def _fast_weights(record: Record) -> Figure:
    percent = record["settings"]["subset"]
    title = f"{percent} % are rehearsed, then nothing is learned while the fast weights decay. What rehearses:"
    return _courses(record["rehearsal"], 13, title)


def _recurrent(record: Record) -> Figure:
    ways = {
        f"{name}, {percent} % rehearsed": subset
        for name, cell in record["recurrent"].items()
        for percent, subset in cell["subsets"].items()
    }
    title = "The fast-weight cell, with its memory A and without; the fast weights on its connections rehearse"
    return _courses(ways, 2 + 2.8 * len(ways), title)


def _courses(ways: Record, width: float, title: str) -> Figure:
    """A panel for each way to rehearse."""
    figure, panels = _panels(len(ways), width, 3.6, sharey=True)
    for axes, (name, way) in zip(panels, ways.items(), strict=True):
        _rehearse_and_decay(axes, way)
        axes.set(title=name)
    _finish(figure, panels)
    figure.suptitle(title)
    return figure


def _rehearse_and_decay(axes: Axes, way: Record) -> None:
    """Rehearsal on the left of 0, at a scale of its own, and decay on the right."""
    colors = dict(retrained=RETRAINED, unretrained=UNRETRAINED, new=NEW)
    labels = dict(retrained="old, retrained", unretrained="old, unretrained", new="new, which blurred the old")
    span = way["times"][-1]
    for name, curves in way["curves"].items():
        before = np.linspace(-0.4 * span, 0, len(curves["rehearsal"]))
        _line(axes, before, curves["rehearsal"], colors[name])
        _line(axes, way["times"], curves["forgetting"], colors[name], labels[name])
    sweeps = len(curves["rehearsal"]) - 1
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xticks([-0.4 * span, 0, span / 2, span], [f"-{sweeps}", "0", f"{span // 2}", f"{span}"])
    axes.set_xlabel("sweeps of rehearsal | steps of decay")


def _theory(record: Record) -> Figure:
    theory = record["theory"]
    figure, (pairs, ratios, fall) = _panels(3, 12, 3.8)
    for equation, color in ((2, RETRAINED), (3, UNRETRAINED)):
        rows = [row for row in theory["equations"] if row["equation"] == equation]
        formula, measured = ([row[f"transfer_{part}"] for row in rows] for part in ("formula", "measured"))
        pairs.loglog(formula, measured, "o", color=color, label=f"Eq. {equation}", alpha=0.8)
    pairs.axline((0.001, 0.001), (1, 1), color=NEW, linewidth=1)
    pairs.set(title="Transfer between two associations", xlabel="formula", ylabel="Monte Carlo")
    pairs.legend(frameon=False)

    labels = [f"{'1, 0, -1' if row['signed'] else '0/1'}\nn = {row['n']}" for row in theory["ratios"]]
    places = np.arange(len(labels))
    mean, low, high = np.array([row["measured"] for row in theory["ratios"]]).T
    ratios.errorbar(places, mean, [mean - low, high - mean], fmt="o", color=RETRAINED, label="Monte Carlo", capsize=3)
    ratios.plot(places, [row["formula"] for row in theory["ratios"]], "_", color="black", markersize=18, label="formula")
    ratios.set_xticks(places, labels, fontsize=8)
    ratios.set(title="Unretrained over retrained at the start", ylim=(0, 1.05))
    ratios.legend(frameon=False, loc="lower left")

    left = 1 - np.array(theory["fall"]["left"])
    fall.plot([0, *left], [theory["fall"]["at_start"], *theory["fall"]["ratio"]], color=RETRAINED, linewidth=1.8)
    fall.set(
        title="... and as retraining proceeds",
        xlabel="share of the retrained error gone",
        ylabel="ratio so far",
        ylim=(0, 1.05),
    )
    return figure


def _figure_4(record: Record) -> Figure:
    plane = record["figure_4"]
    figure, (space, share) = _panels(2, 10, 5)
    circle, ellipse, positive = (np.array(plane[name]) for name in ("circle", "ellipse", "positive"))
    reach = np.abs(circle - plane["solution"]).max() * 1.5
    for number, row in enumerate(plane["inputs"], start=1):
        direction = np.array([-row[1], row[0]]) / np.hypot(*row)
        ends = np.array(plane["solution"]) + np.outer([-3 * reach, 3 * reach], direction)
        space.plot(*ends.T, color="black", linewidth=1, linestyle="-" if number == 1 else "--", label=f"line {number}")
    learning = np.array(plane["learning"])
    space.plot(*learning.T, color=NEW, linewidth=1.2, label="learning both")
    space.scatter(*circle[positive].T, s=4, color=RETRAINED, label="positive transfer")
    space.scatter(*circle[~positive].T, s=4, color=UNRETRAINED, label="negative transfer")
    space.plot(*np.vstack([ellipse, ellipse[:1]]).T, color="#059669", linewidth=1.5, label="after some retraining on 1")
    for i in range(0, len(circle), len(circle) // 12):
        space.annotate("", ellipse[i], circle[i], arrowprops=dict(arrowstyle="->", color="#059669", linewidth=0.8))
    space.plot(*plane["solution"], "o", color="black", markersize=4)
    space.annotate("O", plane["solution"], xytext=(6, 4), textcoords="offset points")
    center = plane["solution"]
    space.set(
        title="Weight space (HP87 Figure 4)", xlabel="w1", ylabel="w2", aspect="equal",
        xlim=(center[0] - reach, center[0] + reach), ylim=(center[1] - reach, center[1] + reach),
    )  # fmt: skip
    _legend_below(figure, space)

    gone = 1 - np.array(plane["left"])
    share.plot(gone, plane["formula"], color="black", linewidth=1, label="formula")
    share.plot(gone, plane["measured"], "o", color=RETRAINED, markersize=4, label="run")
    share.set(title="Where transfer is positive", xlabel="share of the miss on 1 gone", ylabel="share of points")
    share.set_ylim(0.4, 1)
    share.legend(frameon=False)
    return figure


def _uses(record: Record) -> Figure:
    trial = record["uses"]["one_trial"]
    figure, (axes,) = _panels(1, 6.5, 4)
    _line(axes, trial["times"], trial["new"], NEW, "the new association")
    _line(axes, trial["times"], trial["old"], RETRAINED, "the old associations")
    axes.axhline(trial["new_before"][0], color=NEW, linestyle=":", label="new, before")
    axes.axhline(trial["old_before"][0], color=RETRAINED, linestyle=":", label="old, before")
    axes.set(title="Presented once, stored for a while", xlabel="steps since the presentation", ylabel="bits right")
    axes.legend(frameon=False)
    return figure


PICTURES: dict[str, Callable[[Record], Figure]] = {
    "figure_2.png": _figure_2,
    "fast_weights.png": _fast_weights,
    "theory.png": _theory,
    "figure_4.png": _figure_4,
    "uses.png": _uses,
    "recurrent.png": _recurrent,
}
"""The functions that draw the files, by name, from the record of the measurements."""
