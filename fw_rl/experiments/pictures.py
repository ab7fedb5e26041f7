"""The learning curve of a run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

__all__ = ["STYLE", "draw_learning_curve", "smooth"]

STYLE: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
"""What the pictures of learning have in common, for `matplotlib.rc_context`."""


def draw_learning_curve(rows: list[dict[str, float]], path: Path, title: str, greedy: float | None = None) -> None:
    """Draw the mean return of the training episodes over frames."""
    rows = [row for row in rows if "rollout/ep_rew_mean" in row]
    frames = [row["time/total_timesteps"] for row in rows]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
        axes = figure.subplots()
        returns = np.array([row["rollout/ep_rew_mean"] for row in rows])
        axes.plot(frames, returns, color="#2563eb", alpha=0.25, linewidth=1)
        axes.plot(frames, smooth(returns), color="#2563eb", linewidth=2, label="training episodes")
        if greedy is not None and frames:
            axes.plot(
                frames[-1], greedy, "o", color="#dc2626", clip_on=False, zorder=3, label=f"greedy at the end: {greedy:.3f}"
            )
        axes.set(title=title, xlabel="frames", ylabel="mean return")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.legend(frameon=False, loc="lower right")
        figure.savefig(path)


def smooth(values: NDArray[np.float64], share: float = 0.05) -> NDArray[np.float64]:
    """The mean over a window around each value."""
    half = int(len(values) * share / 2)
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])
