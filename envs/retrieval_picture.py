"""The pictures of the retrieval game: a card with the key, a card with its value, and the answers given so far."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fw_rl.envs.questions import NOTHING

SIDE = 300
GROUND, CARD, FAINT = (22, 28, 43), (244, 246, 250), (92, 110, 148)
RIGHT, WRONG = (74, 222, 128), (248, 113, 113)


def draw_retrieval(
    key: int, value: int, answers: Sequence[int], actions: Sequence[int], keys: Sequence[int], values: int
) -> NDArray[np.uint8]:
    """One frame as an image [300, 300, 3]: the key and the value now, and what was asked and answered so far.

    `answers` are the right actions of all steps, or `NOTHING`, and `keys` are those seen at each of them; `actions` are the
    player's so far, and `values` is the number of values.
    """
    from PIL import Image, ImageDraw, ImageFont  # which SB3 brings, and what only plays does without

    image = Image.new("RGB", (SIDE, SIDE), GROUND)
    draw = ImageDraw.Draw(image)

    def write(x: float, y: float, text: str, size: float, color: tuple[int, ...]) -> None:
        draw.text((x, y), text, color, ImageFont.load_default(size), "mm")

    def disc(x: float, y: float, radius: float, value: int) -> None:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), color_of(value, values))
        write(x, y, str(value), 1.2 * radius, GROUND)

    asked = [step for step, answer in enumerate(answers) if answer != NOTHING]
    given = [step for step in asked if step < len(actions)]
    right = sum(actions[step] == answers[step] for step in given)
    blank = "wait" if len(given) < len(asked) else f"{right} of {len(asked)} right"
    write(SIDE / 2, 26, "remember" if value else "what was with it?" if key else blank, 22, CARD)
    if key:
        for left in (42, 158):
            draw.rounded_rectangle((left, 56, left + 100, 186), 12, CARD)
        write(92, 121, letter(key), 64, GROUND)
        if value:
            disc(208, 121, 38, value)
        else:
            write(208, 121, "?", 64, FAINT)

    room = (SIDE - 20) / len(asked)
    for place, step in enumerate(asked):
        x, size = 10 + room * (place + 0.5), min(room, 70)
        draw.rounded_rectangle((x - 0.45 * size, 206, x + 0.45 * size, 290), 6, outline=FAINT)
        if step in given:
            write(x, 219, letter(keys[step]), 0.26 * size, CARD)
            disc(x, 246, 0.22 * size, actions[step] + 1)
            _mark(draw, x, 275, 0.13 * size, actions[step] == answers[step])
    return np.asarray(image)


def letter(key: int) -> str:
    """A key as a letter, or as its number from 27 on."""
    return chr(64 + key) if key <= 26 else str(key)


def color_of(value: int, values: int) -> tuple[int, ...]:
    """A bright colour for each value, from 1 on."""
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb((value - 1) / values, 0.55, 0.97))


def _mark(draw: Any, x: float, y: float, size: float, right: bool) -> None:
    """A tick or a cross."""
    strokes = [(-1, 0, -0.3, 0.8), (-0.3, 0.8, 1, -0.9)] if right else [(-0.8, -0.8, 0.8, 0.8), (-0.8, 0.8, 0.8, -0.8)]
    for stroke in strokes:
        points = [(x + size * a, y + size * b) for a, b in (stroke[:2], stroke[2:])]
        draw.line(points, RIGHT if right else WRONG, max(round(0.4 * size), 2))
