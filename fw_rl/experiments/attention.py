"""What a memory attends to in an episode, as a picture: each step's past steps, beside the frames."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fw_rl.agents import RecurrentOnPolicyAlgorithm
from fw_rl.agents.rollout import map_observation
from fw_rl.experiments.episodes import Episode

__all__ = ["AttentionPicture", "attention_shares"]

Image = NDArray[np.uint8]

SIDE, EDGE, GAP = 6.4, 0.75, 0.08
"""Inches: a side of the matrix, what is left around it for words, and what lies between its parts."""

THUMBNAILS = 8
"""Frames along a side, at most."""

WORDS = 48
"""Steps that are called by what was observed, at most."""

FAINTEST = 1e-3
"""The least share that has a colour."""


def attention_shares(model: RecurrentOnPolicyAlgorithm, episode: Episode) -> NDArray[np.float64]:
    """What share of its attention each of T steps gives to each earlier one, [T, T]; a row sums to 1, or 0.

    It is the weight of Ba16 Eq. 4, ``strength * (key . query)``, without its sign, over the sum of its row.
    """
    cell: Any = model.policy.actor_cell
    if not cell.attends:
        raise ValueError(f"cell must be one that attends to past steps, such as fast-weights, got {model.policy.cell_name!r}")
    observations, _ = model.policy.obs_to_tensor(_stack(episode.observations))
    with torch.no_grad():
        encoded = model.policy.encode(map_observation(lambda part: part.unsqueeze(1), observations), actor_only=True)
        weights = cell.attention(encoded, cell.initial_state(1))[:, 0].abs().double()
    shares: NDArray[np.float64] = (weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)).cpu().numpy()
    return shares


class AttentionPicture:
    """A row for each step of an episode, and along it the steps before; frames on both sides, if there are any.

    The frames above the matrix show the steps that are attended to, those at its left the steps that attend.
    """

    def __init__(self, episode: Episode, shares: NDArray[np.float64], title: str, dpi: int = 150) -> None:
        self.episode, self.shares = episode, shares
        self.every = math.ceil(len(episode) / THUMBNAILS)
        self.frames = episode.frames[: len(episode) - self.every + 1 : self.every]
        self.thumbnails: list[tuple[int, AxesImage]] = []
        height, width = self.frames[0].shape[:2] if self.frames else (0, 0)
        scale = SIDE / len(episode) * self.every / max(height, width, 1)
        high, wide = scale * height, scale * width
        left, bottom = EDGE + wide + GAP, EDGE
        self.size = left + SIDE + 2 * EDGE, bottom + SIDE + GAP + high + 0.6 * EDGE
        with matplotlib.rc_context({"font.size": 12}):
            self.figure = Figure(figsize=self.size, dpi=dpi)
            self.canvas = FigureCanvasAgg(self.figure)
            self._draw_matrix(self._axes(left, bottom, SIDE, SIDE))
            self._draw_scale(self._axes(left + SIDE + 2 * GAP, bottom, 0.14, SIDE))
            if self.frames:
                self._draw_strip(self._axes(left, bottom + SIDE + GAP, SIDE, high), across=True)
                self._draw_strip(self._axes(left - GAP - wide, bottom, wide, SIDE), across=False)
                self.matrix.tick_params(left=False, labelleft=False)
            self.figure.axes[-1 if self.frames else 0].set_ylabel("query: the step that attends")
            self.figure.text((left + SIDE / 2) / self.size[0], 1 - 0.15 / self.size[1], title, ha="center", va="top")

    def draw(self, steps: int | None = None) -> Image:
        """The picture, [height, width, 3], after so many steps, or all."""
        steps = len(self.shares) if steps is None else steps
        later = np.arange(len(self.shares))[:, None] >= steps
        self.image.set_data(np.where(later, 0.0, self.shares))
        self.now.set_visible(steps < len(self.shares))
        self.now.set_y(steps - 1.5)
        for step, thumbnail in self.thumbnails:
            thumbnail.set_visible(step < steps)
        self.canvas.draw()
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()

    def animate(self) -> list[Image]:
        """The picture as it comes to be, step by step, and beside it the frame of that step."""
        pictures = [self.draw(steps) for steps in range(1, len(self.shares) + 1)]
        if not self.episode.frames:
            return pictures
        return [_beside(frame, picture) for frame, picture in zip(self.episode.frames, pictures, strict=False)]

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        across, up = self.size
        return self.figure.add_axes((left / across, bottom / up, width / across, height / up))

    def _draw_matrix(self, axes: Axes) -> None:
        steps = len(self.shares)
        self.matrix = axes
        self.image = axes.imshow(self.shares, cmap="Blues", norm=LogNorm(FAINTEST, 1), aspect="auto")
        row = Rectangle((-0.5, -0.5), steps, 1, fill=False, edgecolor="#dc2626", linewidth=1.5, clip_on=False)
        axes.add_patch(row)
        self.now = row
        axes.plot([-0.5, steps - 0.5], [-0.5, steps - 0.5], color="#9ca3af", linewidth=0.8)
        axes.set(xlabel="key: the past step that is attended to", xlim=(-0.5, steps - 0.5), ylim=(steps - 0.5, -0.5))
        axes.spines[:].set_visible(False)
        words = [_word(observation) for observation in self.episode.observations]
        if steps <= WORDS and all(words):
            axes.set_xlabel(f"{axes.get_xlabel()}, called by its observation")
            axes.set_xticks(range(steps), words, rotation=90, fontsize=9)
            axes.set_yticks(range(steps), words, fontsize=9)
            return
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    def _draw_scale(self, axes: Axes) -> None:
        bar = self.figure.colorbar(self.image, cax=axes)
        bar.set_ticks([0.001, 0.01, 0.1, 1.0], labels=["0.1 %", "1 %", "10 %", "100 %"])
        bar.minorticks_off()
        bar.set_label("share of a step's attention")
        bar.outline.set_visible(False)  # type: ignore[operator]

    def _draw_strip(self, axes: Axes, across: bool) -> None:
        """Every so many of the frames, each at the place of its step along a side of the matrix."""
        for i, frame in enumerate(self.frames):
            begin, end = i * self.every - 0.5, (i + 1) * self.every - 0.5
            extent = (begin, end, 0, 1) if across else (0, 1, end, begin)
            self.thumbnails.append((i * self.every, axes.imshow(frame, extent=extent, aspect="auto")))
        axes.set(xlim=self.matrix.get_xlim(), ylim=(0, 1)) if across else axes.set(xlim=(0, 1), ylim=self.matrix.get_ylim())
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(bottom=False, labelbottom=False, left=not across, labelleft=not across)
        axes.spines[:].set_visible(False)


def _beside(frame: Image, picture: Image) -> Image:
    """A frame in the middle of a white ground as high as the picture at its right."""
    ground = PIL.Image.new("RGB", (round(0.7 * len(picture)), len(picture)), "white")
    drawn = PIL.ImageOps.contain(PIL.Image.fromarray(frame), (round(0.6 * len(picture)),) * 2)
    ground.paste(drawn, ((ground.width - drawn.width) // 2, (ground.height - drawn.height) // 2))
    return np.hstack([np.asarray(ground), picture])


def _word(observation: Any) -> str:
    """An observation of a few whole numbers as a word, else nothing."""
    numbers = np.asarray(observation.get("observation") if isinstance(observation, dict) else observation)
    return " ".join(map(str, numbers.ravel().tolist())) if numbers.dtype.kind in "iu" and numbers.size <= 3 else ""


def _stack(observations: list[Any]) -> Any:
    """Observations [T, ...], key by key if they are dictionaries."""
    if isinstance(observations[0], dict):
        return {key: np.stack([part[key] for part in observations]) for key in observations[0]}
    return np.stack(observations)
