"""A table of what runs came to, beside the paper's numbers: as text, as JSON and as pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fw_rl import markdown
from fw_rl.files import write_file, write_json
from fw_rl.intervals import mean_interval
from fw_rl.tasks.base import Task
from fw_rl.tasks.runs import Record

__all__ = ["Summary", "as_markdown", "draw_curves", "draw_table", "summarise", "write_report"]


@dataclass(frozen=True)
class Summary:
    """A row of the table: the test errors (or accuracies) in percent of all seeds of one model and size."""

    label: str
    hidden_size: int
    results: list[float]
    mean: float | None
    low: float | None
    """The 95 % interval of the mean over seeds (Student's t), as far as a percentage can go; None for fewer than two."""
    high: float | None
    last: float | None
    """The mean at the last epoch, where no choice adds the noise of the validation set."""
    paper: float | None
    diverged: int
    learning_rate: float
    weight_decay: float
    epochs: int
    seconds_per_epoch: float | None
    parameters: int


_COLUMNS = (
    *("model", "units", "weights", "ours", "95 % interval", "last epoch", "paper", "seeds"),
    *("best to worst", "learning rate", "weight decay", "epochs", "CPU s an epoch"),
)


def summarise(task: Task, records: Sequence[Record]) -> list[Summary]:
    """One summary for each model and size, the models in the order of the task's table; other models follow."""
    order = {row.label: number for number, row in enumerate(task.rows.values())}
    paper = {(task.rows[name].label, size): number for (name, size), number in task.paper.items()}
    groups: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    summaries = []
    for (label, size), group in sorted(groups.items(), key=lambda item: (order.get(item[0][0], len(order)), item[0])):
        done = [record for record in sorted(group, key=lambda record: record.seed) if not record.diverged]
        results = [_shown(task, record.best["test_error"]) for record in done]
        last = [_shown(task, record.epochs[-1]["test_error"]) for record in done]
        low, high = _interval(results)
        summaries.append(
            Summary(
                label=label,
                hidden_size=size,
                results=results,
                mean=fmean(results) if results else None,
                low=low,
                high=high,
                last=fmean(last) if last else None,
                paper=paper.get((label, size)),
                diverged=len(group) - len(done),
                learning_rate=group[0].settings["learning_rate"],
                weight_decay=group[0].settings["weight_decay"],
                epochs=group[0].settings["epochs"],
                seconds_per_epoch=median(epoch["seconds"] for record in done for epoch in record.epochs) if done else None,
                parameters=group[0].parameters,
            )
        )
    return summaries


def as_markdown(task: Task, data: str, summaries: Sequence[Summary]) -> str:
    """The table as text."""
    measure = "accuracy" if task.accuracy else "error"
    lines = [
        f"{task.title}. Data: {data}.",
        f"Test {measure} in percent at the epoch that the validation set chooses: mean over seeds and its 95 % interval;"
        " beside it the mean at the last epoch.",
        "",
        markdown.header(*_COLUMNS),
    ]
    for row in summaries:
        seeds = f"{len(row.results)}" + (f" ({row.diverged} diverged)" if row.diverged else "")
        ranked = sorted(row.results, reverse=task.accuracy)
        cells = [
            row.label,
            row.hidden_size,
            f"{row.parameters:,}",
            _number(row.mean),
            "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}",
            _number(row.last),
            _number(row.paper),
            seeds,
            f"{ranked[0]:.2f} to {ranked[-1]:.2f}" if ranked else "",
            f"{row.learning_rate:g}",
            f"{row.weight_decay:g}",
            row.epochs,
            "" if row.seconds_per_epoch is None else f"{row.seconds_per_epoch:.1f}",
        ]
        lines.append(markdown.row(*cells))
    return "\n".join(lines) + "\n"


def write_report(task: Task, records: Sequence[Record], folder: Path) -> str:
    """Write table.md, table.json, table.png and curves.png of all records; returns the table as text.

    Raises ValueError where the records were made with different data.
    """
    names = {record.settings["data"] for record in records}
    if len(names) != 1:
        raise ValueError(f"{folder} holds runs on different data ({'; '.join(sorted(names))}): a table has one")
    (data,), summaries = names, summarise(task, records)
    text = as_markdown(task, data, summaries)
    write_file(folder / "table.md", text.encode())
    rows = [dataclasses.asdict(summary) for summary in summaries]
    write_json(folder / "table.json", dict(title=task.title, data=data, accuracy=task.accuracy, rows=rows))
    draw_table(task, data, summaries, folder / "table.png")
    draw_curves(task, records, folder / "curves.png")
    return text


def draw_table(task: Task, data: str, summaries: Sequence[Summary], path: Path) -> None:
    """A panel for each size: our mean with its interval, and the paper's number, for each model."""
    sizes = sorted({row.hidden_size for row in summaries})
    labels = list(dict.fromkeys(row.label for row in summaries))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.2 + 2.9 * len(sizes), 1.6 + 0.42 * len(labels)), dpi=150, layout="constrained")
        panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
        for panel, size in zip(panels, sizes, strict=True):
            for row in (row for row in summaries if row.hidden_size == size):
                y = labels.index(row.label)
                if row.low is not None:
                    panel.plot([row.low, row.high], [y, y], "|-", color="#2563eb", clip_on=False, zorder=3)
                if row.mean is not None:
                    panel.plot(row.mean, y, "o", color="#2563eb", clip_on=False, zorder=3)
                if row.paper is not None:
                    panel.plot(row.paper, y, "D", color="#dc2626", markerfacecolor="none", markersize=8, clip_on=False)
            panel.set(title=f"{size} units", ylim=(len(labels) - 0.5, -0.5), yticks=range(len(labels)), yticklabels=labels)
            if not task.accuracy:
                panel.set_xscale("symlog", linthresh=1.0)
                panel.set(xlim=(0, 100), xticks=[0, 0.5, 1, 2, 5, 10, 50], xticklabels=["0", ".5", "1", "2", "5", "10", "50"])
            else:
                panel.set_xlim(max(panel.get_xlim()[0], 0), 100)
            panel.grid(alpha=0.25)
        panels[0].plot([], [], "o", color="#2563eb", label="ours")
        panels[0].plot([], [], "D", color="#dc2626", markerfacecolor="none", markersize=8, label="paper")
        figure.suptitle(f"{task.title}\n{data}", fontsize=11)
        figure.supxlabel(f"test {'accuracy' if task.accuracy else 'error'} (%)", fontsize=10)
        figure.legend(loc="outside lower right", frameon=False, ncols=2)
        figure.savefig(path)


def draw_curves(task: Task, records: Sequence[Record], path: Path) -> None:
    """Test log-likelihood over epochs (Ba16 Figure 2), a panel for each size: the mean over seeds, and every seed thinly."""
    records = [record for record in records if not record.diverged]
    sizes = sorted({record.hidden_size for record in records})
    order = [row.label for row in task.rows.values()]
    labels = sorted(
        {record.label for record in records},
        key=lambda label: (label not in order, order.index(label) if label in order else 0),
    )
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(1.5 + 3.6 * max(len(sizes), 1), 4.4), dpi=150, layout="constrained")
        panels = figure.subplots(1, max(len(sizes), 1), sharey=True, squeeze=False)[0]
        for panel, size in zip(panels, sizes, strict=False):
            for number, label in enumerate(labels):
                curves = [
                    [-epoch["test_loss"] for epoch in record.epochs] for record in records if record.group == (label, size)
                ]
                for curve in curves:
                    panel.plot(range(1, len(curve) + 1), curve, color=f"C{number}", alpha=0.25, linewidth=0.8)
                if curves:
                    # A run that ended early, since it made no error any more, stays where it was.
                    longest = max(map(len, curves))
                    mean = [fmean(curve[min(i, len(curve) - 1)] for curve in curves) for i in range(longest)]
                    panel.plot(range(1, longest + 1), mean, color=f"C{number}", linewidth=2, label=label)
            panel.set(title=f"{size} units", xlabel="epochs")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.grid(alpha=0.25)
        panels[0].set_ylabel("test log-likelihood (nats)")
        figure.suptitle(task.title, fontsize=11)
        handles = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=1 + len(sizes), frameon=False)
        figure.savefig(path)


_STYLE: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}


def _shown(task: Task, error: float) -> float:
    return 100 - error if task.accuracy else error


def _interval(results: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    if len(results) < 2:
        return None, None
    _, low, high = mean_interval(np.array(results))
    return max(float(low), 0.0), min(float(high), 100.0)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
