"""Frames per second of PPO and A2C on slow environments in worker processes, with and without `overlap`.

    python benchmarks/overlap_speed.py --out results/overlap_speed.json

CartPole without velocities, each step of which waits (as for a simulator elsewhere) or computes for so long. Both ways run in
turn. What `overlap` can gain is the time of learning or that of collecting, whichever is less.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TransformObservation
from measure import Clock, in_turn, ratio_row, write_report

from fw_rl.agents.algorithms import ALGORITHMS
from fw_rl.envs import ParallelVectorEnv


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    algos: tuple[str, ...] = ("ppo", "a2c")
    """Algorithms, with their defaults."""
    cell: str = "fast-weights"
    """Memory cell."""
    num_envs: int = 8
    """Environments."""
    workers: int = 2
    """Processes that step them."""
    kinds: tuple[Literal["waits", "computes"], ...] = ("waits", "computes")
    """What a step does."""
    milliseconds: tuple[float, ...] = (1.0, 5.0)
    """What a step of one environment takes."""
    repeats: int = 5
    """Times that each is measured, in turn."""
    seconds: float = 8.0
    """Length of one measurement."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


class Slow(gym.Wrapper):
    """Lets a step take longer: by waiting, or by computing for so long on a core."""

    def __init__(self, env: gym.Env, seconds: float, computes: bool) -> None:
        super().__init__(env)
        self.seconds, self.computes = seconds, computes

    def step(self, action: Any) -> Any:
        if self.computes:
            begin = time.process_time()
            while time.process_time() - begin < self.seconds:
                pass
        else:
            time.sleep(self.seconds)
        return self.env.step(action)


def make_env(seconds: float, computes: bool) -> gym.Env:
    """CartPole without velocities."""
    env = gym.make("CartPole-v1")
    low, high = env.observation_space.low, env.observation_space.high  # type: ignore[attr-defined]
    hidden = TransformObservation(env, lambda seen: seen[::2], gym.spaces.Box(low[::2], high[::2], dtype=np.float32))
    return Slow(hidden, seconds, computes)


def make_envs(seconds: float, computes: bool, num_envs: int) -> VectorEnv:
    return SyncVectorEnv([partial(make_env, seconds, computes)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def main(settings: Settings) -> None:
    print(f"{settings.num_envs} environments, {settings.workers} workers on {os.cpu_count()} cores")
    rows = {}
    for algo, kind, milliseconds in product(settings.algos, settings.kinds, settings.milliseconds):
        title = f"{algo}, {kind} {milliseconds:g} ms"
        speeds = rows[title] = measure(algo, partial(make_envs, milliseconds / 1000, kind == "computes"), settings)
        print(f"\n{title:24s}{'frames/s':>12}{'ratio':>10}   min to max")
        for name, measured in speeds.items():
            print(ratio_row(name, measured, speeds["plain"], width=24), flush=True)
    write_report(settings.out, settings, frames_per_second=rows)


def measure(algo: str, make: Callable[[int], VectorEnv], settings: Settings) -> dict[str, list[float]]:
    """Frames per second of an agent either way, which go on learning in turn."""
    envs = [ParallelVectorEnv(make, settings.num_envs, settings.workers) for _ in range(2)]
    arguments: dict[str, Any] = dict(policy_kwargs=dict(cell=settings.cell), anneal=False, seed=0)
    agents = {
        name: ALGORITHMS[algo].agent("RecurrentPolicy", env, overlap=name == "overlap", **arguments)
        for name, env in zip(("plain", "overlap"), envs, strict=True)
    }

    def frames_per_second(name: str) -> float:
        clock = Clock(settings.seconds, warm_up=0.0)
        agents[name].learn(10**9, callback=clock, log_interval=10**9)
        return clock.frames_per_second

    try:
        return in_turn(frames_per_second, list(agents), settings.repeats)
    finally:
        for env in envs:
            env.close()


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
