"""Forward and backward of our cells over whole sequences beside `torch.nn.LSTM`: time and memory.

    python benchmarks/cell_speed.py --out results/cell_speed.json

Each cell gets the same sequence [T, B, H], whose gradient is computed too. Times are measured in turn in one process; memory is
the largest growth of the resident size during five passes, in a process of its own (Linux).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from measure import calls_per_second, in_new_process, in_turn, ratio_row, write_report
from torch import nn

from fw_rl.cells import BA16, make_cell

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "nn.LSTM": ("", {}),
    "fast-weights, S = 1": ("fast-weights", dict(BA16, inner_steps=1)),
    "fast-weights, S = 3": ("fast-weights", dict(BA16, inner_steps=3)),
    "fast-weights, tanh": ("fast-weights", {}),
    "rnn": ("rnn", {}),
    "gru": ("gru", {}),
    "lstm": ("lstm", {}),
    "lru": ("lru", {}),
    "min-gru": ("min-gru", {}),
    "ffm": ("ffm", {}),
    "delta-net": ("delta-net", {}),
    "lru-delta-net": ("lru-delta-net", {}),
    "shm": ("shm", {}),
}


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    sizes: tuple[tuple[int, int, int], ...] = (
        (128, 11, 50),
        (128, 11, 100),
        (128, 24, 200),
        (64, 16, 128),
        (16, 128, 128),
        (32, 400, 128),
    )
    """Batch, steps and hidden units."""
    device: str = "cpu"
    """cpu, or cuda, where nn.LSTM is cuDNN's."""
    repeats: int = 9
    """Measurements of each cell, in turn."""
    seconds: float = 0.2
    """Length of one measurement, at least one pass."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


def make_pass(name: str, size: tuple[int, int, int], device: str) -> Callable[[], None]:
    """One pass forward and backward of a new cell."""
    batch, steps, hidden = size
    cell_name, options = CELLS[name]
    x = torch.randn(steps, batch, hidden, device=device, requires_grad=True)
    layer = make_cell(cell_name, hidden, hidden, **options).to(device) if cell_name else nn.LSTM(hidden, hidden).to(device)

    def run() -> None:
        y, _ = layer(x, layer.initial_state(batch)) if cell_name else layer(x)
        y.sum().backward()
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def peak_mebibytes(name: str, size: tuple[int, int, int], device: str) -> float:
    """The additional memory that five passes need."""
    torch.set_num_threads(1)
    make_pass(name, (1, 2, 8), device)()  # loads the libraries
    run = make_pass(name, size, device)
    before = _restart_peak(device)
    for _ in range(5):
        run()
    return _peak(device) - before


def _restart_peak(device: str) -> float:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak to the current size
    return _peak(device)


def _peak(device: str) -> float:
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**10


def main(settings: Settings) -> None:
    torch.set_num_threads(1)
    results = {}
    for size in settings.sizes:
        passes = {name: make_pass(name, size, settings.device) for name in CELLS}
        for run in passes.values():
            run()
        measure = partial(_measure, passes, settings.seconds)
        times = in_turn(measure, list(CELLS), settings.repeats)
        memory = {name: in_new_process(peak_mebibytes, name, size, settings.device) for name in CELLS}
        title = f"batch {size[0]}, {size[1]} steps, {size[2]} units"
        print(f"\n{title:34s}{'ms':>12}{'ratio':>10}   min to max     MiB", flush=True)
        for name in CELLS:
            print(f"{ratio_row(name, times[name], times['nn.LSTM'], width=34, number='.2f'):74s}{memory[name]:8.1f}")
        results[title] = {name: dict(milliseconds=np.round(times[name], 3).tolist(), mebibytes=memory[name]) for name in CELLS}
    write_report(settings.out, settings, cells=results)


def _measure(passes: dict[str, Callable[[], None]], seconds: float, name: str) -> float:
    return 1000 / calls_per_second(passes[name], seconds)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
