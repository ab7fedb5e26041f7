"""`curves`: the learning curves of many runs as one picture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from fw_rl.commands.command_line import fail
from fw_rl.experiments.checks import check_output
from fw_rl.experiments.pictures import STYLE, smooth
from fw_rl.experiments.run_folder import RunFolder
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file
from fw_rl.intervals import mean_interval

__all__ = ["main"]

RETURN, FRAMES = "rollout/ep_rew_mean", "time/total_timesteps"
COLORS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#db2777", "#4b5563")
POINTS = 300


@dataclass(frozen=True)
class CurvesOptions:
    """Learning curves of many runs as one picture: a panel for each environment, a line for each kind of run.

    Runs that differ in nothing but the seed are of one kind. Its line is the mean over them, its band the 95 % interval of the
    mean (Student's t). A kind is named after its cell, and after whatever else tells it from the others of its panel.
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...", help_behavior_hint="")]
    """Folders of runs."""
    out: Path
    """The picture, a PNG file."""


@dataclass(frozen=True)
class Run:
    """What one run learned: its settings and the smoothed mean returns after so many frames."""

    path: Path
    config: RunSettings
    frames: NDArray[np.float64]
    returns: NDArray[np.float64]


Kind = list[Run]
"""Runs that differ in nothing but the seed."""


def main(arguments: Sequence[str], program: str = "fw-rl curves") -> int:
    """Run the command; returns its exit code: 0 done, 2 bad input."""
    options = tyro.cli(CurvesOptions, args=arguments, prog=program)
    try:
        if not options.runs:
            raise ValueError("give the folder of at least one run")
        panels = group([read_run(path) for path in options.runs])
        check_output(options.out, ".png")
        write_file(options.out, draw(panels))
    except (ValueError, OSError) as error:
        return fail(program, error)
    for env, kinds in panels.items():
        for label, runs in kinds.items():
            mean, low, high = mean_interval(np.array([run.returns[-1] for run in runs]))
            interval = "" if len(runs) == 1 else f" ({low:.3f} to {high:.3f})"
            print(
                f"{env}, {label}: {len(runs)} {'seed' if len(runs) == 1 else 'seeds'}, return {mean:.3f}{interval} at the end"
            )
    print(f"The picture: {options.out}")
    return 0


def read_run(path: Path) -> Run:
    """The learning curve of a run; raises ValueError if there is none."""
    folder, config = RunFolder.open(path)
    rows = [row for row in folder.read_progress() if RETURN in row]
    if not rows:
        raise ValueError(f"{path} has no learning curve yet: no episode has ended")
    frames, returns = (np.array([row[name] for row in rows]) for name in (FRAMES, RETURN))
    return Run(path, config, frames, smooth(returns))


def group(runs: Sequence[Run]) -> dict[str, dict[str, Kind]]:
    """The runs by environment and by the label of their kind, in the order in which they come.

    Raises ValueError for two runs that have the seed in common too, since the same run twice would narrow the interval.
    """
    kinds: dict[str, dict[str, Kind]] = {}
    for run in runs:
        of_env = kinds.setdefault(run.config.short_env, {})
        alike = of_env.setdefault(repr(_settings(run)), [])
        for other in alike:
            if other.config.seed == run.config.seed:
                raise ValueError(f"{other.path} and {run.path} have the same settings and seed: leave one of them out")
        alike.append(run)
    return {env: _label(list(of_env.values())) for env, of_env in kinds.items()}


def _settings(run: Run) -> dict[str, Any]:
    """What makes the kind of a run, by name, the most telling first."""
    settings = asdict(run.config)
    for name in ("seed", "env"):
        del settings[name]
    options = settings.pop("cell_options")
    return dict(cell=settings.pop("cell"), algo=settings.pop("algo")) | settings | options


def _label(kinds: list[Kind]) -> dict[str, Kind]:
    """Kinds by the cell, the algorithm if there are several, and those of their other settings that differ from kind to kind.

    What two cells have set apart by nature, such as their tuned learning rates, is no part of their names unless one of the
    cells comes in several kinds.
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
    """Frames [P], and the mean return there with both ends of its interval, as far as every one of the runs has come."""
    frames = np.linspace(max(run.frames[0] for run in runs), min(run.frames[-1] for run in runs), POINTS)
    return frames, *mean_interval(np.array([np.interp(frames, run.frames, run.returns) for run in runs]))


def draw(panels: dict[str, dict[str, Kind]]) -> bytes:
    """The picture as a PNG file."""
    labels = dict.fromkeys(label for kinds in panels.values() for label in kinds)
    colors = {label: COLORS[i % len(COLORS)] for i, label in enumerate(labels)}
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(7, 4.6 * columns), 0.6 + 3.7 * rows), dpi=150, layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, (env, kinds) in zip(places, panels.items(), strict=False):
            _draw_panel(axes, env, kinds, colors)
        for axes in places[len(panels) :]:
            axes.remove()
        handles = [Line2D([], [], linewidth=2, color=color, label=label) for label, color in colors.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=4 if columns > 1 else 2, frameon=False)
        content = io.BytesIO()
        figure.savefig(content, format="png")
    return content.getvalue()


def _draw_panel(axes: Axes, env: str, kinds: dict[str, Kind], colors: dict[str, str]) -> None:
    for label, runs in kinds.items():
        frames, mean, low, high = mean_curve(runs)
        axes.fill_between(frames, low, high, color=colors[label], alpha=0.18, linewidth=0)
        axes.plot(frames, mean, color=colors[label], linewidth=2)
    counts = sorted({len(runs) for runs in kinds.values()})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    seeds = "one seed" if counts == [1] else f"mean and 95 % interval over {number} seeds"
    axes.set_title(f"{env}\n", fontsize=12)
    axes.text(0.5, 1.02, seeds, transform=axes.transAxes, ha="center", va="bottom", fontsize=9, color="#4b5563")
    axes.set(xlabel="frames", ylabel="mean return")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
