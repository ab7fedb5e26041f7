"""What trained memories attend to when an answer is due, in the games in which it was shown at one earlier step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fw_rl.envs import Game, RetrievalGame
from fw_rl.envs.popgym import RepeatFirst, RepeatPrevious
from fw_rl.experiments.agents import load_trained
from fw_rl.experiments.attention import FAINTEST, attention_shares, draw_scale
from fw_rl.experiments.curves import put_titles
from fw_rl.experiments.episodes import open_env, play_episode
from fw_rl.lines import STYLE, as_png

__all__ = ["Recall", "answer_steps", "draw_recalls", "recall_of"]

Steps = list[tuple[int, int]]


class Recall(NamedTuple):
    """An episode of T steps: shares [T, T] of attention from `attention_shares`, and the steps that showed the answers."""

    game: str
    cell: str
    shares: NDArray[np.float64]
    answers: Steps

    @property
    def hits(self) -> int:
        """How many of the answers were shown at the step that gets the most attention when they are due."""
        return sum(int(self.shares[due].argmax()) == lay for due, lay in self.answers)

    @property
    def share(self) -> float:
        """The mean share of attention that goes to the step that showed the answer, when it is due."""
        return float(np.mean([self.shares[step] for step in self.answers]))


def answer_steps(game: Game, observations: Sequence[Any]) -> Steps:
    """Each step at which an answer is due, with the earlier step at which it was seen; none if a game has no such steps."""
    steps = range(len(observations))
    if isinstance(game, RetrievalGame):
        shown = {int(key): step for step, (key, value) in enumerate(observations) if value}
        return [(step, shown[int(key)]) for step, (key, value) in enumerate(observations) if key and not value]
    if isinstance(game, RepeatPrevious):
        return [(step, step - game.k + 1) for step in steps if step >= game.k - 1]
    if isinstance(game, RepeatFirst):
        return [(step, 0) for step in steps[1:]]
    return []


def recall_of(run: Path) -> Recall | None:
    """A greedy episode of the agent in the folder of a run; None if its cell does not attend or its game has no such steps."""
    config, model = load_trained(run)
    env = open_env(config, None, model)
    game = getattr(env.unwrapped, "game", None)
    if not model.policy.actor_cell.attends or not isinstance(game, Game):
        return None
    episode = play_episode(model, env, seed=config.seed)
    seen = [observation["observation"] if config.previous_step else observation for observation in episode.observations]
    answers = answer_steps(game, seen)
    return Recall(config.short_env, config.short_cell, attention_shares(model, episode), answers) if answers else None


def draw_recalls(recalls: Sequence[Recall]) -> bytes:
    """A row of panels for each game and a column for each cell, as a PNG file; red marks show where the answers were."""
    games, cells = (list(dict.fromkeys(getattr(one, name) for one in recalls)) for name in ("game", "cell"))
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(1.2 + 4.0 * len(cells), 0.4 + 4.1 * len(games)), dpi=120, layout="constrained")
        panels = figure.subplots(len(games), len(cells), squeeze=False)
        for one in recalls:
            image = _draw(panels[games.index(one.game), cells.index(one.cell)], one)
        for axes in panels.flat:
            axes.set_visible(bool(axes.images))
        draw_scale(figure, image, "share of a step's attention", ax=panels, aspect=40, pad=0.02)
        return as_png(figure)


def _draw(axes: Axes, one: Recall) -> Any:
    steps = len(one.shares)
    image = axes.imshow(one.shares, cmap="Blues", norm=LogNorm(FAINTEST, 1))
    due, lay = np.array(one.answers).T
    side = 160 / steps  # points of a step in a panel
    axes.scatter(lay, due, marker="s", s=side**2, facecolors="none", edgecolors="#dc2626", linewidths=min(1.2, side / 3))
    axes.set(xlabel="step that is attended to", ylabel="step that attends")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[:].set_visible(False)
    told = f"{one.hits} of {len(one.answers)} answers get the most attention, {100 * one.share:.0f} % on average"
    put_titles(axes, f"{one.game}, {one.cell}", told)
    return image
