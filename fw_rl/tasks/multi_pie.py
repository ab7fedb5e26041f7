"""The images of a user's copy of CMU Multi-PIE (Gross et al. 2010), which is licensed and comes with no package.

The files have the names of the data set, in any folders, such as its own
``session01/multiview/001/01/05_1/001_01_01_051_07.png``: person, session, recording, camera and light. Each image must be a
square, cropped to the face and aligned by eyes and nose, as in Ba16 §4.3; it is converted to grey and 48 x 48 here.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["CAMERAS", "EXPRESSION_OF", "Faces", "describe_multi_pie", "load_multi_pie"]

CAMERAS = {"051": 0, "050": 15, "140": -15}
"""The three central cameras (05_1, 05_0, 14_0), and how many degrees each stands to the side."""

EXPRESSION_OF = {
    **{(1, 1): 0, (2, 1): 0, (3, 1): 0, (4, 1): 0, (4, 2): 0},
    **{(1, 2): 1, (3, 2): 1, (2, 2): 2, (2, 3): 3, (3, 3): 4, (4, 3): 5},
}
"""The expression (neutral, smile, surprise, squint, disgust, scream) of each session and recording."""

_NAME = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})\.(png|jpg|jpeg|bmp)", re.IGNORECASE)


class Faces(NamedTuple):
    """Images of faces, bytes [N, 48, 48], with the numbers [N] of the people and of their expressions."""

    images: NDArray[np.uint8]
    people: NDArray[np.int64]
    expressions: NDArray[np.int64]


def load_multi_pie(folder: Path, size: int = 48) -> Faces:
    """All images of the three central cameras in a folder and below; ValueError, in one line, if one is not valid."""
    found = _find(folder)
    images = [_read(image.path, size) for image in found]
    return Faces(np.stack(images), np.array([image.person for image in found]), np.array([image.expression for image in found]))


@cache
def describe_multi_pie(folder: Path) -> str:
    """How many images and people a copy has, and a short digest of its files' names and sizes."""
    found = _find(folder)
    files = sorted(f"{image.path.name} {image.path.stat().st_size}" for image in found)
    digest = hashlib.sha256("\n".join(files).encode()).hexdigest()[:8]
    return f"{len(found):,} images of {len({image.person for image in found})} people, copy {digest}"


class _Image(NamedTuple):
    path: Path
    person: int
    expression: int


def _find(folder: Path) -> list[_Image]:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    found = []
    for path in sorted(folder.rglob("*")):
        if match := _NAME.fullmatch(path.name):
            person, session, recording, camera = match.group(1, 2, 3, 4)
            expression = EXPRESSION_OF.get((int(session), int(recording)))
            if camera in CAMERAS and expression is not None:
                found.append(_Image(path, int(person), expression))
    if not found:
        raise ValueError(
            f"{folder} holds no image of Multi-PIE's central cameras: their names are like 001_01_01_051_07.png "
            "(person, session, recording, camera 051, 050 or 140, light)"
        )
    return found


def _read(path: Path, size: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            shape, pixels = image.size, np.asarray(image.convert("L").resize((size, size), Image.Resampling.BOX))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    if shape[0] != shape[1]:
        raise ValueError(
            f"{path} must be a square, cropped to the face and aligned by eyes and nose, got {shape[0]} x {shape[1]}"
        )
    return pixels
