"""Images in 24 glimpses at two scales (Ba16 §4.2): the sequence, and the nets that look at it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from fw_rl.cells import Cell, make_cell
from fw_rl.tasks.base import Row, layers

__all__ = ["GLIMPSES", "GLIMPSE_ROWS", "ConvNet", "Glimpse", "GlimpseNet", "MultiLevelNet", "make_glimpse_net"]


class Glimpse(NamedTuple):
    """One step of the sequence: where the eye rests, and the signals to the memory after it has looked.

    Quadrants are 0 to 3, from the upper left in reading order; `part` is one of a quadrant's own four at full resolution, or
    None for all of it at half the resolution. `store` writes h into the fast weights, then `wipe` sets h to zero; `integrate`
    marks where the coarse level resumes, and receives what the fine level has found through weights of its own.
    """

    quadrant: int
    part: int | None = None
    store: bool = False
    wipe: bool = False
    integrate: bool = False

    @property
    def patch(self) -> int:
        """Its index among the 20 patches of `cut_patches`."""
        return self.quadrant if self.part is None else 4 + 4 * self.quadrant + self.part


def _quadrant(number: int) -> tuple[Glimpse, ...]:
    fine = [Glimpse(number, part, wipe=part == 3) for part in range(4)]
    return (Glimpse(number, store=True, wipe=True), *fine, Glimpse(number, integrate=True))


GLIMPSES: tuple[Glimpse, ...] = tuple(glimpse for number in range(4) for glimpse in _quadrant(number))
"""The 24 glimpses: each quadrant whole, in its four parts, and whole again where the levels are integrated.

The paper states 24 glimpses, but its four coarse and 16 fine regions are 20.
"""


def cut_patches(images: Tensor) -> Tensor:
    """The 20 different patches [20, B, P * P] of images [B, 4 P, 4 P]: four coarse quadrants, then the four parts of each."""
    batch, patch = len(images), images.shape[1] // 4
    coarse = images.view(batch, 2, patch, 2, 2, patch, 2).mean(dim=(3, 6)).permute(1, 3, 0, 2, 4)
    # Axes: quadrant row, part row, pixel row, and the same for columns.
    fine = images.view(batch, 2, 2, patch, 2, 2, patch).permute(1, 4, 2, 5, 0, 3, 6)
    return torch.cat([coarse.reshape(4, batch, -1), fine.reshape(16, batch, -1)])


def standardise(images: Tensor) -> Tensor:
    """Images [B, S, S] of bytes, each scaled to mean 0 and standard deviation 1, whatever the light was."""
    pixels = images.flatten(1).float()
    deviation, mean = torch.std_mean(pixels, dim=1, keepdim=True)
    return ((pixels - mean) / (deviation + 1e-3)).view_as(images)


def look(images: Tensor) -> Tensor:
    """The glimpses [24, B, P * P] of images [B, 4 P, 4 P], in order."""
    return cut_patches(images)[[glimpse.patch for glimpse in GLIMPSES]]


def shift(images: Tensor, generator: Generator, most: int) -> Tensor:
    """Images [B, S, S], each moved by up to `most` pixels up or down and left or right; the gap is black."""
    batch, size = len(images), images.shape[1]
    offsets = torch.randint(2 * most + 1, (2, batch, 1), generator=generator).to(images.device)
    rows, columns = offsets + torch.arange(size, device=images.device)
    padded = F.pad(images, (most,) * 4)
    return padded[torch.arange(batch, device=images.device)[:, None, None], rows.unsqueeze(2), columns.unsqueeze(1)]


class _Embedding(nn.Module):
    """The inputs of the recurrent layer: 50 and then 100 features of each glimpse, plus a learned vector for its place."""

    def __init__(self, patch_pixels: int) -> None:
        super().__init__()
        self.features = layers(patch_pixels, 50, 100)
        self.place = nn.Parameter(torch.zeros(len(GLIMPSES), 1, 100))

    def forward(self, images: Tensor) -> Tensor:
        """[24, B, 100] for images [B, S, S] of bytes."""
        features = self.features(cut_patches(standardise(images)))
        return features[[glimpse.patch for glimpse in GLIMPSES]] + self.place


class GlimpseNet(nn.Module):
    """Logits [B, classes] for images [B, 4 P, 4 P] of bytes: a recurrent layer with 100 inputs, and 100 ReLUs."""

    def __init__(self, cell: Cell, patch_pixels: int, classes: int) -> None:
        super().__init__()
        self.embedding, self.cell = _Embedding(patch_pixels), cell
        self.head = layers(cell.hidden_size, 100, classes, last_relu=False)

    def forward(self, images: Tensor) -> Tensor:
        y, _ = self.cell(self.embedding(images), self.cell.initial_state(len(images)))
        return self.head(y[-1])


class MultiLevelNet(GlimpseNet):
    """The multi-level fast associative memory (Ba16 Figure 3): fast weights hold the coarse level while the fine one is seen.

    The signals of `GLIMPSES` say when h is stored and wiped. The fine level begins with h = 0 and an empty memory, so what it
    finds in a quadrant depends only on that quadrant, and all four are processed at once. An integrating step begins with h = 0
    as well: what was found is an input beside the glimpse, with slow weights of its own, and the fast weights recall what was
    stored. The cell must be gated, and has 100 + H inputs for its H units.
    """

    coarse: Tensor
    fine: Tensor

    def __init__(self, cell: Cell, patch_pixels: int, classes: int) -> None:
        if not cell.gated:
            raise ValueError(f"the cell of a multi-level net must take a write gate and a wipe, got {type(cell).__name__}")
        super().__init__(cell, patch_pixels, classes)
        for name, level in (("coarse", _COARSE), ("fine", _FINE)):
            signals = torch.tensor([[GLIMPSES[t].store, GLIMPSES[t].wipe, GLIMPSES[t].integrate] for t in level])
            self.register_buffer(name, signals, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embedding(images)
        found = self._fine_level(x[_FINE])
        store, wipe, integrate = self.coarse.unsqueeze(1).expand(-1, len(images), -1).unbind(2)
        below = found[[GLIMPSES[t].quadrant for t in _COARSE]] * integrate.unsqueeze(2)
        inputs = torch.cat([x[_COARSE], below], dim=2)
        y, _ = self.cell(inputs, self.cell.initial_state(len(images)), write_gate=store, wipe=wipe)
        return self.head(y[-1])

    def _fine_level(self, x: Tensor) -> Tensor:
        """What is found in the quadrants, [4, B, H], from the features x [16, B, 100] of their parts."""
        batch = 4 * x.shape[1]
        parts = x.unflatten(0, (4, 4)).transpose(0, 1).reshape(4, batch, -1)
        inputs = F.pad(parts, (0, self.cell.hidden_size))  # nothing comes from below the fine level
        signals = self.fine.view(4, 4, 1, 3).transpose(0, 1)  # by part and quadrant
        store, wipe, _ = signals.expand(-1, -1, x.shape[1], -1).reshape(4, batch, 3).unbind(2)
        y, _ = self.cell(inputs, self.cell.initial_state(batch), write_gate=store, wipe=wipe)
        return y[-1].unflatten(0, (4, -1))


_FINE = [t for t, glimpse in enumerate(GLIMPSES) if glimpse.part is not None]
_COARSE = [t for t, glimpse in enumerate(GLIMPSES) if glimpse.part is None]


class ConvNet(nn.Module):
    """A convolutional net over the same patches; strides equal kernel sizes, so each layer is one map for all places.

    Layer 1 maps each patch, layer 2 the features of a quadrant and of its parts, layer 3, at a depth of 3, all quadrants.
    """

    def __init__(self, patch_pixels: int, features: int, classes: int, depth: int) -> None:
        super().__init__()
        self.patch, self.quadrant = layers(patch_pixels, features), layers(5 * features, features)
        self.image = layers(4 * features, features) if depth == 3 else nn.Identity()
        self.head = layers(features if depth == 3 else 4 * features, 100, classes, last_relu=False)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch(cut_patches(standardise(images))).transpose(0, 1)  # [B, 20, features]
        coarse, parts = patches[:, :4], patches[:, 4:].unflatten(1, (4, 4)).flatten(2)
        quadrants = self.quadrant(torch.cat([coarse, parts], dim=2))
        return self.head(self.image(quadrants.flatten(1)))


def make_glimpse_net(row: Row, hidden_size: int, patch_pixels: int, classes: int, conv_depth: int) -> nn.Module:
    """The net of a row of the glimpse tables, with `hidden_size` units, or features per layer for the ConvNet."""
    if row.net == "convnet":
        if row.options:
            raise ValueError(f"the ConvNet has no option {next(iter(row.options))!r}")
        return ConvNet(patch_pixels, hidden_size, classes, conv_depth)
    net, inputs = (MultiLevelNet, 100 + hidden_size) if row.net == "multi-level" else (GlimpseNet, 100)
    return net(make_cell(row.cell, inputs, hidden_size, **row.options_of(hidden_size)), patch_pixels, classes)


# With the retrieval task's eta of 0.5, the recalled vector is 10 to 100 times as long as the boundary, and h hardly sees x.
# Layer normalisation makes |h|^2 about half the number of units: eta = 1 / units gives every size the same strength.
_RATES: dict[str, Any] = dict(options=dict(decay=0.9, recurrent_scale=0.05, activation="relu"))
_RATES |= dict(shared_options=dict(eta=1.0))
GLIMPSE_ROWS = {
    "rnn": Row("IRNN", "rnn"),
    "lstm": Row("LSTM", "lstm"),
    "convnet": Row("ConvNet", "", net="convnet"),
    "fast-weights": Row("Fast weights", "fast-weights", net="multi-level", **_RATES),
    "gru": Row("GRU", "gru"),
    "one-level": Row("Fast weights, one level", "fast-weights", **_RATES),
}
