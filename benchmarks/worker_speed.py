"""Environment steps per second of `ParallelVectorEnv`, beside its peers of SB3 and Gymnasium and beside a single process.

    python benchmarks/worker_speed.py --out worker_speed.json

SB3's `SubprocVecEnv` and Gymnasium's `AsyncVectorEnv` have a process for each environment, `SyncVectorEnv` has none. All run in
turn and get the same actions. The step of the environment counts, for as long as it would take on a core that nobody else uses.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import SubprocVecEnv

from fw_rl.envs import ParallelVectorEnv

PEERS = ("SubprocVecEnv", "AsyncVectorEnv", "SyncVectorEnv")


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    num_envs: int = 16
    """Environments."""
    workers: int = 2
    """Processes of `ParallelVectorEnv`."""
    microseconds: tuple[float, ...] = (0.0, 10.0, 100.0, 1000.0)
    """What a step of one environment takes."""
    observation_size: int = 64
    """Numbers in an observation."""
    repeats: int = 9
    """Times that each is measured, in turn."""
    seconds: float = 0.5
    """Length of one measurement."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


class Counting(gym.Env):
    """Counts to `count` in every step; an episode has 100."""

    def __init__(self, count: int, observation_size: int) -> None:
        self.count = count
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (observation_size,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[NDArray[Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(self.observation_space.shape or (), np.float32), {}

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        for _ in range(self.count):
            pass
        self.steps += 1
        return np.zeros(self.observation_space.shape or (), np.float32), 1.0, self.steps == 100, False, {}


def main(settings: Settings) -> None:
    print(f"{settings.num_envs} environments, {settings.workers} workers on {os.cpu_count()} cores, environment steps/s:")
    print("median of", settings.repeats, "runs, and how many times as fast ParallelVectorEnv is (min to max)")
    print("us a step    Parallel" + "".join(f"{name:>28}" for name in PEERS))
    rows = {}
    for microseconds in settings.microseconds:
        row = rows[microseconds] = measure(microseconds, settings)
        ours = row["ParallelVectorEnv"]
        text = f"{microseconds:9.0f}{np.median(ours):12,.0f}"
        for name in PEERS:
            ratios = np.divide(ours, row[name])
            text += f"{np.median(row[name]):10,.0f}{np.median(ratios):6.2f} ({ratios.min():.2f}-{ratios.max():.2f})"
        print(text, flush=True)
    if settings.out:
        settings.out.write_text(json.dumps(report(settings, rows), indent=2) + "\n")


def measure(microseconds: float, settings: Settings) -> dict[str, list[float]]:
    """Measure all in turn, so that a change of the machine's load meets all."""
    make_env = partial(Counting, counts_in(microseconds), settings.observation_size)
    envs: dict[str, Any] = {
        "ParallelVectorEnv": ParallelVectorEnv(partial(together, make_env), settings.num_envs, settings.workers),
        "SubprocVecEnv": SubprocVecEnv([make_env] * settings.num_envs),
        "AsyncVectorEnv": AsyncVectorEnv([make_env] * settings.num_envs, autoreset_mode=AutoresetMode.SAME_STEP),
        "SyncVectorEnv": together(make_env, settings.num_envs),
    }
    actions = np.zeros((8, settings.num_envs), np.int64)
    speeds: dict[str, list[float]] = {name: [] for name in envs}
    try:
        for env in envs.values():
            env.reset()
        for _ in range(settings.repeats):
            for name, env in envs.items():
                speeds[name].append(steps_per_second(env.step, actions, settings.seconds))
    finally:
        for env in envs.values():
            env.close()
    return speeds


def together(make_env: Callable[[], gym.Env], num_envs: int) -> VectorEnv:
    return SyncVectorEnv([make_env] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def counts_in(microseconds: float) -> int:
    """How far an environment counts in that time, by the best of many trials."""
    trial = 20_000
    env = Counting(trial, 1)
    seconds = []
    for _ in range(50):
        begin = time.perf_counter()
        env.step(0)
        seconds.append(time.perf_counter() - begin)
    return round(microseconds * 1e-6 / min(seconds) * trial)


def steps_per_second(step: Callable[[NDArray[np.integer]], Any], actions: NDArray[np.integer], seconds: float) -> float:
    """Environment steps per second of `step`, called with the rows of `actions` in turn."""
    steps = 0
    begin = time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        for row in actions:
            step(row)
        steps += actions.size
    return steps / elapsed


def report(settings: Settings, rows: dict[float, dict[str, list[float]]]) -> dict[str, Any]:
    packages = ["numpy", "gymnasium", "stable-baselines3"]
    return {
        "settings": asdict(settings) | {"out": None},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "steps_per_second": rows,
    }


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
