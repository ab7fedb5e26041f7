"""Speed on a GPU, in at most five minutes: training on Catch with thousands of games, and cells beside cuDNN's LSTM.

    python benchmarks/gpu.py --out results/gpu.json

Catch runs on the device that learns, and A2C has a layer of 128 ReLUs before 128 units. Cells go forward and backward over a
sequence [T, B, H], as in `cell_speed.py`; memory is Torch's peak on the GPU, less what was there before. `--device cpu` runs
the same on the processor, to see that the script works.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from cell_speed import Settings as CellSettings
from cell_speed import make_pass
from measure import Clock, calls_per_second, in_turn, ratio_row, write_report

from fw_rl.agents import RecurrentA2C
from fw_rl.envs import CatchTorchVectorEnv

PEER = "nn.LSTM"


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    device: str = "cuda"
    """cuda, or cpu for a trial."""
    agents: tuple[str, ...] = ("fast-weights", "lru", "delta-net", "lstm")
    """Cells of the agents."""
    num_envs: int = 4096
    """Games."""
    n_steps: int = 15
    """Steps of a rollout; a game takes 15."""
    sizes: tuple[tuple[int, int, int], ...] = CellSettings.sizes
    """Batch, steps and hidden units of the sequences."""
    cells: tuple[str, ...] = ("fast-weights, S = 1", "fast-weights, S = 3", "lru", "min-gru", "delta-net")
    """Cells, by their names in `cell_speed.py`."""
    repeats: int = 5
    """Measurements of each, in turn."""
    seconds: float = 0.2
    """Length of one measurement of a cell; an agent trains ten times as long."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


def frames_per_second(settings: Settings, cell: str) -> float:
    """How fast A2C acts and learns, after a warm-up."""
    envs = CatchTorchVectorEnv(settings.num_envs, device=settings.device)
    policy = dict(cell=cell, hidden_size=128, encoder_arch=[128], net_arch=[], shared_cell=True)
    model = RecurrentA2C("RecurrentPolicy", envs, n_steps=settings.n_steps, policy_kwargs=policy, device=settings.device)
    clock = Clock(10 * settings.seconds, warm_up=5 * settings.seconds)
    model.learn(10**9, callback=clock)
    return clock.frames_per_second


def measure_agents(settings: Settings) -> dict[str, dict[str, Any]]:
    """Frames per second and memory of each agent."""
    print(f"{f'A2C, {settings.num_envs} games of Catch-16-3':34s}{'frames/s':>12}{'MiB':>10}", flush=True)
    results = {}
    for cell in settings.agents:
        frames, memory = with_peak(partial(frames_per_second, settings, cell), settings.device)
        results[cell] = dict(frames_per_second=round(frames), mebibytes=memory)
        print(f"{cell:34s}{frames:12,.0f}{memory:10.1f}", flush=True)
    return results


def measure_cells(settings: Settings, size: tuple[int, int, int]) -> dict[str, dict[str, Any]]:
    """Milliseconds and memory of a pass of each cell."""
    batch, steps, hidden = size
    print(f"\n{f'batch {batch}, {steps} steps, {hidden} units':34s}{'ms':>12}{'ratio':>10}   min to max     MiB", flush=True)
    names = (PEER, *settings.cells)
    passes = {name: make_pass(name, size, settings.device) for name in names}
    memory = {name: with_peak(run, settings.device)[1] for name, run in passes.items()}  # compiles the kernels, too
    times = in_turn(lambda name: 1000 / calls_per_second(passes[name], settings.seconds), names, settings.repeats)
    for name in names:
        print(f"{ratio_row(name, times[name], times[PEER], width=34, number='.2f'):74s}{memory[name]:8.1f}", flush=True)
    return {name: dict(milliseconds=np.round(times[name], 3).tolist(), mebibytes=memory[name]) for name in names}


def with_peak(run: Callable[[], Any], device: str) -> tuple[Any, float]:
    """What a function returns, and its peak memory on the GPU in mebibytes, 0 on the processor."""
    if device == "cpu":
        return run(), 0.0
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = run()
    return result, (torch.cuda.max_memory_allocated() - before) / 2**20


def main(settings: Settings) -> None:
    if settings.device != "cpu" and not torch.cuda.is_available():
        print(f"--device must be cpu on a machine without a GPU that Torch can use, got {settings.device}", file=sys.stderr)
        raise SystemExit(2)
    gpu = torch.cuda.get_device_name() if settings.device != "cpu" else "none"
    print(f"GPU: {gpu}\n")
    agents = measure_agents(settings)
    cells = {" x ".join(map(str, size)): measure_cells(settings, size) for size in settings.sizes}
    write_report(settings.out, settings, gpu=gpu, agents=agents, cells=cells)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
