"""The report of `figure5`: the table as Markdown and the picture as PNG, both from the numbers of `figure5.json`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from fw_rl.experiments.curves import count_of, put_titles
from fw_rl.experiments.markdown import estimate, number, table
from fw_rl.lines import STYLE, as_png, handles, line_styles, name_ends, plot_mean

__all__ = ["describe", "draw"]

Record = dict[str, Any]

Styles = dict[str, dict[str, Any]]

LEVEL_LINE: Any = dict(color="#4b5563", linewidth=0.8, linestyle=":")


def describe(record: Record) -> str:
    """All tables, with what their columns mean, as Markdown."""
    parts = (_introduction(record), *_search(record), *_finals(record), *_seeds(record), *_improvement(record))
    return "\n\n".join((*parts, *_all_trials(record))) + "\n"


def _introduction(record: Record) -> str:
    environments = [
        f"- {env}: trainings of {found['frames'][-1]:,.0f} frames, {', '.join(found['cells'])}"
        for env, found in record["environments"].items()
    ]
    return f"""\
# How fast agents with different memories learn (Ba16 Figure 5)

    {record["command"]}

{chr(10).join(environments)}

An area is the area under a learning curve over its length: the mean return over the whole training. The picture is figure5.png,
and figure5.json has all numbers."""


def _search(record: Record) -> Iterator[str]:
    yield f"""\
## The search, as in the paper

The mean of the {record["top"]} trials with the largest areas (Ba16 A.3), of those that did not diverge. They are the best of
many, partly by luck: only new seeds can show what their settings are worth."""
    columns = ["environment", "cell", "trials", "diverged", "pruned", "averaged", "area", "greedy return"]
    rows = []
    for env, cell, found in _cells(record):
        counts, best = (found[name] for name in columns[2:5]), found["top"]
        rows.append([env, cell, *counts, f"best {len(best['trainings'])}", number(best["area"]), number(best["greedy"])])
    yield table(columns, rows)


def _finals(record: Record) -> Iterator[str]:
    rows = []
    for env, cell, of_cell in _cells(record):
        if found := of_cell["finals"]:
            count = len(found["trainings"])
            rows.append([env, cell, found["settings"], count, estimate(found["area"]), *_reached(found, count)])
    if rows:
        yield """\
## The best settings of the search, with new seeds

What the settings of the trials with the largest areas are worth without that luck. Area: interquartile mean over all these
trainings, and its 95 % interval by a bootstrap stratified by settings."""
        yield table(["environment", "cell", "settings", "trainings", "area", *_greedy_columns(record)], rows)


def _seeds(record: Record) -> Iterator[str]:
    yield "## The best settings, trained with new seeds"
    level, rows = record["level"], []
    for env, cell, of_cell in _cells(record):
        if found := of_cell["seeds"]:
            count = len(found["trainings"])
            area = estimate(record["environments"][env]["areas"][cell])
            frames = "not reached" if found["frames_to"] is None else f"{found['frames_to']:,.0f}"
            row = [env, cell, count, found["diverged"], area, frames, f"{found['reached']} of {count}"]
            rows.append([*row, number(found["greedy"]), *_reached(found, count)])
    if not rows:
        yield "No settings have been trained with new seeds yet."
        return
    finals = [range(found["finals"]["settings"]) for _, _, found in _cells(record) if found["finals"]]
    if finals:
        chosen = f"of the {count_of(finals)} best trials those with the largest mean area over seeds of their own"
        chosen = f"- The best settings: {chosen},\n  which do not count here.\n"
    yield f"""\
{chosen if finals else ""}\
- Area: interquartile mean over seeds, and its 95 % interval by a bootstrap stratified by environment ({record["resamples"]:,}
  resamples; Agarwal et al. 2021). The rows of all environments pool areas as they are.
- Frames to {level}: until a learning curve first reaches this return; the median over seeds.
- Greedy return: of the agents at the end; the mean over seeds.
- Seeds that diverged count: their curves keep their last value. They have no greedy return."""
    columns = ["environment", "cell", "seeds", "diverged", "area", f"frames to {level}", f"curves at {level}", "greedy return"]
    over_all = record.get("over_all", {}).get("areas", {})
    rows += [["all", cell, "", "", estimate(area)] for cell, area in over_all.items()]
    yield table([*columns, *_greedy_columns(record)], rows)


def _improvement(record: Record) -> Iterator[str]:
    comparisons = record["environments"] | ({"all": record["over_all"]} if "over_all" in record else {})
    found = {env: {(row["x"], row["y"]): row["probability"] for row in of["improvement"]} for env, of in comparisons.items()}
    pairs = dict.fromkeys(pair for probabilities in found.values() for pair in probabilities)
    if pairs:
        yield """\
## Probability of improvement

How probable it is that a new seed of the first cell has a larger area than one of the second, with its 95 %
interval by the same bootstrap. A tie counts as a half; for all environments it is the mean."""
        estimates = [[estimate(of_env.get(pair)) for of_env in found.values()] for pair in pairs]
        yield table(["", *found], [[f"{x} over {y}", *row] for (x, y), row in zip(pairs, estimates, strict=True)])


def _all_trials(record: Record) -> Iterator[str]:
    yield """\
## All trials

How much the settings matter: the area that a share of the trials has at least. The ranges are the same for every cell, except
those of its own options. A trial that diverged or was pruned is below all others."""
    columns = ["environment", "cell", "trials", "a quarter of them", "half", "three quarters", *_greedy_columns(record)]
    rows = []
    for env, cell, found in _cells(record):
        quarters = [_at_least(found, share) for share in (0.25, 0.5, 0.75)]
        rows.append([env, cell, found["trials"], *quarters, *_reached(found, found["trials"])])
    yield table(columns, rows)


def _at_least(found: Record, share: float) -> str:
    """The area that a share of all trials has at least."""
    rank = math.ceil(share * found["trials"])
    return number(found["areas"][rank - 1]) if rank <= len(found["areas"]) else "none"


def _greedy_columns(record: Record) -> list[str]:
    return [f"greedy {level} or more" for level in record["greedy_levels"]]


def _reached(found: Record, count: int) -> list[str]:
    return [f"{reached} of {count}" for reached in found["greedy_reached"]]


def _cells(record: Record) -> Iterator[tuple[str, str, Record]]:
    for env, of_env in record["environments"].items():
        for cell, found in of_env["cells"].items():
            yield env, cell, found


def draw(record: Record) -> bytes:
    """A row of panels for each environment as a PNG file: the top trials, the best settings with new seeds, all trials."""
    styles = line_styles({cell: cell for cell in sorted({cell for _, cell, _ in _cells(record)})})
    environments = record["environments"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(16, 0.6 + 3.8 * len(environments)), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
        )
        panels = figure.subplots(len(environments), 3, squeeze=False)
        for (top, seeds, trials), (env, found) in zip(panels, environments.items(), strict=True):
            seeds.sharey(top)
            put_titles(top, env, _draw_top(top, found, styles))
            put_titles(seeds, env, _draw_seeds(seeds, found, styles))
            put_titles(trials, env, _draw_trials(trials, found, styles))
            for axes in (top, seeds):
                axes.axhline(record["level"], **LEVEL_LINE)
                axes.set(xlabel="frames", ylabel="mean return", xlim=(0, found["frames"][-1]))
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))
                name_ends(axes, styles)
        level = Line2D([], [], label=f"return {record['level']}", **LEVEL_LINE)
        figure.legend(handles=[*handles(styles), level], loc="outside lower center", ncols=len(styles) + 1, frameon=False)
        return as_png(figure)


def _draw_top(axes: Axes, found: Record, styles: Styles) -> str:
    for place, (cell, of_cell) in enumerate(found["cells"].items()):
        for curve in of_cell["top"]["curves"]:
            axes.plot(found["frames"], curve, color=styles[cell]["color"], alpha=0.3, linewidth=0.8)
        if mean := of_cell["top"]["curve"]:
            plot_mean(axes, found["frames"], [mean], styles[cell], (place, len(found["cells"])))
    counts = count_of(of_cell["top"]["trainings"] for of_cell in found["cells"].values())
    return f"the search, as in the paper: the best trials ({counts}) and their mean"


def _draw_seeds(axes: Axes, found: Record, styles: Styles) -> str:
    seeds = {cell: of_cell["seeds"] for cell, of_cell in found["cells"].items() if of_cell["seeds"]}
    if not seeds:
        return "the best settings: not trained with new seeds yet"
    for place, (cell, of_seeds) in enumerate(seeds.items()):
        plot_mean(axes, found["frames"], np.array(of_seeds["curve"], dtype=float).T, styles[cell], (place, len(seeds)))
    counts = count_of(of_seeds["trainings"] for of_seeds in seeds.values())
    return f"the best settings, new seeds ({counts}): interquartile mean and 95 % interval"


def _draw_trials(axes: Axes, found: Record, styles: Styles) -> str:
    for cell, of_cell in found["cells"].items():
        shares = np.arange(1, len(of_cell["areas"]) + 1) / of_cell["trials"]
        axes.step(of_cell["areas"], shares, where="pre", markevery=max(len(shares) // 6, 1), **styles[cell])
    axes.set(xlabel="area under the learning curve", ylabel="share of trials with at least this area", ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return "the search, all trials: how much the settings matter"
