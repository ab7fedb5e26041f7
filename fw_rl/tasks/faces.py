"""Facial expressions in 24 glimpses (Ba16 §4.3), on Multi-PIE if a copy is at hand, else on drawn faces."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import nn

from fw_rl.tasks import drawn_faces
from fw_rl.tasks.base import Data, Row, Split, Task
from fw_rl.tasks.glimpse import GLIMPSE_ROWS, make_glimpse_net
from fw_rl.tasks.glimpse_pictures import draw_faces
from fw_rl.tasks.multi_pie import CAMERAS, EXPRESSION_OF, Faces, describe_multi_pie, load_multi_pie

__all__ = ["Expressions", "make_drawn_faces", "split_by_person"]

TEST_PEOPLE = VALID_PEOPLE = 20
TABLE_3 = {("rnn", 200): 81.11, ("lstm", 200): 81.32, ("convnet", 200): 88.23, ("fast-weights", 200): 86.34}
"""Test accuracy in percent by row and size (Ba16)."""


@dataclass(frozen=True)
class Expressions(Task):
    """Facial expressions in 24 glimpses at two scales (Ba16 §4.3): train nets and make Table 3.

    The images have 48 x 48 pixels, the glimpses 12 x 12, and there are six expressions. Of the 337 people, 20 are for testing
    and another 20 for validation.
    """

    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: drawn faces stand in)")] = (
        None
    )
    """Folder with your copy of CMU Multi-PIE: files such as 001_01_01_051_07.png, cropped to aligned squares."""

    name: ClassVar = "faces"
    title: ClassVar = "Facial expressions in 24 glimpses (Ba16 Table 3)"
    rows: ClassVar = GLIMPSE_ROWS
    paper: ClassVar = TABLE_3
    sizes: ClassVar = (200,)
    accuracy: ClassVar = True

    @property
    def data_name(self) -> str:
        if self.data_dir is None:
            return "drawn faces (the paper's numbers are on CMU Multi-PIE)"
        return f"CMU Multi-PIE, {describe_multi_pie(self.data_dir)}"

    def load(self) -> Data:
        return split_by_person(make_drawn_faces() if self.data_dir is None else load_multi_pie(self.data_dir))

    def make_net(self, row: Row, hidden_size: int) -> nn.Module:
        classes = len(drawn_faces.EXPRESSIONS)
        return make_glimpse_net(row, hidden_size, patch_pixels=144, classes=classes, conv_depth=2)

    def show_faces(self, folder: Path) -> str:
        """Train nothing: only draw some of the faces, by expression."""
        path = folder / "faces.png"
        draw_faces(self.load().train, path)
        return f"Picture: {path}"


def make_drawn_faces(people: int = 337, lights: int = 4, seed: int = 0) -> Faces:
    """Every person in all 11 recordings of Multi-PIE, from its three central cameras, each in `lights` random lights."""
    random = np.random.default_rng(seed)
    looks = drawn_faces.draw_people(people, random)
    scenes = np.array(list(product(EXPRESSION_OF.values(), CAMERAS.values(), range(lights))))
    images = []
    for person in range(people):
        expression, degrees = scenes[:, 0], scenes[:, 1]
        same = {name: values[person : person + 1].repeat(len(scenes)) for name, values in looks.items()}
        picture = drawn_faces.pose_people(same, expression, random)
        light_x = random.uniform(-0.85, 0.85, len(scenes)).astype(np.float32)
        light_y = random.uniform(-0.6, 0.3, len(scenes)).astype(np.float32)
        view = np.radians(degrees).astype(np.float32)
        images.append(drawn_faces.draw(picture, view, light_x, light_y, random))
    numbers = np.arange(1, people + 1).repeat(len(scenes))
    return Faces(np.concatenate(images), numbers, np.tile(scenes[:, 0], people))


def split_by_person(faces: Faces) -> Data:
    """Test and validation sets of 20 people each, whom training never sees; the same people every time."""
    people = np.unique(faces.people)
    held_out = TEST_PEOPLE + VALID_PEOPLE
    if len(people) <= held_out:
        raise ValueError(
            f"people must be more than {held_out}, {TEST_PEOPLE} to test and {VALID_PEOPLE} to validate, got {len(people)}"
        )
    shuffled = np.random.default_rng(0).permutation(people)
    test, valid, train = np.split(shuffled, [TEST_PEOPLE, held_out])

    def of(chosen: NDArray[np.int64]) -> Split:
        rows = np.isin(faces.people, chosen)
        return Split(torch.from_numpy(faces.images[rows]), torch.from_numpy(faces.expressions[rows]))

    return Data(of(train), of(valid), of(test))
