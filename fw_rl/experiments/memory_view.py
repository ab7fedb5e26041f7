"""Frames of an episode with the memory beside them: the past steps that it reads, or else the units that it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fw_rl.agents import RecurrentOnPolicyAlgorithm
from fw_rl.experiments.attention import attention_shares, encode_episode
from fw_rl.experiments.episodes import Episode

__all__ = ["most_read", "with_memory"]

SIDE, EDGE = 320, 14
"""Pixels of the square for a frame and of that for the memory, and what is left around their contents."""

FRAMES, LEAST = 3, 0.05
"""How many of the past steps that are read most are shown by their frames, and the least share of attention for that."""

GROUND, INK, FAINT, BAR, NOW = (22, 28, 43), (236, 240, 247), (124, 138, 168), (89, 194, 255), (255, 178, 84)


def with_memory(model: RecurrentOnPolicyAlgorithm, episode: Episode) -> list[NDArray[np.uint8]]:
    """The T + 1 frames, each [320, 640, 3] with the memory at its right as it was at that step, at the end as it was last."""
    frames = [_fit(frame, SIDE) for frame in episode.frames]
    attends = model.policy.actor_cell.attends
    memory = attention_shares(model, episode) if attends else _held(model, episode)
    pictures = []
    for step, frame in enumerate(frames):
        now = min(step, len(episode) - 1)
        whole = Image.new("RGB", (2 * SIDE, SIDE), GROUND)
        whole.paste(frame, ((SIDE - frame.width) // 2, (SIDE - frame.height) // 2))
        whole.paste(_draw_reading(memory, now, frames) if attends else _draw_units(memory, now), (SIDE, 0))
        pictures.append(np.asarray(whole))
    return pictures


def most_read(shares: NDArray[np.float64]) -> list[int]:
    """The past steps with the largest shares of attention, in the order of time; none that has hardly any."""
    most = np.argsort(-shares, kind="stable")[:FRAMES]
    return sorted(int(step) for step in most if shares[step] >= LEAST)


def _held(model: RecurrentOnPolicyAlgorithm, episode: Episode) -> NDArray[np.float64]:
    """What the units of the actor's cell are at each step, [T, H], from -1 to 1 by the largest of them."""
    cell = model.policy.actor_cell
    with torch.no_grad():
        y, _ = cell(encode_episode(model, episode), cell.initial_state(1))
    units: NDArray[np.float64] = y[:, 0].double().cpu().numpy()
    return units / max(np.abs(units).max(), 1e-12)


def _fit(frame: NDArray[np.uint8], side: int) -> Image.Image:
    """The frame within a square: a large one is shrunk, and of a small one each pixel becomes so many."""
    picture = Image.fromarray(frame)
    scale = side / max(picture.size)
    width, height = (max(round(length * (scale if scale < 1 else int(scale))), 1) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _panel(title: str) -> tuple[Image.Image, Any]:
    panel = Image.new("RGB", (SIDE, SIDE), GROUND)
    draw = ImageDraw.Draw(panel)
    _write(draw, SIDE / 2, 24, title, 17)
    return panel, draw


def _write(draw: Any, x: float, y: float, text: str, size: float, color: tuple[int, ...] = INK) -> None:
    draw.text((x, y), text, color, ImageFont.load_default(size), "mm")


def _draw_reading(shares: NDArray[np.float64], now: int, frames: list[Image.Image]) -> Image.Image:
    """A bar for the share of attention that each past step gets, and the frames of those that get most."""
    panel, draw = _panel(f"what the memory reads at step {now}" if shares[now].any() else "the memory has nothing to read yet")
    steps, floor, height = len(shares), 124, 80
    width = (SIDE - 2 * EDGE) / steps
    for step, share in enumerate(shares[now]):
        left, right = EDGE + width * step, EDGE + width * (step + 1) - (2 if width > 6 else 0)
        draw.rectangle((left, floor, right, floor + 2), NOW if step == now else FAINT)
        if step < now:
            draw.rectangle((left, floor - height * share, right, floor), BAR)
    for tick in MaxNLocator(8, integer=True).tick_values(0, steps - 1):
        if 0 <= tick < steps:
            _write(draw, EDGE + width * (tick + 0.5), floor + 14, f"{tick:.0f}", 12, FAINT)
    room, y = (SIDE - 2 * EDGE) // FRAMES, 226
    read = most_read(shares[now])
    for place, step in enumerate(read):
        x = round(SIDE / 2 + room * (place - (len(read) - 1) / 2))
        most, half = step == shares[now].argmax(), room // 2 - 2
        small = frames[step].copy()
        small.thumbnail((2 * half - 6,) * 2)
        panel.paste(small, (x - small.width // 2, y - small.height // 2))
        if most:
            draw.rectangle((x - half, y - half, x + half, y + half), outline=BAR)
        _write(draw, x, y - 58, f"step {step}", 13, INK if most else FAINT)
        _write(draw, x, y + 64, f"{shares[now, step]:.0%}", 18, INK if most else FAINT)
    return panel


def _draw_units(units: NDArray[np.float64], now: int) -> Image.Image:
    """A row for each unit and a column for each step up to now."""
    steps, count = units.shape
    panel, draw = _panel(f"the memory holds {count} units")
    colors = (255 * colormaps["RdBu_r"](units.T / 2 + 0.5)[..., :3]).astype(np.uint8)
    colors[:, now + 1 :] = GROUND
    width, height = SIDE - 2 * EDGE, SIDE - 96
    strip = Image.fromarray(colors).resize((width, height), Image.Resampling.NEAREST)
    panel.paste(strip, (EDGE, 48))
    x = EDGE + width * (now + 0.5) / steps
    draw.polygon([(x, 48 + height + 3), (x - 6, 48 + height + 12), (x + 6, 48 + height + 12)], NOW)
    _write(draw, SIDE / 2, SIDE - 18, f"step {now}", 13, FAINT)
    return panel
