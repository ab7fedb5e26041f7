"""What the glimpse nets see: the sequence with its signals, as text and as a picture, and some of the faces."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from fw_rl.tasks.base import Split
from fw_rl.tasks.drawn_faces import EXPRESSIONS
from fw_rl.tasks.glimpse import GLIMPSES, Glimpse, look

__all__ = ["describe_glimpses", "draw_faces", "draw_glimpses"]


def describe_glimpses(size: int) -> str:
    """The steps on images of size x size, one per line: scale, rows, columns, and the signals to the memory."""
    lines = [f"{'step':>4}  {'scale':6}  {'rows':8}  {'columns':8}  signals"]
    for step, glimpse in enumerate(GLIMPSES, 1):
        top, left, side = _place(glimpse, size)
        rows, columns = (f"{begin}-{begin + side - 1}" for begin in (top, left))
        lines.append(f"{step:4}  {_scale(glimpse):6}  {rows:8}  {columns:8}  {_signals(glimpse)}".rstrip())
    return "\n".join(lines)


def draw_glimpses(image: Tensor, path: Path) -> None:
    """A row for each quadrant of an image [S, S] of bytes: where it is, and what is seen of it, in order."""
    patches = look(image.unsqueeze(0) / 255).squeeze(1)
    side = round(patches.shape[1] ** 0.5)
    figure = Figure(figsize=(11, 7.4), dpi=120, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)  # type: ignore[union-attr, call-arg]
    panels = figure.subplots(4, 7)
    for quadrant, row in enumerate(panels):
        steps = [step for step, glimpse in enumerate(GLIMPSES) if glimpse.quadrant == quadrant]
        for panel, picture in zip(row, [image / 255, *(patches[step].view(side, side) for step in steps)], strict=True):
            panel.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
        top, left, extent = _place(Glimpse(quadrant), len(image))
        row[0].add_patch(Rectangle((left - 0.5, top - 0.5), extent, extent, fill=False, edgecolor="#f59e0b", linewidth=2))
        row[0].set_ylabel(f"quadrant {quadrant + 1}", fontsize=10)
        for panel, step in zip(row[1:], steps, strict=True):
            glimpse = GLIMPSES[step]
            panel.set_title(f"{step + 1}: {_scale(glimpse)}", fontsize=10)
            panel.set_xlabel(_signals(glimpse), fontsize=10, color="#b45309")
            for spine in panel.spines.values():
                spine.set(edgecolor="#2563eb" if glimpse.part is None else "#9ca3af", linewidth=2)
    figure.savefig(path)


def draw_faces(faces: Split, path: Path, columns: int = 12) -> None:
    """`columns` faces of each expression, spread over the examples."""
    figure = Figure(figsize=(columns, 6.2), dpi=100, layout="constrained")
    for number, row in enumerate(figure.subplots(len(EXPRESSIONS), columns)):
        images = faces.inputs[faces.labels == number]
        row[0].set_ylabel(EXPRESSIONS[number], fontsize=11)
        for panel, place in zip(row, range(0, len(images), max(len(images) // columns, 1)), strict=False):
            panel.imshow(images[place].numpy(), cmap="gray", vmin=0, vmax=255)
        for panel in row:
            panel.set(xticks=[], yticks=[])
    figure.savefig(path)


def _place(glimpse: Glimpse, size: int) -> tuple[int, int, int]:
    """First row, first column and side of what a glimpse sees of an image."""
    half, quarter = size // 2, size // 4
    top, left = (half * number for number in divmod(glimpse.quadrant, 2))
    if glimpse.part is None:
        return top, left, half
    part_row, part_column = divmod(glimpse.part, 2)
    return top + quarter * part_row, left + quarter * part_column, quarter


def _scale(glimpse: Glimpse) -> str:
    return "coarse" if glimpse.part is None else "fine"


def _signals(glimpse: Glimpse) -> str:
    return ", ".join(name for name in ("store", "wipe", "integrate") if getattr(glimpse, name))
