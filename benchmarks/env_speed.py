"""Environment steps per second of `CatchVectorEnv`, beside EnvPool's Catch.

    python benchmarks/env_speed.py --out env_speed.json

Both run alternately on one core, each with its own autoreset, and get the same random actions.
EnvPool's `Catch-v0` is the fully observable game on 10 x 5 pixels, so it has five times fewer
pixels to write at n = 16. It is optional: pip install envpool.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from fw_rl.envs import CatchVectorEnv

Step = Callable[[NDArray[np.integer]], Any]

try:
    envpool: Any = importlib.import_module("envpool")
except ImportError:
    envpool = None


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    num_envs: tuple[int, ...] = (1, 64, 1024)
    """Batch sizes."""
    n: int = 16
    """Rows and columns of the screen."""
    m: int = 3
    """Frames that are seen."""
    repeats: int = 9
    """Times that each environment is measured, in turn."""
    seconds: float = 0.2
    """Length of one measurement."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


@dataclass
class Row:
    """The measurements of one batch size, in environment steps per second."""

    num_envs: int
    fw_rl: list[float] = field(default_factory=list)
    envpool: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.num_envs:8d}{np.median(self.fw_rl) / 1e6:12.3f}"
        if not self.envpool:
            return text
        ratios = np.divide(self.fw_rl, self.envpool)
        return text + (
            f"{np.median(self.envpool) / 1e6:12.3f}{np.median(ratios):10.1f}   {ratios.min():.1f} to {ratios.max():.1f}"
        )


def main(settings: Settings) -> None:
    pinned = pin_to_one_core()
    print(f"Catch-{settings.n}-{settings.m}, {'pinned to one core' if pinned else 'not pinned'}")
    if envpool is None:
        print("EnvPool is not installed, so only CatchVectorEnv is measured: pip install envpool")
    print("million environment steps/s: median of", settings.repeats, "runs")
    print("num_envs       fw_rl" + ("     envpool     ratio   min to max" if envpool else ""))
    rows = []
    for num_envs in settings.num_envs:
        rows.append(measure(num_envs, settings))
        print(rows[-1], flush=True)
    if settings.out:
        settings.out.write_text(json.dumps(report(settings, pinned, rows), indent=2) + "\n")


def measure(num_envs: int, settings: Settings) -> Row:
    """Measure both environments in turn, so that a change of the machine's load meets both."""
    rng = np.random.default_rng(0)
    actions = rng.integers(3, size=(64, num_envs))
    pool_actions = actions.astype(np.int32)  # the type that EnvPool needs
    envs = CatchVectorEnv(num_envs, settings.n, settings.m)
    envs.reset(seed=0)
    pool = envpool and envpool.make_gymnasium("Catch-v0", num_envs=num_envs, num_threads=1)
    if pool:
        pool.reset()
    row = Row(num_envs)
    for _ in range(settings.repeats):
        row.fw_rl.append(steps_per_second(envs.step, actions, settings.seconds))
        if pool:
            row.envpool.append(steps_per_second(pool.step, pool_actions, settings.seconds))
    return row


def steps_per_second(step: Step, actions: NDArray[np.integer], seconds: float) -> float:
    """Environment steps per second of `step`, called with the rows of `actions` in turn."""
    steps = 0
    begin = time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        for row in actions:
            step(row)
        steps += actions.size
    return steps / elapsed


def pin_to_one_core() -> bool:
    """Keep this process and its later threads on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return True


def report(settings: Settings, pinned: bool, rows: list[Row]) -> dict[str, Any]:
    packages = ["numpy", "gymnasium"] + (["envpool"] if envpool else [])
    return {
        "settings": asdict(settings) | {"out": None},
        "pinned": pinned,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "steps_per_second": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
