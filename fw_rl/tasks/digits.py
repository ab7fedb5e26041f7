"""Handwritten digits in 24 glimpses (Ba16 §4.2), on MNIST."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import tyro
from torch import Generator, Tensor, nn

from fw_rl.tasks.base import Data, Row, Split, Task
from fw_rl.tasks.glimpse import GLIMPSE_ROWS, make_glimpse_net, shift
from fw_rl.tasks.glimpse_pictures import describe_glimpses, draw_glimpses
from fw_rl.tasks.mnist import load_mnist

__all__ = ["Digits"]

VALID_IMAGES = 5000
TABLE_2 = {
    **{("rnn", 50): 12.95, ("rnn", 100): 1.95, ("rnn", 200): 1.42},
    **{("lstm", 50): 12.0, ("lstm", 100): 1.55, ("lstm", 200): 1.10},
    **{("convnet", 50): 1.81, ("convnet", 100): 1.00, ("convnet", 200): 0.9},
    **{("fast-weights", 50): 7.21, ("fast-weights", 100): 1.30, ("fast-weights", 200): 0.85},
}
"""Test error in percent by row and size (Ba16)."""


@dataclass(frozen=True)
class Digits(Task):
    """Handwritten digits in 24 glimpses at two scales (Ba16 §4.2): train nets and make Table 2.

    The images are MNIST's, the glimpses have 7 x 7 pixels. The last 5,000 training images are for validation.
    """

    data_dir: Annotated[
        Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: download once, and check)")
    ] = None
    """Folder with MNIST's four idx files, gzipped or not."""
    most_shift: int = 0
    """Shift every training image by up to this many pixels each time it is shown."""

    name: ClassVar = "glimpse"
    title: ClassVar = "Digits in 24 glimpses (Ba16 Table 2)"
    rows: ClassVar = GLIMPSE_ROWS
    paper: ClassVar = TABLE_2
    sizes: ClassVar = (50, 100, 200)

    def __post_init__(self) -> None:
        if not 0 <= self.most_shift <= 8:
            raise ValueError(f"most_shift must be between 0 and 8 pixels, got {self.most_shift}")

    @property
    def data_name(self) -> str:
        return "MNIST" + (f", training images moved by up to {self.most_shift} pixels" if self.most_shift else "")

    def load(self) -> Data:
        images, labels, test_images, test_labels = map(torch.from_numpy, load_mnist(self.data_dir))
        held_out = len(images) - VALID_IMAGES
        return Data(
            Split(images[:held_out], labels[:held_out].long()),
            Split(images[held_out:], labels[held_out:].long()),
            Split(test_images, test_labels.long()),
        )

    def make_net(self, row: Row, hidden_size: int) -> nn.Module:
        return make_glimpse_net(row, hidden_size, patch_pixels=49, classes=10, conv_depth=3)

    def vary(self, inputs: Tensor, generator: Generator) -> Tensor:
        return shift(inputs, generator, self.most_shift) if self.most_shift else inputs

    def show_glimpses(self, folder: Path) -> str:
        """Train nothing: print the sequence with its signals, and draw it for the first training image."""
        image, path = self.load().train.inputs[0], folder / "glimpses.png"
        draw_glimpses(image, path)
        return f"{describe_glimpses(len(image))}\nPicture: {path}"
