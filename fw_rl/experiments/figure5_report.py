"""The report of `figure5`: the table as Markdown and the picture as PNG, both from the numbers of `figure5.json`."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from fw_rl.commands.curves import COLORS
from fw_rl.experiments.pictures import STYLE
from fw_rl.markdown import header, row

__all__ = ["describe", "draw"]

Record = dict[str, Any]

LEVEL_LINE: Any = dict(color="#4b5563", linewidth=0.8, linestyle=":")


def describe(record: Record) -> str:
    """All tables, with what their columns mean."""
    parts = (_introduction(record), _search(record), _finals(record), _seeds(record), _improvement(record), _all_trials(record))
    return "\n\n".join("\n".join(lines) for lines in map(list, parts) if lines) + "\n"


def _introduction(record: Record) -> Iterator[str]:
    yield "# How fast agents with different memories learn (Ba16 Figure 5)"
    yield ""
    yield f"    {record['command']}"
    yield ""
    for env, found in record["environments"].items():
        yield f"- {env}: trainings of {found['frames'][-1]:,.0f} frames, {', '.join(found['cells'])}"
    yield ""
    yield "An area is that under a learning curve over its length: the mean return of the episodes of the whole training. The"
    yield "picture is figure5.png, and figure5.json has all numbers."


def _search(record: Record) -> Iterator[str]:
    top = record["top"]
    yield "## The search, as in the paper"
    yield ""
    yield f"The mean of the {top} trials with the largest areas (Ba16 A.3), of those that did not diverge. They are the best of"
    yield "many, partly by luck: what their settings are worth, only new seeds can say."
    yield ""
    columns = ["environment", "cell", "trials", "diverged", "pruned", "averaged", "area", "greedy return"]
    yield header(*columns)
    for env, cell, found in _cells(record):
        best = found["top"]
        counts = (found[name] for name in ("trials", "diverged", "pruned"))
        yield row(env, cell, *counts, f"best {len(best['trainings'])}", _number(best["area"]), _number(best["greedy"]))


def _finals(record: Record) -> Iterator[str]:
    rows = [(env, cell, found["finals"]) for env, cell, found in _cells(record) if found["finals"]]
    if not rows:
        return
    yield "## The best settings of the search, with new seeds"
    yield ""
    yield "What the trials with the largest areas are worth without the luck that made them so. Area: interquartile mean over"
    yield "all these trainings, and its 95 % interval by a bootstrap that is stratified by settings."
    yield ""
    columns = ["environment", "cell", "settings", "trainings", "area", *_greedy_columns(record)]
    yield header(*columns)
    for env, cell, found in rows:
        count = len(found["trainings"])
        reached = [f"{number} of {count}" for number in found["greedy_reached"]]
        yield row(env, cell, found["settings"], count, _estimate(found["area"]), *reached)


def _greedy_columns(record: Record) -> list[str]:
    return [f"greedy {level} or more" for level in record["greedy_levels"]]


def _all_trials(record: Record) -> Iterator[str]:
    yield "## All trials"
    yield ""
    yield "How much the settings matter, drawn from the same ranges for every cell, and those of its own besides: the area"
    yield "that so many trials have at least. A trial that diverged, or was pruned, is below all others."
    yield ""
    columns = ["environment", "cell", "trials", "a quarter of them", "half", "three quarters"]
    columns += _greedy_columns(record)
    yield header(*columns)
    for env, cell, found in _cells(record):
        quarters = [_at_least(found, share) for share in (0.25, 0.5, 0.75)]
        yield row(
            env, cell, found["trials"], *quarters, *(f"{number} of {found['trials']}" for number in found["greedy_reached"])
        )


def _at_least(found: Record, share: float) -> str:
    """The area that this share of all trials has at least."""
    rank = math.ceil(share * found["trials"])
    return _number(found["areas"][rank - 1]) if rank <= len(found["areas"]) else "none"


def _seeds(record: Record) -> Iterator[str]:
    level = record["level"]
    rows = [(env, cell, found["seeds"]) for env, cell, found in _cells(record) if found["seeds"]]
    yield "## The best settings, trained with new seeds"
    yield ""
    if not rows:
        yield "No settings have been trained with new seeds yet."
        return
    finals = [found["finals"] for _, _, found in _cells(record) if found["finals"]]
    if finals:
        finalists = _span([own["settings"] for own in finals])
        yield f"- The best settings: of the {finalists} best trials those with the largest mean area over seeds of their own,"
        yield "  which do not count here."
    yield "- Area: interquartile mean over seeds, and its 95 % interval by a bootstrap that is stratified by environment"
    yield f"  ({record['resamples']:,} resamples; Agarwal et al. 2021). The rows of all environments pool areas as they are."
    yield f"- Frames to {level}: until a learning curve is there for the first time; the median over seeds."
    yield "- Greedy return: of the agents at the end; the mean over seeds."
    yield "- Seeds that diverged count: their curves stay where they were. They have no greedy return."
    yield ""
    columns = ["environment", "cell", "seeds", "diverged", "area", f"frames to {level}", f"curves at {level}", "greedy return"]
    columns += _greedy_columns(record)
    yield header(*columns)
    for env, cell, found in rows:
        count = len(found["trainings"])
        area = _estimate(record["environments"][env]["areas"][cell])
        frames = "not reached" if found["frames_to"] is None else f"{found['frames_to']:,.0f}"
        reached = [f"{number} of {count}" for number in (found["reached"], *found["greedy_reached"])]
        greedy = _number(found["greedy"])
        yield row(env, cell, count, found["diverged"], area, frames, reached[0], greedy, *reached[1:])
    for cell, area in record.get("over_all", {}).get("areas", {}).items():
        yield row("all", cell, "", "", _estimate(area), *[""] * (len(columns) - 5))


def _improvement(record: Record) -> Iterator[str]:
    comparisons = record["environments"] | ({"all": record["over_all"]} if "over_all" in record else {})
    found = {env: {(row["x"], row["y"]): row["probability"] for row in of["improvement"]} for env, of in comparisons.items()}
    pairs = dict.fromkeys(pair for probabilities in found.values() for pair in probabilities)
    if not pairs:
        return
    yield "## Probability of improvement"
    yield ""
    yield "How probable it is that a new seed of the first cell has a larger area than one of the second, with its 95 %"
    yield "interval by the same bootstrap. A tie is a half; of all environments it is the mean."
    yield ""
    yield header("", *found)
    for x, y in pairs:
        yield row(f"{x} over {y}", *(_estimate(probabilities.get((x, y))) for probabilities in found.values()))


def _cells(record: Record) -> Iterator[tuple[str, str, Record]]:
    for env, of_env in record["environments"].items():
        for cell, found in of_env["cells"].items():
            yield env, cell, found


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _estimate(estimate: list[float | None] | None) -> str:
    if estimate is None:
        return ""
    value, low, high = estimate
    return _number(value) if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def draw(record: Record) -> bytes:
    """A row of panels for each environment: the top trials of the search, the best settings with new seeds, and all trials."""
    cells = sorted({cell for _, cell, _ in _cells(record)})
    colors = {cell: COLORS[i % len(COLORS)] for i, cell in enumerate(cells)}
    environments = record["environments"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(15, 0.6 + 3.8 * len(environments)), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
        )
        panels = figure.subplots(len(environments), 3, squeeze=False)
        for (top, seeds, trials), (env, found) in zip(panels, environments.items(), strict=True):
            seeds.sharey(top)
            _draw_top(top, found, colors)
            _draw_seeds(seeds, found, colors)
            _draw_trials(trials, found, colors)
            for axes in (top, seeds):
                axes.axhline(record["level"], **LEVEL_LINE)
                axes.set(xlabel="frames", ylabel="mean return", xlim=(0, found["frames"][-1]))
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            for axes in (top, seeds, trials):
                axes.set_title(f"{env}\n", fontsize=12)
        handles = [Line2D([], [], linewidth=2, color=color, label=cell) for cell, color in colors.items()]
        handles.append(Line2D([], [], label=f"return {record['level']}", **LEVEL_LINE))
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _draw_top(axes: Axes, found: Record, colors: dict[str, str]) -> None:
    for cell, of_cell in found["cells"].items():
        for curve in of_cell["top"]["curves"]:
            axes.plot(found["frames"], curve, color=colors[cell], alpha=0.3, linewidth=0.8)
        if of_cell["top"]["curve"]:
            axes.plot(found["frames"], of_cell["top"]["curve"], color=colors[cell], linewidth=2)
    counts = _span([len(of_cell["top"]["trainings"]) for of_cell in found["cells"].values()])
    _subtitle(axes, f"the search, as in the paper: the best trials ({counts}) and their mean")


def _draw_seeds(axes: Axes, found: Record, colors: dict[str, str]) -> None:
    seeds = {cell: of_cell["seeds"] for cell, of_cell in found["cells"].items() if of_cell["seeds"]}
    for cell, of_seeds in seeds.items():
        mean, low, high = np.array(of_seeds["curve"], dtype=float).T
        axes.fill_between(found["frames"], low, high, color=colors[cell], alpha=0.18, linewidth=0)
        axes.plot(found["frames"], mean, color=colors[cell], linewidth=2)
    if seeds:
        counts = _span([len(of_seeds["trainings"]) for of_seeds in seeds.values()])
        _subtitle(axes, f"the best settings, new seeds ({counts}): interquartile mean and 95 % interval")
    else:
        _subtitle(axes, "the best settings: not trained with new seeds yet")


def _draw_trials(axes: Axes, found: Record, colors: dict[str, str]) -> None:
    for cell, of_cell in found["cells"].items():
        shares = np.arange(1, len(of_cell["areas"]) + 1) / of_cell["trials"]
        axes.step(of_cell["areas"], shares, where="pre", color=colors[cell], linewidth=2)
    axes.set(xlabel="area under the learning curve", ylabel="share of trials with at least this area", ylim=(0, 1))
    _subtitle(axes, "the search, all trials: how much the settings matter")


def _subtitle(axes: Axes, text: str) -> None:
    axes.text(0.5, 1.02, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=9, color="#4b5563")


def _span(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
