"""The report of `memories`: the tables as Markdown, and the scores and the learning curves as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fw_rl.experiments.curves import count_of, label_panel
from fw_rl.experiments.markdown import estimate, number, table
from fw_rl.experiments.memories import EPOCH, ROUNDING, Record, summarise, trained
from fw_rl.experiments.memories_attention import draw_recalls, recall_of
from fw_rl.experiments.search.learning import Job, Learning
from fw_rl.files import write_file, write_json
from fw_rl.lines import STYLE, as_png, handles, line_styles, plot_mean

__all__ = ["describe", "draw_curves", "draw_scores", "write_report"]

PAPER = {"gru": "GRU", "best": "best of 13"}
"""The columns of the paper."""

LINES: dict[str, Any] = {"gru": dict(linestyle="--"), "best": dict(linestyle=":")}
COLUMNS = 4


def write_report(command: str, wanted: Sequence[Job], out: Path) -> str:
    """Write tables, numbers and pictures of the trainings that the folder has; returns the tables as text."""
    found = trained(wanted, out)
    if not found:
        raise ValueError(f"{out} must hold trainings with these games, cells, seeds and frames, got none")
    record = dict(command=command) | summarise([learning for _, learning in found])
    text = describe(record)
    write_file(out / "table.md", text.encode())
    write_json(out / "table.json", record)
    write_file(out / "scores.png", draw_scores(record))
    write_file(out / "curves.png", draw_curves(record))
    recalls = [recall for folder in _first_of_each(found) if (recall := recall_of(folder))]
    if recalls:
        write_file(out / "attention.png", draw_recalls(recalls))
    return text


def _first_of_each(found: Sequence[tuple[Job, Learning]]) -> Iterator[Path]:
    """The folder of the first existing agent of each cell in each game."""
    seen = set()
    for job, learning in found:
        key = tuple(learning.parameters.values())
        if key not in seen and job.folder is not None and job.folder.is_dir():
            seen.add(key)
            yield job.folder


def describe(record: Record) -> str:
    """All tables, with what their columns mean, as Markdown."""
    return "\n\n".join((_introduction(record), *_scores(record), *_speed(record))) + "\n"


def cells_of(record: Record) -> list[str]:
    """The cells that have a training, in order of their first."""
    return list(dict.fromkeys(cell for game in record["games"].values() for cell in game["cells"]))


def _introduction(record: Record) -> str:
    return f"""\
# Memories compared: cells and games

    {record["command"]}

Each cell is trained by PPO with the same settings in all games (`tuned.yaml` and `memories.yaml` in `fw_rl/experiments`), for
{record["frames"]:,} frames per training, {_seeds(record)}."""


def _seeds(record: Record) -> str:
    count = count_of(found["seeds"] for game in record["games"].values() for found in game["cells"].values())
    return "one seed" if count == "1" else f"{count} seeds"


def _scores(record: Record) -> Iterator[str]:
    yield f"""\
## Mean return of the best epoch

The score is that of POPGym's paper: the mean return of the best epoch of a training, of about {EPOCH:,} frames; mean over
seeds, and in brackets its 95 % interval (Student's t). The columns of the paper are after 15 M frames. They are from
{record["source"]}."""
    cells = cells_of(record)
    rows = []
    for name, game in record["games"].items():
        paper = [number((game["paper"] or {}).get(column)) for column in PAPER]
        rows.append([name, *paper, *(estimate(game["cells"].get(cell, {}).get("estimate")) for cell in cells)])
    rows.append(["mean of all", "", "", *(_mean(record, cell) for cell in cells)])
    rows.append(["at the paper's best", "", "", *(_count_at_best(record, cell) for cell in cells)])
    yield table(["game", *(f"paper: {name}" for name in PAPER.values()), *cells], rows)
    yield f"""\
"At the paper's best" counts the games in which the mean is at least that, less {ROUNDING} for its rounding."""
    diverged = [
        f"{cell} in {name}: {found['diverged']}"
        for name, game in record["games"].items()
        for cell, found in game["cells"].items()
        if found["diverged"]
    ]
    if diverged:
        yield f"Trainings that diverged, which count as they stood then: {'; '.join(diverged)}."


def _speed(record: Record) -> Iterator[str]:
    yield """\
## Frames per second

Of one process with one thread, acting and learning; the median over seeds."""
    yield _by_cell(record, lambda found: f"{found['frames_per_second']:,.0f}")
    yield """\
## Seconds to the paper's best

Until an epoch reaches the best of the paper; the median over seeds, and how many of them reach it."""
    yield _by_cell(record, _seconds, with_paper=True)


def _seconds(found: Record) -> str:
    reached = f"{found['reached_paper']} of {len(found['seeds'])}"
    seconds = found["seconds_to_paper"]
    return f"{seconds:,.0f} ({reached})" if seconds is not None else f"not reached ({reached})"


def _by_cell(record: Record, told: Callable[[Record], str], with_paper: bool = False) -> str:
    cells = cells_of(record)
    rows = [
        [name, *(told(game["cells"][cell]) if cell in game["cells"] else "" for cell in cells)]
        for name, game in record["games"].items()
        if game["paper"] or not with_paper
    ]
    return table(["game", *cells], rows)


def _mean(record: Record, cell: str) -> str:
    """The mean score over all games, if the cell has been trained in all."""
    means = [game["cells"].get(cell, {}).get("estimate", [None])[0] for game in record["games"].values()]
    return "" if None in means else number(float(np.mean(means)))


def _count_at_best(record: Record, cell: str) -> str:
    games = [game for game in record["games"].values() if game["paper"] and cell in game["cells"]]
    means = [(game["cells"][cell]["estimate"][0], game["paper"]["best"]) for game in games]
    return f"{sum(mean is not None and mean >= best - ROUNDING for mean, best in means)} of {len(games)}" if games else ""


def draw_scores(record: Record) -> bytes:
    """The scores as a heat map, games by cells, with the paper's columns beside them, as a PNG file."""
    games, cells = record["games"], cells_of(record)
    scores = np.full((len(games), len(PAPER) + len(cells)), np.nan)
    for row, game in zip(scores, games.values(), strict=True):
        found = [game["cells"].get(cell, {}).get("estimate", [None])[0] for cell in cells]
        row[:] = np.array([*((game["paper"] or {}).get(column) for column in PAPER), *found], dtype=float)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(3.4 + 0.85 * scores.shape[1], 1.6 + 0.32 * len(games)), dpi=150, layout="constrained")
        paper, ours = figure.subplots(1, 2, sharey=True, width_ratios=[len(PAPER), len(cells)])
        _draw_heat(paper, scores[:, : len(PAPER)], list(PAPER.values()), "POPGym's paper")
        image = _draw_heat(ours, scores[:, len(PAPER) :], cells, f"ours, {record['frames']:,} frames")
        paper.set(yticks=range(len(games)), yticklabels=list(games))
        bar = figure.colorbar(image, ax=ours, aspect=40, pad=0.02)
        bar.set_label("mean return of the best epoch")
        bar.outline.set_visible(False)  # type: ignore[operator]
        return as_png(figure)


def _draw_heat(axes: Axes, scores: Any, columns: list[str], title: str) -> Any:
    image = axes.imshow(scores, cmap="YlGnBu", vmin=-0.6, vmax=1.0, aspect="auto")
    for (row, column), score in np.ndenumerate(scores):
        if math.isfinite(score):
            color = "white" if score > 0.45 else "#111827"
            axes.text(column, row, f"{score:.2f}", ha="center", va="center", fontsize=9, color=color)
    axes.set(xticks=range(len(columns)), xticklabels=columns)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", rotation=30)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    axes.set_title(title, fontsize=11)
    axes.spines[:].set_visible(False)
    return image


def draw_curves(record: Record) -> bytes:
    """A panel for each game, with a line for each cell and the returns of the paper, as a PNG file."""
    games, cells = record["games"], cells_of(record)
    styles = line_styles({cell: cell for cell in cells})
    columns = min(len(games), COLUMNS)
    rows = math.ceil(len(games) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(7, 4.2 * columns), 0.9 + 3.2 * rows), dpi=120, layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, (name, game) in zip(places, games.items(), strict=False):
            for place, (cell, found) in enumerate(game["cells"].items()):
                plot_mean(axes, found["frames"], found["curve"], styles[cell], (place, len(game["cells"])))
            for column, style in LINES.items() if game["paper"] else ():
                axes.axhline(game["paper"][column], color="#4b5563", linewidth=1, **style)
            axes.set_ylim(*_limits(game))
            label_panel(axes, name, (found["seeds"] for found in game["cells"].values()))
        for axes in places[len(games) :]:
            axes.remove()
        entries = handles(styles)
        if any(game["paper"] for game in games.values()):
            entries += [
                Line2D([], [], color="#4b5563", linewidth=1, label=f"paper: {PAPER[name]}", **style)
                for name, style in LINES.items()
            ]
        figure.legend(handles=entries, loc="outside lower center", ncols=min(5, 2 * columns + 1), frameon=False)
        return as_png(figure)


def _limits(game: Record) -> tuple[float, float]:
    """Limits that fit 0, all means and the returns of the paper: the interval over a few seeds may be many times as wide."""
    means = np.concatenate([np.array(found["curve"][0], dtype=float) for found in game["cells"].values()])
    shown = np.array([*means[np.isfinite(means)], *(game["paper"] or {}).values(), 0.0])
    margin = 0.08 * max(np.ptp(shown), 0.1)
    return shown.min() - margin, shown.max() + margin
