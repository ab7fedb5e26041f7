"""Environment steps per second of `ParallelVectorEnv`, beside its peers of SB3 and Gymnasium and beside a single process.

    python benchmarks/worker_speed.py --out results/worker_speed.json

SB3's `SubprocVecEnv` and Gymnasium's `AsyncVectorEnv` have a process for each environment, `SyncVectorEnv` has none. All run in
turn and get the same actions. A step of the environment counts up to a number, which takes the given time on an idle core.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from measure import calls_per_second, in_turn, ratio_row, write_report
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import SubprocVecEnv

from fw_rl.envs import ParallelVectorEnv

REFERENCE = "SubprocVecEnv"


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    num_envs: int = 16
    """Environments."""
    workers: int = 2
    """Processes of `ParallelVectorEnv`."""
    microseconds: tuple[float, ...] = (0.0, 10.0, 100.0, 1000.0)
    """Microseconds that a step of one environment takes."""
    observation_size: int = 64
    """Numbers in an observation."""
    repeats: int = 9
    """Measurements of each, in turn."""
    seconds: float = 0.5
    """Length of one measurement."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


class Counting(gym.Env):
    """Counts to `count` in every step; an episode has 100 steps."""

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
    print(f"{settings.num_envs} environments, {settings.workers} workers on {os.cpu_count()} cores")
    rows = {}
    for microseconds in settings.microseconds:
        speeds = rows[microseconds] = measure(microseconds, settings)
        title = f"{microseconds:g} us a step"
        print(f"\n{title:20s}{'steps/s':>12}{'ratio':>10}   min to max, beside {REFERENCE}")
        for name, measured in speeds.items():
            print(ratio_row(name, measured, speeds[REFERENCE], width=20), flush=True)
    write_report(settings.out, settings, steps_per_second=rows)


def measure(microseconds: float, settings: Settings) -> dict[str, list[float]]:
    """Measure all in turn, so that a change of the machine's load affects all."""
    make_env = partial(Counting, counts_in(microseconds), settings.observation_size)
    envs: dict[str, Any] = {
        "ParallelVectorEnv": ParallelVectorEnv(partial(together, make_env), settings.num_envs, settings.workers),
        "SubprocVecEnv": SubprocVecEnv([make_env] * settings.num_envs),
        "AsyncVectorEnv": AsyncVectorEnv([make_env] * settings.num_envs, autoreset_mode=AutoresetMode.SAME_STEP),
        "SyncVectorEnv": together(make_env, settings.num_envs),
    }
    actions = np.zeros(settings.num_envs, np.int64)
    try:
        for env in envs.values():
            env.reset()
        return in_turn(
            lambda name: settings.num_envs * calls_per_second(lambda: envs[name].step(actions), settings.seconds),
            list(envs),
            settings.repeats,
        )
    finally:
        for env in envs.values():
            env.close()


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


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
