"""How training speed and memory grow with the game, the rollout, the net and the workers, as a table and a picture.

    python benchmarks/growth.py --out results/growth.json --picture results/growth.png

One setting changes at a time from Catch-16-3, 128 units, 64 environments and rollouts of 15 steps, with fast weights and one
thread. It also measures what share of one thread's matrix-multiply peak training reaches. With `--redraw` nothing is measured,
and the picture is drawn from the JSON file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
import tyro
from matplotlib.figure import Figure
from measure import Clock, calls_per_second, in_new_process, write_report
from operations import counted

from fw_rl.experiments.agents import make_model
from fw_rl.experiments.settings import resolve
from fw_rl.files import write_file
from fw_rl.lines import STYLE, as_png, line_styles

BASE = dict(n=16, n_steps=15, hidden_size=128, workers=1)
NAMES = dict(n="rows of the screen N", n_steps="steps of a rollout", hidden_size="hidden units", workers="workers of A3C")


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
    redraw: bool = False
    """Measure nothing: plot the measurements in `out`."""


class ClockWithMemory(Clock):
    """Also measures the memory at the end, while all processes are running."""

    mebibytes = 0.0

    def _on_step(self) -> bool:
        goes_on = super()._on_step()
        if not goes_on:
            self.mebibytes = peak_mebibytes(os.getpid())
        return goes_on


def peak_mebibytes(process: int) -> float:
    """The memory of a process and all that it started, each at its own peak; shared memory counts once (Linux)."""
    return sum(_peak_mebibytes(Path(f"/proc/{number}")) for number in _family(process))


def _family(process: int) -> Iterator[int]:
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


def _peak_mebibytes(folder: Path) -> float:
    text = (folder / "status").read_text() + (folder / "smaps_rollup").read_text()
    kibibytes = {line.split(":")[0]: line.split()[1] for line in text.splitlines() if line.endswith("kB")}
    peak, now, share = (int(kibibytes[name]) for name in ("VmHWM", "VmRSS", "Pss"))
    return (share + peak - now) / 2**10


def train(settings: Settings, n: int, n_steps: int, hidden_size: int, workers: int, asynchronous: bool) -> dict[str, float]:
    """Frames per second, and the peak memory in MiB of all processes together."""
    torch.set_num_threads(1)
    own = dict(algo="a3c", workers=workers) if asynchronous else {}
    n_envs = settings.n_envs * workers
    config = resolve(env=f"Catch-{n}-3", n_envs=n_envs, n_steps=n_steps, hidden_size=hidden_size, **own)
    clock = ClockWithMemory(settings.seconds)
    make_model(config).learn(10**9, callback=clock, log_interval=None)  # type: ignore[arg-type]
    return dict(frames_per_second=round(clock.frames_per_second), mebibytes=round(clock.mebibytes))


def matmul_peak(size: int = 2048, repeats: int = 8) -> float:
    """Floating-point operations per second of a large matrix product on one thread."""
    torch.set_num_threads(1)
    a = torch.randn(size, size)
    return 2 * size**3 * max(calls_per_second(lambda: a @ a, seconds=0.0) for _ in range(repeats))


def operations_per_frame(n: int, n_steps: int, hidden_size: int) -> float:
    """Those of matrix products and reads of the memory, counted over rollouts until one ends together with an episode."""
    torch.set_num_threads(1)
    n_envs = 4  # each environment computes the same
    model = make_model(resolve(env=f"Catch-{n}-3", n_envs=n_envs, n_steps=n_steps, hidden_size=hidden_size))
    with counted() as operations:
        model.learn(n_envs * math.lcm(n - 1, n_steps), log_interval=None)  # type: ignore[arg-type]
    return operations.total / model.num_timesteps


def main(settings: Settings) -> None:
    if settings.redraw:
        assert settings.out and settings.picture, "--redraw needs --out and --picture"
        write_file(settings.picture, draw(json.loads(settings.out.read_text())["curves"]))
        return
    peak = in_new_process(matmul_peak)
    curves: dict[str, dict[int, dict[str, float]]] = {}
    for name in BASE:
        print(f"\n{NAMES[name]:24s}{'frames/s':>12}{'MiB':>8}{'share of peak':>16}")
        curves[name] = {}
        for value in getattr(settings, name):
            sizes = BASE | {name: value}
            measured = in_new_process(train, settings, *sizes.values(), name == "workers")
            own = {key: sizes[key] for key in ("n", "n_steps", "hidden_size")}
            operations = operations_per_frame(**own)
            measured["operations_per_frame"] = round(operations)
            measured["share_of_peak"] = measured["frames_per_second"] * operations / (peak * sizes["workers"])
            curves[name][value] = measured
            speed, used, _, share = measured.values()
            print(f"{value:<24d}{speed:12,.0f}{used:8,.0f}{share:16.0%}", flush=True)
    print(f"\nmatrix-multiply peak of one thread: {peak / 1e9:.0f} GFLOP/s")
    write_report(settings.out, settings, peak=peak, curves=curves)
    if settings.picture:
        write_file(settings.picture, draw(curves))


def draw(curves: Mapping[str, Mapping[Any, dict[str, float]]]) -> bytes:
    """A column for each setting as a PNG file: frames per second above, memory below, each on one scale everywhere."""
    style = line_styles({"fast-weights": "fast-weights"})["fast-weights"]
    rows = {"thousand frames a second": ("frames_per_second", 1e-3), "memory, MiB": ("mebibytes", 1.0)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 5.6), dpi=150, layout="constrained")
        for panels, (label, (measure, unit)) in zip(figure.subplots(2, len(curves), sharey="row"), rows.items(), strict=True):
            for panel, (name, curve) in zip(panels, curves.items(), strict=True):
                sizes = [int(value) for value in curve]
                panel.plot(sizes, [unit * point[measure] for point in curve.values()], **style)
                panel.set_xscale("log")
                panel.set_xticks(sizes, [str(value) for value in sizes])
                panel.minorticks_off()
                panel.margins(x=0.08)
                panel.set_xlabel(NAMES[name])
            panels[0].set(ylabel=label, ylim=(0, None))
        return as_png(figure)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
