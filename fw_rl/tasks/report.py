"""A table of the results of runs, beside the paper's numbers: as text, as JSON and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean, median
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from tabulate import tabulate

from fw_rl.files import write_file, write_json
from fw_rl.intervals import mean_interval
from fw_rl.lines import STYLE, as_png, handles, line_styles, plot_mean
from fw_rl.tasks.base import Task
from fw_rl.tasks.runs import Record

__all__ = ["Summary", "summarise", "write_report"]


Summary = dict[str, Any]
"""A row of the table, all seeds of one model and size: label, hidden_size, results (the test error or accuracy of each seed in
percent, at the epoch that the validation set chooses), their mean, low and high (the 95 % interval of the mean by Student's t,
within 0 and 100 %), last (the mean at the last epoch, where no choice adds the noise of the validation set), paper, diverged
(seeds whose loss was not finite), learning_rate, weight_decay, epochs, seconds_per_epoch (median) and parameters (weights).
What is unknown is None."""


def summarise(task: Task, records: Sequence[Record]) -> list[Summary]:
    """One summary for each model and size, the models in the order of the task's table; other models follow."""
    return [_summary(task, group) for group in _groups(task, records)]


def _groups(task: Task, records: Sequence[Record]) -> list[list[Record]]:
    """The runs of each model and size, in that order."""
    order = {row.label: place for place, row in enumerate(task.rows.values())}
    ordered = sorted(records, key=lambda record: (order.get(record.label, len(order)), record.group, record.seed))
    return [list(group) for _, group in groupby(ordered, key=lambda record: record.group)]


def _summary(task: Task, group: Sequence[Record]) -> Summary:
    label, size = group[0].group
    done = [record for record in group if not record.diverged]
    results = [_shown(task, record.best["test_error"]) for record in done]
    low, high = _interval(results)
    paper = {(task.rows[name].label, units): number for (name, units), number in task.paper.items()}
    shown = {name: group[0].settings[name] for name in ("learning_rate", "weight_decay", "epochs")}
    return Summary(
        label=label,
        hidden_size=size,
        results=results,
        mean=fmean(results) if done else None,
        low=low,
        high=high,
        last=fmean(_shown(task, record.epochs[-1]["test_error"]) for record in done) if done else None,
        paper=paper.get((label, size)),
        diverged=len(group) - len(done),
        **shown,
        seconds_per_epoch=median(epoch["seconds"] for record in done for epoch in record.epochs) if done else None,
        parameters=group[0].parameters,
    )


def _shown(task: Task, error: float) -> float:
    return 100 - error if task.accuracy else error


def _interval(results: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    if len(results) < 2:
        return None, None
    _, low, high = mean_interval(np.array(results))
    return max(float(low), 0.0), min(float(high), 100.0)


def as_markdown(task: Task, data: str, summaries: Sequence[Summary]) -> str:
    """The table as text; there is at least one row."""
    rows = [_cells(task, summary) for summary in summaries]
    about = (
        f"{task.title}. Data: {data}.\n"
        f"Test {_measure(task)} in percent at the epoch that the validation set chooses: mean over seeds and its 95 % interval;"
        " beside it the mean at the last epoch.\n"
    )
    return f"{about}\n{tabulate(rows, 'keys', 'github', disable_numparse=True)}\n"


def _cells(task: Task, row: Summary) -> dict[str, object]:
    ranked = sorted(row["results"], reverse=task.accuracy)
    return {
        "model": row["label"],
        "units": row["hidden_size"],
        "weights": f"{row['parameters']:,}",
        "ours": _number(row["mean"]),
        "95 % interval": "" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}",
        "last epoch": _number(row["last"]),
        "paper": _number(row["paper"]),
        "seeds": f"{len(row['results'])}" + (f" ({row['diverged']} diverged)" if row["diverged"] else ""),
        "best to worst": f"{ranked[0]:.2f} to {ranked[-1]:.2f}" if ranked else "",
        "learning rate": f"{row['learning_rate']:g}",
        "weight decay": f"{row['weight_decay']:g}",
        "epochs": row["epochs"],
        "CPU s an epoch": "" if row["seconds_per_epoch"] is None else f"{row['seconds_per_epoch']:.1f}",
    }


def _measure(task: Task) -> str:
    return "accuracy" if task.accuracy else "error"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def write_report(task: Task, records: Sequence[Record], folder: Path) -> str:
    """Write table.md, table.json, table.png and curves.png of one or more runs on the same data; returns the table as text."""
    names = {record.settings["data"] for record in records}
    if len(names) != 1:
        raise ValueError(f"{folder} must hold runs on the same data, got {'; '.join(sorted(names))}")
    (data,), summaries = names, summarise(task, records)
    text = as_markdown(task, data, summaries)
    write_file(folder / "table.md", text.encode())
    write_json(folder / "table.json", dict(title=task.title, data=data, accuracy=task.accuracy, rows=summaries))
    write_file(folder / "table.png", draw_table(task, data, summaries))
    write_file(folder / "curves.png", draw_curves(task, records))
    return text


def draw_table(task: Task, data: str, summaries: Sequence[Summary]) -> bytes:
    """A panel for each size: our mean with its interval, and the paper's number, for each model, as a PNG file."""
    sizes = sorted({row["hidden_size"] for row in summaries})
    labels = list(dict.fromkeys(row["label"] for row in summaries))
    has_paper = any(row["paper"] is not None for row in summaries)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 2.9 * len(sizes), 1.6 + 0.42 * len(labels)), dpi=150, layout="constrained")
        panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
        for panel, size in zip(panels, sizes, strict=True):
            rows = [row for row in summaries if row["hidden_size"] == size]
            places = [labels.index(row["label"]) for row in rows]
            # Missing numbers are nan here, and not drawn.
            numbers = np.array([(row["low"], row["mean"], row["high"], row["paper"]) for row in rows], dtype=float)
            low, mean, high, paper = numbers.T
            panel.plot([low, high], [places, places], "|-", color="#2563eb", clip_on=False, zorder=3)
            (ours,) = panel.plot(mean, places, "o", color="#2563eb", clip_on=False, zorder=3)
            (theirs,) = panel.plot(paper, places, "D", color="#dc2626", markerfacecolor="none", markersize=8, clip_on=False)
            panel.set(title=f"{size} units", ylim=(len(labels) - 0.5, -0.5), yticks=range(len(labels)), yticklabels=labels)
            if not task.accuracy:
                panel.set_xscale("symlog", linthresh=1.0)
                panel.set(xlim=(0, 100), xticks=[0, 0.5, 1, 2, 5, 10, 50], xticklabels=["0", ".5", "1", "2", "5", "10", "50"])
            else:
                panel.set_xlim(max(panel.get_xlim()[0], 0), 100)
        figure.suptitle(f"{task.title}\n{data}", fontsize=11)
        figure.supxlabel(f"test {_measure(task)} (%)", fontsize=10)
        shown = [ours, theirs] if has_paper else [ours]
        figure.legend(shown, ["ours", "paper"][: len(shown)], loc="outside lower right", frameon=False, ncols=2)
        return as_png(figure)


def draw_curves(task: Task, records: Sequence[Record]) -> bytes:
    """Test loss over epochs as a PNG file, a panel for each size: the mean over seeds, and every seed thinly.

    It is Ba16 Figure 2 with the sign reversed, on a logarithmic scale: most of a training is close to 0.
    """
    groups = _groups(task, [record for record in records if not record.diverged])
    curves_of = {group[0].group: [[epoch["test_loss"] for epoch in record.epochs] for record in group] for group in groups}
    sizes = sorted({size for _, size in curves_of})
    styles = line_styles({label: _cell(task, label) for label, _ in curves_of})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.5 + 3.6 * max(len(sizes), 1), 4.4), dpi=150, layout="constrained")
        panels = dict(zip(sizes, figure.subplots(1, max(len(sizes), 1), sharey=True, squeeze=False)[0], strict=False))
        for (label, size), curves in curves_of.items():
            for curve in curves:
                panels[size].plot(range(1, len(curve) + 1), curve, color=styles[label]["color"], alpha=0.25, linewidth=0.8)
            # A run that stopped early, without errors, keeps its last value.
            longest = max(map(len, curves))
            mean = [fmean(curve[min(i, len(curve) - 1)] for curve in curves) for i in range(longest)]
            place = list(styles).index(label), len(styles)
            plot_mean(panels[size], range(1, longest + 1), [mean], styles[label], place)
        for size, panel in panels.items():
            panel.set(title=f"{size} units", xlabel="epochs", yscale="log")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if panel.get_ylim()[0] > 1e-3 else (1,)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
        figure.axes[0].set_ylabel("test loss (nats)")
        figure.suptitle(task.title, fontsize=11)
        figure.legend(handles=handles(styles), loc="outside lower center", ncols=1 + len(sizes), frameon=False)
        return as_png(figure)


def _cell(task: Task, label: str) -> str:
    """The cell of a model, or the model itself if it has none; a label may end with the cell's options."""
    rows = {row.label: row for row in task.rows.values()}
    row = rows.get(label) or rows.get(label.partition(", ")[0])
    return (row.cell or row.net) if row else label.partition(", ")[0]
