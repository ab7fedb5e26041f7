"""A picture of what a memory attends to in an episode: the past steps that each step reads, beside the frames."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fw_rl.agents import RecurrentOnPolicyAlgorithm
from fw_rl.agents.rollout import map_observation
from fw_rl.cells import Cell, State
from fw_rl.experiments.episodes import Episode

__all__ = ["AttentionPicture", "attention_shares", "draw_scale", "encode", "shares_of"]

Image = NDArray[np.uint8]

EDGE, GAP, LINE, FRAME = 0.75, 0.08, 0.25, 0.55
"""Inches: the margin around the matrix for labels, the gap between its parts, a line of text, and the smallest frame."""

DPI, PIXELS = 150, 2
"""Pixels per inch, and at least per step; steps without room are left out."""

WORDS = 7.5
"""Up to this many steps per inch are labelled by their observations."""

FAINTEST = 1e-3
"""The smallest share that has a colour."""


def attention_shares(model: RecurrentOnPolicyAlgorithm, episode: Episode) -> NDArray[np.float64]:
    """The share of its attention that each of T steps gives to each earlier one, [T, T]; a row sums to 1, or 0."""
    cell = model.policy.actor_cell
    if not cell.attends:
        raise ValueError(f"cell must be one that attends to past steps, such as fast-weights, got {model.policy.cell_name!r}")
    return shares_of(cell, encode(model, episode.observations), cell.initial_state(1))


@torch.no_grad()
def shares_of(cell: Cell, x: torch.Tensor, state: State) -> NDArray[np.float64]:
    """The shares [T, T] of inputs [T, 1, I].

    They are the weights of Ba16 Eq. 4, ``strength * (key . query)``, without their sign, over the sum of their row.
    """
    weights = cell.attention(x, state)[:, 0].abs().double()
    shares: NDArray[np.float64] = (weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)).cpu().numpy()
    return shares


@torch.no_grad()
def encode(model: RecurrentOnPolicyAlgorithm, observations: list[Any]) -> torch.Tensor:
    """The inputs of the actor's cell for T observations, [T, 1, I]."""
    stacked, _ = model.policy.obs_to_tensor(_stack(observations))
    return model.policy.encode(map_observation(lambda part: part.unsqueeze(1), stacked), actor_only=True)


class AttentionPicture:
    """A matrix with a row for each step of an episode, a column for each step before it, and frames, if any, along both.

    The frames above the matrix show the steps that are attended to, those on its left the steps that attend. A line below says
    what is left out. `side` is the side of the matrix in inches: on a small one the text is large and the frames are few.
    """

    def __init__(self, episode: Episode, shares: NDArray[np.float64], title: str, side: float = 6.4) -> None:
        self.steps = min(len(episode), round(side * DPI / PIXELS))
        self.shares, self.side = shares[: self.steps, : self.steps], side
        self.words = [_word(observation) for observation in episode.observations[: self.steps]]
        self.every = math.ceil(self.steps / (side / FRAME))
        self.frames = episode.frames[: self.steps - self.every + 1 : self.every]
        self.left_out = _left_out(episode, self.steps, self.every if self.frames else 1)
        height, width = self.frames[0].shape[:2] if self.frames else (0, 0)
        scale = side / self.steps * self.every / max(height, width, 1)
        high, wide = scale * height, scale * width
        left, bottom = EDGE + wide + GAP, EDGE + LINE * bool(self.left_out)
        self.size = left + side + 2 * EDGE, bottom + side + GAP + high + 2 * LINE
        with matplotlib.rc_context({"font.size": 12}):
            self.figure = Figure(figsize=self.size, dpi=DPI)
            self._draw_matrix(self._axes(left, bottom, side, side))
            beside = self._axes(left + side + 2 * GAP, bottom, 0.14, side)
            draw_scale(self.figure, self.image, "share of its attention", cax=beside)
            if self.frames:
                self._draw_strip(self._axes(left, bottom + side + GAP, side, high), across=True)
                self._draw_strip(self._axes(left - GAP - wide, bottom, wide, side), across=False)
                self.matrix.tick_params(left=False, labelleft=False)
            self.figure.axes[-1 if self.frames else 0].set_ylabel("the step that attends")
            self.figure.text(0.5, 1 - 0.12 / self.size[1], title, ha="center", va="top")
            self.figure.text(0.5, 0.08 / self.size[1], self.left_out, ha="center", va="bottom", color="#4b5563", fontsize=10)

    def pixels(self) -> Image:
        """The picture, [height, width, 3]."""
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        across, up = self.size
        return self.figure.add_axes((left / across, bottom / up, width / across, height / up))

    def _draw_matrix(self, axes: Axes) -> None:
        self.matrix = axes
        self.image = axes.imshow(self.shares, cmap="Blues", norm=LogNorm(FAINTEST, 1), aspect="auto")
        axes.plot([-0.5, self.steps - 0.5], [-0.5, self.steps - 0.5], color="#9ca3af", linewidth=0.8)
        axes.set(xlabel="the past step that it attends to", xlim=(-0.5, self.steps - 0.5), ylim=(self.steps - 0.5, -0.5))
        axes.spines[:].set_visible(False)
        if self.steps <= WORDS * self.side and all(self.words):
            axes.set_xlabel(f"{axes.get_xlabel()}, by its observation")
            axes.set_xticks(range(self.steps), self.words, rotation=90, fontsize=9)
            axes.set_yticks(range(self.steps), self.words, fontsize=9)
            return
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    def _draw_strip(self, axes: Axes, across: bool) -> None:
        """The frames, each at the place of its step along a side of the matrix."""
        for i, frame in enumerate(self.frames):
            begin, end = i * self.every - 0.5, (i + 1) * self.every - 0.5
            axes.imshow(frame, extent=(begin, end, 0, 1) if across else (0, 1, end, begin), aspect="auto")
        axes.set(xlim=self.matrix.get_xlim(), ylim=(0, 1)) if across else axes.set(xlim=(0, 1), ylim=self.matrix.get_ylim())
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(bottom=False, labelbottom=False, left=not across, labelleft=not across)
        axes.spines[:].set_visible(False)


def _left_out(episode: Episode, steps: int, every: int) -> str:
    """A note on what the picture leaves out: the steps after the first `steps`, and all but one of `every` frames."""
    told = []
    if steps < len(episode):
        told.append(f"the first {steps} of {len(episode)} steps")
    elif not episode.ended:
        told.append(f"the first {steps} steps; the episode goes on")
    if every > 1:
        told.append(f"one frame of {every} is shown")
    return "; ".join(told)


def _word(observation: Any) -> str:
    """An observation of at most three integers as text, else an empty string."""
    numbers = np.asarray(observation.get("observation") if isinstance(observation, dict) else observation)
    return " ".join(map(str, numbers.ravel().tolist())) if numbers.dtype.kind in "iu" and numbers.size <= 3 else ""


def _stack(observations: list[Any]) -> Any:
    """Observations [T, ...], key by key if they are dictionaries."""
    if isinstance(observations[0], dict):
        return {key: np.stack([part[key] for part in observations]) for key in observations[0]}
    return np.stack(observations)


def draw_scale(figure: Figure, image: Any, label: str, **place: Any) -> None:
    """A colour bar for shares of attention; `place` has arguments of `Figure.colorbar`."""
    bar = figure.colorbar(image, **place)
    bar.set_ticks([0.001, 0.01, 0.1, 1.0], labels=["0.1 %", "1 %", "10 %", "100 %"])
    bar.minorticks_off()
    bar.set_label(label)
    bar.outline.set_visible(False)  # type: ignore[operator]
