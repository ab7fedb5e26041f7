"""How agents learn: a training after which nothing is left but its learning curve and its score, and many side by side."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from fw_rl.experiments.agents import evaluate, make_model
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file
from fw_rl.processes import START_METHOD, Send, Workers

__all__ = [
    "CURVE_POINTS",
    "FINALS",
    "SEEDS",
    "TRIALS",
    "Learning",
    "Progress",
    "SideBySide",
    "Trainings",
    "known_learnings",
    "learn",
    "read_learnings",
    "write_learnings",
]

TRIALS, FINALS, SEEDS = "trials.json", "finals.json", "seeds.json"
"""Files of a sweep, by environment and cell: the search, its best settings with new seeds, the best of these with others."""

CURVE_POINTS = 100
"""Parts of equal length into which the frames of a training are divided; each is a point of its curve."""
_COMPILER = ("torch._dynamo",)
"""Torch imports it with the first optimizer of a process, which takes two seconds."""


@dataclass(frozen=True)
class Learning:
    """What one training came to.

    `settings`: all, see `RunSettings`. `parameters`: those that were searched, by name. `returns`: the mean return of the
    training episodes that ended in each part of the frames, None where none did. `greedy`: the mean return of greedy episodes
    at the end. `seconds`: of the training. `diverged`: the net did, and was not trained or evaluated any further. `pruned`: it
    was ended early, and has neither a curve nor a score.
    """

    settings: dict[str, Any]
    parameters: dict[str, Any]
    returns: list[float | None]
    greedy: float | None
    seconds: float | None
    diverged: bool = False
    pruned: bool = False

    @property
    def seed(self) -> int:
        """The seed of the training; that of a trial is its number in the search."""
        return int(self.settings["seed"])

    @property
    def is_ranked(self) -> bool:
        """Whether it can be compared by its area: it has one, and did not diverge."""
        return not self.diverged and math.isfinite(self.area)

    def differs_by_seed(self, other: Learning) -> bool:
        """Whether it is the same training but for its seed."""
        alike = self.settings | dict(seed=other.seed) == other.settings
        return alike and self.parameters == other.parameters

    @property
    def frames(self) -> NDArray[np.float64]:
        """The ends of the parts, in frames."""
        return np.arange(1, len(self.returns) + 1) * (self.settings["timesteps"] / len(self.returns))

    @property
    def curve(self) -> NDArray[np.float64]:
        """The returns; a part in which no episode ended has that of the part before, the first ones that of the first known."""
        returns = np.array(self.returns, dtype=float)
        known = np.isfinite(returns)
        if not known.any():
            return returns
        latest = np.maximum.accumulate(np.where(known, np.arange(len(returns)), known.argmax()))
        return returns[latest]

    @property
    def area(self) -> float:
        """The area under the learning curve over its length: the mean return during the training."""
        return float(self.curve.mean())

    @property
    def final(self) -> float:
        """The mean return in the last tenth of the training."""
        return float(self.curve[-max(len(self.returns) // 10, 1) :].mean())

    def frames_to(self, level: float) -> float:
        """Frames until the curve reaches a level for the first time; infinite if it never does."""
        reached = self.curve >= level
        return float(self.frames[reached.argmax()]) if reached.any() else float("inf")


def read_learnings(path: Path) -> list[Learning]:
    """The trainings that `write_learnings` wrote.

    Raises ValueError for a file of another kind, and OSError for one that can't be read.
    """
    try:
        learnings = [Learning(**record) for record in json.loads(path.read_text())]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold trainings: {error}") from error
    for number, learning in enumerate(learnings, 1):
        if wrong := next((name for name, fits in _FORM.items() if not fits(getattr(learning, name))), None):
            raise ValueError(f"{path} does not hold trainings: the {wrong} of number {number} can't be those of one")
    return learnings


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _are_settings(value: Any) -> bool:
    return isinstance(value, dict) and all(type(value.get(name)) is int for name in ("seed", "timesteps"))


_FORM: dict[str, Callable[[Any], bool]] = dict(
    settings=_are_settings,
    parameters=lambda value: isinstance(value, dict),
    returns=lambda value: isinstance(value, list) and bool(value) and all(part is None or _is_number(part) for part in value),
    greedy=lambda value: value is None or _is_number(value),
    seconds=lambda value: value is None or _is_number(value),
    diverged=lambda value: isinstance(value, bool),
    pruned=lambda value: isinstance(value, bool),
)
"""What each entry of a training must be."""


def known_learnings(path: Path) -> list[Learning]:
    """As `read_learnings`, and none where nothing was written yet."""
    return read_learnings(path) if path.exists() else []


def write_learnings(path: Path, learnings: list[Learning]) -> None:
    """Write trainings as JSON, one a line."""
    lines = ",\n".join(json.dumps(asdict(learning)) for learning in learnings)
    write_file(path, f"[\n{lines}\n]\n".encode())


@dataclass(frozen=True)
class Progress:
    """How far a training is: the points of its curve that are done, and their mean, nan before the first episode's end."""

    points: int
    area: float


def learn(send: Send, config: RunSettings, parameters: dict[str, Any], eval_episodes: int) -> None:
    """The task of a worker: train, with a `Progress` sent at every point of the curve and the `Learning` at the end."""
    begin = time.perf_counter()
    model, curve = make_model(config), _Curve(config.timesteps, send)
    try:
        model.learn(config.timesteps, callback=curve, log_interval=None)  # type: ignore[arg-type]
        diverged = False
    except FloatingPointError:
        diverged = True
    seconds = round(time.perf_counter() - begin, 1)
    greedy = None if diverged else round(float(evaluate(config, model, eval_episodes).mean()), 4)
    model.get_env().close()  # type: ignore[union-attr]
    send(Learning(asdict(config), parameters, curve.returns, greedy, seconds, diverged))


class _Curve(BaseCallback):
    """Adds up the returns of the training episodes that end in each part of the frames."""

    def __init__(self, timesteps: int, send: Send) -> None:
        super().__init__()
        self.timesteps, self.send = timesteps, send
        self.sums, self.counts = np.zeros(CURVE_POINTS), np.zeros(CURVE_POINTS)
        self.points = 0

    @property
    def returns(self) -> list[float | None]:
        return [round(total / count, 4) if count else None for total, count in zip(self.sums, self.counts, strict=True)]

    def _on_step(self) -> bool:
        dones = self.locals["dones"]
        if dones.any():
            part = min((self.num_timesteps - 1) * CURVE_POINTS // self.timesteps, CURVE_POINTS - 1)
            ended = [self.locals["infos"][i]["episode"]["r"] for i in np.flatnonzero(dones)]
            self.sums[part] += sum(ended)
            self.counts[part] += len(ended)
        return True

    def _on_rollout_end(self) -> None:
        points = min(self.num_timesteps * CURVE_POINTS // self.timesteps, CURVE_POINTS)
        if points > self.points:
            self.points = points
            known = self.counts > 0
            self.send(Progress(points, float((self.sums[known] / self.counts[known]).mean()) if known.any() else float("nan")))


class Trainings(ABC):
    """Trainings side by side, at most `jobs`, under keys of the caller's; a context, at whose end all have ended.

    Raises WorkerError from `events` if a training meets an exception, or if its process is lost again and again.
    """

    def __init__(self, jobs: int, eval_episodes: int) -> None:
        self.jobs, self.eval_episodes = jobs, eval_episodes
        self._running: dict[int, Any] = {}

    def __enter__(self) -> Trainings:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for key in self.keys:
            self.stop(key)

    @property
    def keys(self) -> list[int]:
        """Of the trainings that run."""
        return list(self._running)

    @property
    def has_room(self) -> bool:
        """Whether another training can be started."""
        return len(self._running) < self.jobs

    @abstractmethod
    def start(self, key: int, config: RunSettings, parameters: dict[str, Any]) -> None:
        """Begin a training."""

    @abstractmethod
    def stop(self, key: int) -> None:
        """End a training, whose result is lost if it has not been told yet."""

    @abstractmethod
    def events(self, timeout: float = 0.5) -> Iterator[tuple[int, Progress | Learning]]:
        """What the trainings have to tell, by their keys; waits so many seconds at most. What is told as a whole has ended."""


class SideBySide(Trainings):
    """Trainings in processes of their own, a thread each."""

    def __init__(self, jobs: int, eval_episodes: int, start_method: str = START_METHOD) -> None:
        super().__init__(jobs, eval_episodes)
        self.start_method = start_method

    def start(self, key: int, config: RunSettings, parameters: dict[str, Any]) -> None:
        arguments = config, parameters, self.eval_episodes
        self._running[key] = Workers(learn, lambda number, restarts: arguments, 1, self.start_method, preload=_COMPILER)
        self._running[key].start()

    def stop(self, key: int) -> None:
        self._running.pop(key).stop()

    def events(self, timeout: float = 0.5) -> Iterator[tuple[int, Progress | Learning]]:
        for key in self.keys:
            told = self._running[key].next_report(timeout / len(self._running))
            if told is not None:
                _, event = told
                if isinstance(event, Learning):
                    self.stop(key)
                yield key, event
