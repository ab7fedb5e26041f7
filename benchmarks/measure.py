"""What the benchmarks share: measurements in processes of their own, taken in turn, with ratios and a report."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.metadata import distributions
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from fw_rl.experiments.run_folder import git_commit
from fw_rl.files import write_json

__all__ = ["Clock", "calls_per_second", "in_new_process", "in_turn", "processor", "ratio_row", "write_report"]

_Key = TypeVar("_Key")
_PACKAGES = (
    "fw-rl",
    "torch",
    "triton",
    "stable_baselines3",
    "sb3_contrib",
    "gymnasium",
    "numpy",
    "numba",
    "envpool",
    "bsuite",
    "popgym",
    "jax",
)


class Clock(BaseCallback):
    """Counts frames from rollout to rollout, after a warm-up, and stops the training when it has enough.

    With `time.process_time` as timer the time of other processes does not count, if one thread does all the work.
    """

    def __init__(self, seconds: float, warm_up: float = 1.5, timer: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.seconds, self.warm_up, self.timer = seconds, warm_up, timer
        self.first = self.begin = self.end = (0.0, 0)

    @property
    def frames_per_second(self) -> float:
        return (self.end[1] - self.begin[1]) / (self.end[0] - self.begin[0])

    def _on_rollout_end(self) -> None:
        now = (self.timer(), self.model.num_timesteps)
        self.first = self.first if self.first[1] else now
        if not self.begin[1]:
            self.begin = now if now[0] - self.first[0] >= self.warm_up else self.begin
        else:
            self.end = now

    def _on_step(self) -> bool:
        return self.end[0] - self.begin[0] < self.seconds or not self.end[1]


def calls_per_second(call: Callable[[], Any], seconds: float) -> float:
    """How often a function can be called per second, measured for at least `seconds`."""
    calls, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds or not calls:
        call()
        calls += 1
    return calls / elapsed


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a fresh interpreter, so that no measurement affects the next."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def in_turn(measure: Callable[[_Key], float], contenders: Sequence[_Key], repeats: int) -> dict[_Key, list[float]]:
    """Measure each contender `repeats` times, one after another, so that a change of the machine's load affects all."""
    measured: dict[_Key, list[float]] = {contender: [] for contender in contenders}
    for _ in range(repeats):
        for contender in contenders:
            measured[contender].append(measure(contender))
    return measured


def ratio_row(name: str, measured: Sequence[float], peer: Sequence[float], width: int = 58, number: str = ",.0f") -> str:
    """A line of a table: the median, and the ratio to the peer's measurement of the same turn with its spread."""
    ratios = np.divide(measured, peer)
    spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
    return f"{name:{width}s}{np.median(measured):>12{number}}{np.median(ratios):10.2f}   {spread}"


def write_report(path: Path | None, settings: Any, **content: Any) -> None:
    """Write what was measured, with settings, versions and machine, as JSON; nothing without a path."""
    if path is None:
        return
    installed = {distribution.name: distribution.version for distribution in distributions()}
    versions = {"python": platform.python_version()} | {name: installed[name] for name in _PACKAGES if name in installed}
    machine = dict(machine=platform.machine(), processor=processor(), cores=os.cpu_count(), versions=versions)
    given = {name: value for name, value in asdict(settings).items() if not isinstance(value, Path)}
    write_json(path, machine | dict(git_commit=git_commit(), settings=given) | content)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
