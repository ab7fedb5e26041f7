"""Training frames per second on Catch-16-3: our A2C and A3C beside sb3-contrib's RecurrentPPO and SB3's A2C.

    python benchmarks/training_speed.py --out results/training_speed.json

All act and learn with a layer of 128 ReLUs, 128 recurrent units shared by actor and critic (SB3's A2C, the bound without
memory, has 128 more ReLUs), and linear heads, on the same vector environment. First the best number of environments and batch
size of RecurrentPPO are searched, then its number of threads, as for A2C; then all are measured in turn, each time in a process
of its own and after a warm-up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from measure import Clock, in_new_process, in_turn, ratio_row, write_report
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from fw_rl.envs.sb3 import VecEnvAdapter
from fw_rl.experiments.agents import make_model
from fw_rl.experiments.environments import make_vector_env
from fw_rl.experiments.settings import resolve

ENV = "fw_rl/Catch-16-3-v0"
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    cells: tuple[str, ...] = ("fast-weights", "lstm", "rnn")
    """Our memory cells."""
    n_envs: tuple[int, ...] = (64, 512)
    """Environments of each of our processes that learn."""
    workers: tuple[int, ...] = tuple(sorted({1, CORES}))
    """Numbers of A3C's workers."""
    peer_envs: tuple[int, ...] = (16, 64, 128, 512)
    """Numbers of environments that RecurrentPPO tries."""
    peer_batches: tuple[int, ...] = (256, 1024, 8192, 32768)
    """Batch sizes that RecurrentPPO tries, each where it is 2 to 128 steps of the environments: all of a rollout."""
    threads: tuple[int, ...] = tuple(sorted({1, CORES}))
    """Numbers of Torch threads that RecurrentPPO, SB3's A2C and our A2C try."""
    precision: str = "highest"
    """Precision of matrix products (of ours in learning): highest, or medium, with bfloat16 inside them where available."""
    repeats: int = 3
    """Measurements of each, in turn."""
    seconds: float = 3.0
    """Length of one measurement, at least."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


@dataclass(frozen=True)
class Contender:
    """One algorithm with its settings; `n_envs` are those of each process that learns."""

    algo: str
    n_envs: int
    threads: int = 1
    cell: str = "lstm"
    workers: int = 1
    batch_size: int = 0

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        if self.algo == "RecurrentPPO":
            return f"RecurrentPPO, lstm, {self.n_envs} envs, batch {self.batch_size}, {threads}"
        if self.algo == "SB3 A2C":
            return f"SB3 A2C, no memory, {self.n_envs} envs, {threads}"
        if self.algo == "a2c":
            return f"ours, A2C, {self.cell}, {self.n_envs} envs, {threads}"
        return f"ours, A3C, {self.cell}, {self.workers} worker{'s' if self.workers > 1 else ''} of {self.n_envs} envs"

    def make(self, precision: str = "highest", **peer_options: Any) -> BaseAlgorithm:
        """The agent; `peer_options` are for SB3's and sb3-contrib's."""
        if self.algo in ("a2c", "a3c"):
            n_envs = self.n_envs * self.workers
            own = dict(workers=self.workers) if self.algo == "a3c" else {}
            given = dict(cell=self.cell, algo=self.algo, n_envs=n_envs, matmul_precision=precision)
            return make_model(resolve(env=ENV, **given, **own))
        torch.set_float32_matmul_precision(precision)
        env = VecEnvAdapter(make_vector_env(ENV, self.n_envs), monitor=True)
        options = dict(device="cpu") | peer_options
        encoder = dict(features_extractor_class=Encoder)
        if self.algo == "SB3 A2C":
            return A2C("MlpPolicy", env, n_steps=15, policy_kwargs=encoder | dict(net_arch=[128]), **options)
        memory = dict(lstm_hidden_size=128, shared_lstm=True, enable_critic_lstm=False, net_arch=[])
        return RecurrentPPO("MlpLstmPolicy", env, batch_size=self.batch_size, policy_kwargs=encoder | memory, **options)


class Encoder(BaseFeaturesExtractor):
    """The 128 ReLUs that our policy has before its cell."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 128)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(observation_space.shape)), 128), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        return self.layers(observations)


def frames_per_second(contender: Contender, seconds: float, precision: str) -> float:
    """Frames per second of acting and learning for at least `seconds`, after a warm-up."""
    torch.set_num_threads(contender.threads)
    clock = Clock(seconds)
    contender.make(precision).learn(10**9, callback=clock, log_interval=None)  # type: ignore[call-arg]
    return clock.frames_per_second


def best(group: Sequence[Contender], search: dict[Contender, float], measure: Callable[[Contender], float]) -> Contender:
    """The fastest of a group by one measurement each, which `search` keeps; one alone needs none."""
    for contender in group:
        if len(group) > 1 and contender not in search:
            search[contender] = measure(contender)
            print(f"  {contender!s:58s}{search[contender]:10,.0f} frames/s", flush=True)
    return max(group, key=lambda contender: search.get(contender, 0.0))


def main(settings: Settings) -> None:
    measure = partial(_measure, settings)
    print(f"Catch-16-3, 128 units, {CORES} cores, matrix products in precision {settings.precision}")
    search: dict[Contender, float] = {}
    peers = [
        Contender("RecurrentPPO", n_envs, max(settings.threads), batch_size=batch)
        for n_envs, batch in product(settings.peer_envs, settings.peer_batches)
        if 2 * n_envs <= batch <= 128 * n_envs
    ]
    peer = best(peers, search, measure)
    groups = [[replace(peer, threads=threads) for threads in settings.threads]]
    groups.append([Contender("SB3 A2C", 512, threads) for threads in settings.threads])
    for cell, n_envs in product(settings.cells, settings.n_envs):
        groups.append([Contender("a2c", n_envs, threads, cell) for threads in settings.threads])
        groups += [[Contender("a3c", n_envs, cell=cell, workers=workers)] for workers in settings.workers]
    chosen = [best(group, search, measure) for group in groups]
    speeds = in_turn(measure, chosen, settings.repeats)
    print(f"\n{'median of ' + str(settings.repeats) + ' in turn':58s}{'frames/s':>12}{'ratio':>10}   min to max")
    for contender, measured in speeds.items():
        print(ratio_row(str(contender), measured, speeds[chosen[0]]))
    write_report(
        settings.out,
        settings,
        search={str(contender): round(speed) for contender, speed in search.items()},
        frames_per_second={str(contender): [round(speed) for speed in measured] for contender, measured in speeds.items()},
    )


def _measure(settings: Settings, contender: Contender) -> float:
    return in_new_process(frames_per_second, contender, settings.seconds, settings.precision)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
