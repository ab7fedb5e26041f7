"""Training frames per second on Catch-16-3: our A2C beside sb3-contrib's RecurrentPPO.

    python benchmarks/training_speed.py --out training_speed.json

Both act and learn with a layer of 128 ReLUs, 128 recurrent units shared by actor and critic, and linear heads, on the same
vector environment. First RecurrentPPO looks for its best number of environments, batch size and number of threads, and each
of our cells for its best number of threads with its tuned settings; then all of them are measured in turn, each time in a
process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from fw_rl.commands.config import TrainOptions, resolve
from fw_rl.commands.train import make_model, make_vector_env
from fw_rl.envs.sb3 import VecEnvAdapter

ENV = "fw_rl/Catch-16-3-v0"


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    cells: tuple[str, ...] = ("fast-weights", "lstm", "rnn")
    """Our memory cells."""
    n_envs: tuple[int, ...] = ()
    """Also measure our cells with these numbers of environments, beside the tuned one."""
    peer_envs: tuple[int, ...] = (16, 64)
    """Numbers of environments that RecurrentPPO tries."""
    peer_batches: tuple[int, ...] = (128, 256, 512, 1024)
    """Batch sizes that RecurrentPPO tries."""
    threads: tuple[int, ...] = tuple(sorted({1, os.cpu_count() or 1}))
    """Numbers of Torch threads that everybody tries."""
    repeats: int = 5
    """Times that each is measured, in turn."""
    seconds: float = 5.0
    """Length of one measurement, at least."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


@dataclass(frozen=True)
class Contender:
    """One algorithm with its settings; `cell` is None for RecurrentPPO."""

    cell: str | None
    n_envs: int
    threads: int
    batch_size: int = 0

    def __str__(self) -> str:
        name = f"ours, {self.cell}" if self.cell else f"RecurrentPPO, batch {self.batch_size}"
        return f"{name}, {self.n_envs} envs, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def make(self) -> BaseAlgorithm:
        if self.cell:
            return make_model(resolve(TrainOptions(env=ENV, cell=self.cell, n_envs=self.n_envs)))
        policy = dict(
            lstm_hidden_size=128, shared_lstm=True, enable_critic_lstm=False, net_arch=[], features_extractor_class=Encoder
        )
        env = VecEnvAdapter(make_vector_env(ENV, self.n_envs), monitor=True)
        return RecurrentPPO("MlpLstmPolicy", env, batch_size=self.batch_size, policy_kwargs=policy, device="cpu")


class Encoder(BaseFeaturesExtractor):
    """The 128 ReLUs that our policy has before its cell."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 128)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(observation_space.shape)), 128), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        return self.layers(observations)


def frames_per_second(contender: Contender, seconds: float) -> float:
    """Act and learn for at least that long, after a warm-up of one update."""
    torch.set_num_threads(contender.threads)
    model = contender.make()
    chunk = model.n_steps * model.n_envs  # type: ignore[attr-defined]
    model.learn(chunk)
    frames, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        model.learn(chunk if contender.cell is None else 20 * chunk)
        frames += model.num_timesteps
    return frames / elapsed


def main(settings: Settings) -> None:
    measure = _in_new_process
    print(f"Catch-16-3, 128 units, {platform.machine()}, {os.cpu_count()} cores")
    peers = [
        Contender(None, n_envs, threads, batch)
        for n_envs, batch, threads in product(settings.peer_envs, settings.peer_batches, settings.threads)
    ]
    tuned = {cell: resolve(TrainOptions(env=ENV, cell=cell)).n_envs for cell in settings.cells}
    sizes = [(cell, n) for cell in settings.cells for n in dict.fromkeys((tuned[cell], *settings.n_envs))]
    groups = [peers, *([Contender(cell, n, threads) for threads in settings.threads] for cell, n in sizes)]
    search = {contender: measure(contender, settings.seconds) for group in groups for contender in group}
    for contender, speed in search.items():
        print(f"  {contender!s:45s}{speed:10,.0f} frames/s", flush=True)

    best = [max(group, key=lambda contender: search[contender]) for group in groups]
    speeds: dict[Contender, list[float]] = {contender: [] for contender in best}
    for _ in range(settings.repeats):
        for contender in best:
            speeds[contender].append(measure(contender, settings.seconds))
    print(f"\nmedian of {settings.repeats} in turn{'frames/s':>35}{'ratio':>10}   min to max")
    for contender, measured in speeds.items():
        ratios = np.divide(measured, speeds[best[0]])
        spread = f"{ratios.min():.1f} to {ratios.max():.1f}"
        print(f"{contender!s:45s}{np.median(measured):10,.0f}{np.median(ratios):10.1f}   {spread}")
    if settings.out:
        settings.out.write_text(json.dumps(_report(settings, search, speeds), indent=2) + "\n")


def _in_new_process(contender: Contender, seconds: float) -> float:
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(frames_per_second, contender, seconds).result()


def _report(settings: Settings, search: dict[Contender, float], speeds: dict[Contender, list[float]]) -> dict[str, Any]:
    packages = ("torch", "stable-baselines3", "sb3-contrib", "gymnasium", "numpy")
    return {
        "settings": asdict(settings) | {"out": None},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "search": {str(contender): round(speed) for contender, speed in search.items()},
        "frames_per_second": {str(contender): [round(speed) for speed in measured] for contender, measured in speeds.items()},
    }


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
