"""How training speed and memory grow with the game, the chunk, the net and the workers, as a table and a picture.

    python benchmarks/growth.py --out results/growth.json --picture results/growth.png

One setting changes at a time from Catch-16-3, 128 units, 64 environments and chunks of 15 steps, with fast weights and one
thread. Also: what share of the processor's matrix-multiply peak, of one thread, training reaches.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import tyro
from measure import in_new_process, write_report
from training_speed import Clock

from fw_rl.commands.config import TrainOptions, resolve
from fw_rl.commands.train import make_model

BASE = dict(n=16, n_steps=15, hidden_size=128, workers=1)
NAMES = dict(n="rows of the screen N", n_steps="steps of a chunk", hidden_size="hidden units", workers="workers of A3C")


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    n: tuple[int, ...] = (8, 16, 24, 32, 48, 64)
    """Sizes of the game."""
    n_steps: tuple[int, ...] = (5, 15, 30, 60, 120)
    """Steps between two updates."""
    hidden_size: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Units of the cell."""
    workers: tuple[int, ...] = tuple(range(1, (os.cpu_count() or 1) + 1))
    """Workers of A3C; the other measurements are of A2C."""
    n_envs: int = 64
    """Environments of each process that learns."""
    seconds: float = 2.0
    """Length of one measurement."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""
    picture: Path | None = None
    """A PNG file for the plot."""


def train(settings: Settings, n: int, n_steps: int, hidden_size: int, workers: int, asynchronous: bool) -> dict[str, float]:
    """Frames per second and the largest resident size in MiB of the process (of one worker and the main one with A3C)."""
    torch.set_num_threads(1)
    options = TrainOptions(env=f"Catch-{n}-3", n_envs=settings.n_envs * workers, n_steps=n_steps, hidden_size=hidden_size)
    config = resolve(replace(options, algo="a3c", workers=workers) if asynchronous else options)
    clock = Clock(settings.seconds)
    make_model(config).learn(10**9, callback=clock, log_interval=None)  # type: ignore[arg-type]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return dict(frames_per_second=round(clock.frames_per_second), mebibytes=round(used / 2**10))


def matmul_peak(size: int = 2048, repeats: int = 8) -> float:
    """Floating-point operations a second of a large matrix product on one thread."""
    torch.set_num_threads(1)
    a = torch.randn(size, size)
    fastest = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        a @ a
        fastest = min(fastest, time.perf_counter() - begin)
    return 2 * size**3 / fastest


def operations_per_frame(n: int, n_steps: int, hidden_size: int) -> float:
    """Of the matrix products for a frame: acting, the encoder again, and the way back; heads and reads of the memory too.

    A multiplication and an addition are two operations; a read has on average half of the chunk's writes to look at.
    """
    encoder, cell, heads = n * n * 128, 128 * hidden_size + hidden_size**2, 4 * hidden_size
    reads = 2 * hidden_size * n_steps / 2
    act = encoder + cell + heads + reads
    learn = encoder + 128 * hidden_size + hidden_size**2 + heads + reads
    back = encoder + 2 * cell + 2 * heads + 4 * reads  # nothing goes back to the observation
    return 2 * (act + learn + back)


def main(settings: Settings) -> None:
    peak = in_new_process(matmul_peak)
    curves: dict[str, dict[int, dict[str, float]]] = {}
    for name in BASE:
        print(f"\n{NAMES[name]:24s}{'frames/s':>12}{'MiB':>8}{'share of peak':>16}")
        curves[name] = {}
        for value in getattr(settings, name):
            sizes = BASE | {name: value}
            measured = in_new_process(train, settings, *sizes.values(), name == "workers")
            own = {key: sizes[key] for key in ("n", "n_steps", "hidden_size")}
            measured["share_of_peak"] = measured["frames_per_second"] * operations_per_frame(**own) / (peak * sizes["workers"])
            curves[name][value] = measured
            speed, used, share = measured.values()
            print(f"{value:<24d}{speed:12,.0f}{used:8,.0f}{share:16.0%}", flush=True)
    print(f"\nmatrix-multiply peak of one thread: {peak / 1e9:.0f} GFLOP/s")
    if settings.picture:
        draw(curves, settings.picture)
    write_report(settings.out, settings=asdict(settings) | {"out": None, "picture": None}, peak=peak, curves=curves)


def draw(curves: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """A panel for each setting: frames a second on the left, memory on the right."""
    figure, panels = plt.subplots(1, len(curves), figsize=(13, 3.4), layout="constrained")
    for panel, (name, curve) in zip(panels, curves.items(), strict=True):
        _plot(panel, list(curve), [point["frames_per_second"] / 1000 for point in curve.values()], "tab:blue", "o-")
        right = panel.twinx()
        _plot(right, list(curve), [point["mebibytes"] for point in curve.values()], "tab:gray", "s--")
        panel.set_xlabel(NAMES[name])
        panel.set_xscale("log")
        panel.set_xticks(list(curve), [str(value) for value in curve])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        if panel is panels[0]:
            panel.set_ylabel("thousand frames a second", color="tab:blue")
        if panel is panels[-1]:
            right.set_ylabel("peak memory, MiB", color="tab:gray")
    figure.savefig(path, dpi=150)


def _plot(axes: Any, x: list[int], y: list[float], colour: str, style: str) -> None:
    axes.plot(x, y, style, color=colour, markersize=4)
    axes.set_ylim(0, 1.15 * max(y))
    axes.tick_params(axis="y", colors=colour)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
