"""Faces drawn in place of Multi-PIE, with its labels: people, views, lights and expressions as parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTIONS", "EXPRESSIONS"]

Array = NDArray[np.floating[Any]]
Parameters = Mapping[str, Array]
"""Numbers by name, each [N]. Lengths are in half heights of the image, whose centre is 0; y points down."""

EXPRESSIONS = ("neutral", "smile", "surprise", "squint", "disgust", "scream")

ACTIONS = {
    #              neutral smile surprise squint disgust scream
    "brow_raise": (0.00, 0.10, 1.00, -0.25, -0.40, 0.10),
    "brow_frown": (0.00, 0.00, 0.00, 0.45, 0.70, 0.40),
    "eye_open": (1.00, 0.80, 1.35, 0.40, 0.50, 0.45),
    "mouth_smile": (0.00, 1.00, 0.00, 0.10, -0.45, -0.20),
    "mouth_open": (0.00, 0.15, 0.60, 0.00, 0.10, 1.00),
    "mouth_wide": (0.00, 0.30, -0.30, 0.00, 0.05, 0.15),
    "lip_raise": (0.00, 0.15, 0.00, 0.10, 0.70, 0.40),
    "nose_wrinkle": (0.00, 0.10, 0.00, 0.45, 0.80, 0.60),
}
"""What each expression does to a face, from 0, nothing, to 1."""

PEOPLE = {
    #                mean, spread
    "head_width": (0.68, 0.05),
    "head_height": (0.88, 0.05),
    "skin": (0.68, 0.12),
    "hair": (0.25, 0.12),
    "hair_line": (-0.58, 0.08),
    "eye_y": (-0.14, 0.03),
    "eye_x": (0.29, 0.025),
    "eye_width": (0.135, 0.015),
    "eye_height": (0.058, 0.008),
    "brow_y": (-0.31, 0.03),
    "brow_thick": (0.032, 0.010),
    "brow_dark": (0.35, 0.15),
    "nose_length": (0.32, 0.04),
    "nose_width": (0.12, 0.02),
    "mouth_y": (0.48, 0.03),
    "mouth_width": (0.24, 0.025),
    "lip_thick": (0.030, 0.007),
}
"""The parameters of a person."""

_PIXEL = 2 / 48


def draw_people(count: int, random: np.random.Generator) -> dict[str, Array]:
    """The parameters of `count` people: their looks, and the resting face (``rest_`` and the name of an action)."""
    people = {name: random.normal(mean, spread, count) for name, (mean, spread) in PEOPLE.items()}
    people |= {f"rest_{name}": random.normal(0.0, 0.12, count) for name in ACTIONS}
    people["glasses"] = (random.random(count) < 0.25).astype(float)
    return {name: values.astype(np.float32) for name, values in people.items()}


def pose_people(people: Parameters, expression: NDArray[np.int64], random: np.random.Generator) -> dict[str, Array]:
    """The parameters of one picture of each of these people with these expressions [N], some weak and some strong."""
    count = len(expression)
    picture = dict(people)
    strength = random.uniform(0.5, 1.2, count)
    for name, by_expression in ACTIONS.items():
        neutral, full = by_expression[0], np.array(by_expression)[expression]
        acted = neutral + strength * (full - neutral) + people[f"rest_{name}"] + random.normal(0.0, 0.08, count)
        picture[name] = acted.astype(np.float32)
    for name, spread in (("shift_x", 0.025), ("shift_y", 0.025), ("turn", 0.05)):
        picture[name] = random.normal(0.0, spread, count).astype(np.float32)
    return picture


def draw(
    picture: Parameters, view: Array, light_x: Array, light_y: Array, random: np.random.Generator, size: int = 48
) -> NDArray[np.uint8]:
    """Grey pictures [N, size, size] with camera noise; the camera stands `view` [N] radians to the side.

    The light comes from `light_x` and `light_y` [N], the sines of its angles to the right and downwards.
    """
    p = {name: values[:, None, None] for name, values in picture.items()}
    centres = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1)[None]
    x, y = centres[:, None, :] - p["shift_x"], centres[:, :, None] - p["shift_y"]
    across, down = x / p["head_width"], y / p["head_height"]
    # The face lies on a cylinder: turning the head slides it around.
    angle = np.arcsin(np.clip(across, -1, 1)) - view[:, None, None] - p["turn"]
    u = p["head_width"] * np.sin(angle)

    image = np.broadcast_to(np.float32(0.45), (len(view), size, size)).copy()
    head = _ellipse(x, y, p["head_width"], p["head_height"])
    image = _paint(image, head, p["skin"])
    image = _paint(image, head * _cover(y - p["hair_line"] - 0.12 * (u / p["head_width"]) ** 2), p["hair"])
    image = _draw_eyes(image, u, y, p)
    image = _draw_nose(image, u, y, p)
    image = _draw_mouth(image, u, y, p)

    depth = np.sqrt(np.clip(1 - across**2 - down**2, 0.05, 1))
    lx, ly = light_x[:, None, None], light_y[:, None, None]
    facing = across * lx + down * ly + depth * np.sqrt(np.clip(1 - lx**2 - ly**2, 0.05, 1))
    image = image * np.where(head > 0.5, 0.45 + 0.7 * np.clip(facing, 0, 1), 0.8)
    image = image + random.normal(0.0, 0.03, image.shape).astype(np.float32)
    return (255 * np.clip(image, 0, 1)).astype(np.uint8)


def _draw_eyes(image: Array, u: Array, y: Array, p: Parameters) -> Array:
    below = y - p["eye_y"]
    height = p["eye_height"] * np.clip(p["eye_open"], 0.12, 1.6)
    for side in (-1, 1):
        beside = u - side * p["eye_x"]
        white, iris = _ellipse(beside, below, p["eye_width"], height), _ellipse(beside, below, 0.055, 0.055)
        image = _paint(_paint(image, white, 0.95), white * iris, 0.1)
        image = _paint(image, _ring(beside, below, p["eye_width"], height, 0.018), 0.25)
        inward = -side * beside / p["eye_width"]
        brow = p["brow_y"] - 0.11 * p["brow_raise"] + 0.07 * p["brow_frown"] * (0.3 + inward) + 0.03 * inward**2
        stroke = _cover(np.abs(y - brow) - p["brow_thick"]) * _cover(np.abs(beside) - 1.35 * p["eye_width"])
        image = _paint(image, stroke, p["brow_dark"])
        image = _paint(image, p["glasses"] * _ring(beside, below, 0.22, 0.19, 0.02), 0.15)
    return image


def _draw_nose(image: Array, u: Array, y: Array, p: Parameters) -> Array:
    tip = p["eye_y"] + p["nose_length"] - 0.03 * p["nose_wrinkle"]
    ridge = _cover(np.abs(u - 0.25 * p["nose_width"]) - 0.012) * _cover(p["eye_y"] - y) * _cover(y - tip)
    image = _paint(image, 0.35 * ridge, p["skin"] * 0.5)
    for side in (-1, 1):
        nostril = _ellipse(u - side * 0.55 * p["nose_width"], y - tip, 0.4 * p["nose_width"], 0.03)
        image = _paint(image, 0.8 * nostril, p["skin"] * 0.4)
        fold = side * u - p["nose_width"] - 0.5 * (y - tip + 0.05)
        wrinkle = _cover(np.abs(fold) - 0.02) * _cover(tip - 0.08 - y) * _cover(y - p["mouth_y"])
        image = _paint(image, np.clip(0.6 * p["nose_wrinkle"] + 0.3 * p["mouth_smile"], 0, 0.7) * wrinkle, p["skin"] * 0.5)
    return image


def _draw_mouth(image: Array, u: Array, y: Array, p: Parameters) -> Array:
    width = p["mouth_width"] * (1 + np.clip(p["mouth_wide"], -0.5, 0.6))
    along = np.clip(u / width, -1.2, 1.2) ** 2
    line = p["mouth_y"] - 0.09 * p["mouth_smile"] * (along - 0.4)
    bulge = np.clip(1 - along, 0, 1)
    upper = line - (0.05 * np.clip(p["lip_raise"], -0.2, 1) + 0.05 * np.clip(p["mouth_open"], 0, 1.2)) * bulge
    lower = line + 0.24 * np.clip(p["mouth_open"], 0, 1.2) * bulge
    ends = _cover(np.abs(u) - width)
    lips = _cover(upper - p["lip_thick"] - y) * _cover(y - lower - 1.3 * p["lip_thick"]) * ends
    inside = _cover(upper - y) * _cover(y - lower) * ends
    teeth = inside * _cover(y - upper - 0.05)
    return _paint(_paint(_paint(image, lips, p["skin"] * 0.62), inside, 0.08), teeth, 0.85)


def _cover(distance: Array) -> Array:
    """The share of a pixel covered by a shape whose edge is at this distance, negative inside."""
    return np.clip(0.5 - distance / _PIXEL, 0, 1)


def _paint(image: Array, cover: Array, grey: Array | float) -> Array:
    return image + cover * (grey - image)


def _outside_ellipse(x: Array, y: Array, rx: Array | float, ry: Array | float) -> Array:
    """How far a point lies outside an ellipse around 0, to first order: the radius over its slope."""
    across, down = x / rx, y / ry
    radius = np.sqrt(across**2 + down**2)
    slope = np.sqrt((across / rx) ** 2 + (down / ry) ** 2)
    return (radius - 1) * radius / np.maximum(slope, 1e-6)


def _ellipse(x: Array, y: Array, rx: Array | float, ry: Array | float) -> Array:
    return _cover(_outside_ellipse(x, y, rx, ry))


def _ring(x: Array, y: Array, rx: Array | float, ry: Array | float, width: float) -> Array:
    return _cover(np.abs(_outside_ellipse(x, y, rx, ry)) - width)
