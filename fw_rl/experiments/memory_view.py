"""Frames of an episode with the memory beside them: the past steps that it reads, or else the units that it holds."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fw_rl.agents import RecurrentOnPolicyAlgorithm
from fw_rl.cells import Cell, State
from fw_rl.experiments.attention import encode, shares_of
from fw_rl.experiments.episodes import Episode

__all__ = ["SIDE", "MemoryView", "most_read", "with_memory"]

SIDE, EDGE = 320, 14
"""Pixels of a side of the squares for the frame and the memory, and of their margins."""

FRAMES, LEAST = 3, 0.05
"""How many of the most-read past steps are shown by their frames, and the least share of attention for that."""

LOOK_BACK, ROOM = 64, 8
"""The most past steps that are shown of a running episode, and the number that has room at its start."""

GROUND, INK, FAINT, BAR, NOW = (22, 28, 43), (236, 240, 247), (124, 138, 168), (89, 194, 255), (255, 178, 84)


def with_memory(model: RecurrentOnPolicyAlgorithm, episode: Episode) -> list[NDArray[np.uint8]]:
    """The T + 1 frames, each [320, 640, 3] with the memory at that step on its right, the last one with the last memory."""
    cell, steps = model.policy.actor_cell, len(episode)
    frames = [_fit(frame) for frame in episode.frames]
    memory = _memory(cell, encode(model, episode.observations), cell.initial_state(1))
    seen = [min(step + 1, steps) for step in range(len(frames))]
    panels = (_draw(cell, memory[:now], frames, 0, steps) for now in seen)
    return [_beside(frame, panel) for frame, panel in zip(frames, panels, strict=True)]


class MemoryView:
    """Frames of a running episode, with the memory of its last `LOOK_BACK` steps beside them."""

    def __init__(self, model: RecurrentOnPolicyAlgorithm) -> None:
        self.model, self.cell = model, model.policy.actor_cell
        self.before, self.first = self.cell.stepper(self.cell.initial_state(1)), 0
        self.inputs: list[torch.Tensor] = []
        self.frames: list[Image.Image] = []

    def picture(self, episode: Episode) -> NDArray[np.uint8]:
        """The last frame of the episode, [320, 640, 3] with the memory on its right; called at each step of `play_steps`."""
        frame = _fit(episode.frames[-1])
        if len(episode.observations) > len(episode):
            self._observe(episode.observations[-1], frame)
        return _beside(frame, self.panel)

    def _observe(self, observation: Any, frame: Image.Image) -> None:
        self.inputs.append(encode(self.model, [observation]))
        self.frames.append(frame)
        if len(self.inputs) > LOOK_BACK:
            x = self.inputs.pop(0)[0]
            self.before.step(x, x.new_zeros(1, dtype=torch.bool))
            del self.frames[0]
            self.first += 1
        memory = _memory(self.cell, torch.cat(self.inputs), self.before.state)
        room = max(ROOM, 1 << (len(memory) - 1).bit_length())
        self.panel = _draw(self.cell, memory, self.frames, self.first, room)


def most_read(shares: NDArray[np.float64]) -> list[int]:
    """The past steps with the largest shares of attention, in order of time, without those that have hardly any."""
    most = np.argsort(-shares, kind="stable")[:FRAMES]
    return sorted(int(step) for step in most if shares[step] >= LEAST)


@torch.no_grad()
def _memory(cell: Cell, x: torch.Tensor, state: State) -> NDArray[np.float64]:
    """What a cell reads at each step of the inputs, [T, T], or else its units, [T, H], over the largest magnitude."""
    if cell.attends:
        return shares_of(cell, x, state)
    units: NDArray[np.float64] = cell(x, state)[0][:, 0].double().cpu().numpy()
    return units / max(np.abs(units).max(), 1e-12)


def _fit(frame: NDArray[np.uint8]) -> Image.Image:
    """The frame fitted to a square: a large one is shrunk, a small one enlarged by a whole factor."""
    picture = Image.fromarray(frame)
    scale = SIDE / max(picture.size)
    width, height = (max(round(length * (scale if scale < 1 else int(scale))), 1) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.HAMMING if scale < 1 else Image.Resampling.NEAREST)


def _beside(frame: Image.Image, panel: Image.Image) -> NDArray[np.uint8]:
    whole = Image.new("RGB", (2 * SIDE, SIDE), GROUND)
    whole.paste(frame, ((SIDE - frame.width) // 2, (SIDE - frame.height) // 2))
    whole.paste(panel, (SIDE, 0))
    return np.asarray(whole)


def _panel(title: str) -> tuple[Image.Image, Any]:
    panel = Image.new("RGB", (SIDE, SIDE), GROUND)
    draw = ImageDraw.Draw(panel)
    _write(draw, SIDE / 2, 24, title, 17)
    return panel, draw


def _write(draw: Any, x: float, y: float, text: str, size: float, color: tuple[int, ...] = INK) -> None:
    draw.text((x, y), text, color, _font(size), "mm")


@cache
def _font(size: float) -> Any:
    return ImageFont.load_default(size)


def _draw(cell: Cell, memory: NDArray[np.float64], frames: list[Image.Image], first: int, room: int) -> Image.Image:
    """The memory at the last of the steps from `first` on, on an axis with room for `room` steps."""
    if cell.attends:
        return _draw_reading(memory[-1, : len(memory)], frames, first, room)
    return _draw_units(memory, first, room)


def _draw_reading(shares: NDArray[np.float64], frames: list[Image.Image], first: int, room: int) -> Image.Image:
    """A bar for the share of attention that each past step gets, and the frames of those that get most."""
    now = len(shares) - 1
    panel, draw = _panel(
        f"what the memory reads at step {first + now}" if shares.any() else "the memory has nothing to read yet"
    )
    floor, height, width = 124, 80, (SIDE - 2 * EDGE) / room
    for step in range(room):
        left, right = EDGE + width * step, EDGE + width * (step + 1) - (2 if width > 6 else 0)
        draw.rectangle((left, floor, right, floor + 2), NOW if step == now else FAINT)
        if step < now and height * shares[step] >= 1:
            draw.rectangle((left, floor - height * shares[step], right, floor), BAR)
    for tick in MaxNLocator(8, integer=True).tick_values(first, first + room - 1):
        if first <= tick < first + room:
            _write(draw, EDGE + width * (tick - first + 0.5), floor + 14, f"{tick:.0f}", 12, FAINT)
    space, y = (SIDE - 2 * EDGE) // FRAMES, 226
    read = most_read(shares)
    for place, step in enumerate(read):
        x = round(SIDE / 2 + space * (place - (len(read) - 1) / 2))
        most, half = step == shares.argmax(), space // 2 - 2
        small = frames[step].copy()
        small.thumbnail((2 * half - 6,) * 2)
        panel.paste(small, (x - small.width // 2, y - small.height // 2))
        if most:
            draw.rectangle((x - half, y - half, x + half, y + half), outline=BAR)
        _write(draw, x, y - 58, f"step {first + step}", 13, INK if most else FAINT)
        _write(draw, x, y + 64, f"{shares[step]:.0%}", 18, INK if most else FAINT)
    return panel


def _draw_units(units: NDArray[np.float64], first: int, room: int) -> Image.Image:
    """A row for each unit and a column for each step."""
    steps, count = units.shape
    panel, draw = _panel(f"the memory holds {count} units")
    colors = np.full((count, room, 3), GROUND, np.uint8)
    colors[:, :steps] = 255 * colormaps["RdBu_r"](units.T / 2 + 0.5)[..., :3]
    width, height = SIDE - 2 * EDGE, SIDE - 96
    strip = Image.fromarray(colors).resize((width, height), Image.Resampling.NEAREST)
    panel.paste(strip, (EDGE, 48))
    x = EDGE + width * (steps - 0.5) / room
    draw.polygon([(x, 48 + height + 3), (x - 6, 48 + height + 12), (x + 6, 48 + height + 12)], NOW)
    _write(draw, SIDE / 2, SIDE - 18, f"step {first + steps - 1}", 13, FAINT)
    return panel
