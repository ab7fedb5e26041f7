"""How agents learn: a training that keeps only its learning curve and its score, and many of them side by side."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from fw_rl.experiments.agents import evaluate, make_model
from fw_rl.experiments.run_folder import RunFolder
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file
from fw_rl.processes import START_METHOD, Send, Workers

__all__ = ["CURVE_POINTS", "Job", "Learning", "Progress", "Trainings", "learn", "read_learnings", "write_learnings"]

_PRELOAD = ("torch._dynamo",)  # which Torch imports with the first optimizer of a process, for two seconds

CURVE_POINTS = 100
"""Parts of equal length into which the frames of a training are divided; each is a point of its curve."""


class Job(NamedTuple):
    """A training to make: all its settings, the searched ones by name, and the folder to keep its agent in."""

    config: RunSettings
    parameters: dict[str, Any]
    folder: Path | None = None


@dataclass(frozen=True)
class Learning:
    """The result of one training; one that diverged or was pruned has no greedy return.

    `returns` are the means over the training episodes that ended in each part of the frames, None where none did. `greedy` is
    the mean return of greedy episodes at the end, `seconds` the length of the training.
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
        """Whether it is the same training except for its seed."""
        return self.settings | dict(seed=other.seed) == other.settings and self.parameters == other.parameters

    def is_of(self, job: Job) -> bool:
        """Whether a job would make this training again."""
        return self.parameters == job.parameters and self.settings == asdict(job.config)

    @property
    def frames(self) -> NDArray[np.float64]:
        """The ends of the parts, in frames."""
        return np.arange(1, len(self.returns) + 1) * (self.settings["timesteps"] / len(self.returns))

    @property
    def curve(self) -> NDArray[np.float64]:
        """The returns; a part in which no episode ended has that of the part before, or at the start the first known one."""
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

    def epochs(self, frames: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The curve in parts of about `frames` frames, counted from its end: their ends, in frames, and their mean returns."""
        size = min(max(round(frames / self.frames[0]), 1), len(self.returns))
        left_over = len(self.returns) % size
        return self.frames[left_over + size - 1 :: size], self.curve[left_over:].reshape(-1, size).mean(axis=1)

    def frames_to(self, level: float) -> float:
        """Frames until a part first has a mean return of at least `level`; infinite if none has."""
        reached = np.array(self.returns, dtype=float) >= level
        return float(self.frames[reached.argmax()]) if reached.any() else float("inf")


def read_learnings(path: Path) -> list[Learning]:
    """The trainings that `write_learnings` wrote, none if there is no file yet; ValueError for another kind of file."""
    if not path.exists():
        return []
    try:
        learnings = [Learning(**record) for record in json.loads(path.read_text())]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} must hold trainings, got a file of another kind: {error}") from error
    for number, learning in enumerate(learnings, 1):
        if wrong := next((name for name, fits in _FORM.items() if not fits(getattr(learning, name))), None):
            raise ValueError(f"{path} must hold trainings, got {wrong} {getattr(learning, wrong)!r} of number {number}")
    return learnings


_NUMBER: Any = int | float | None
_FORM: dict[str, Callable[[Any], bool]] = dict(
    settings=lambda value: isinstance(value, dict) and all(type(value.get(name)) is int for name in ("seed", "timesteps")),
    parameters=lambda value: isinstance(value, dict),
    returns=lambda value: isinstance(value, list) and bool(value) and all(isinstance(part, _NUMBER) for part in value),
    greedy=lambda value: isinstance(value, _NUMBER),
    seconds=lambda value: isinstance(value, _NUMBER),
    diverged=lambda value: isinstance(value, bool),
    pruned=lambda value: isinstance(value, bool),
)
"""What each entry of a training must be."""


def write_learnings(path: Path, learnings: list[Learning]) -> None:
    """Write trainings as JSON, one per line."""
    lines = ",\n".join(json.dumps(asdict(learning)) for learning in learnings)
    write_file(path, f"[\n{lines}\n]\n".encode())


@dataclass(frozen=True)
class Progress:
    """Progress of a training: the finished points of its curve, and their mean, nan before the first episode's end."""

    points: int
    area: float


def learn(send: Send, job: Job, eval_episodes: int) -> None:
    """The task of a worker: train, with a `Progress` sent at every point of the curve and the `Learning` at the end.

    The agent is kept if the job names a folder, in the form of a run of `train`.
    """
    config, parameters, folder = job
    begin = time.perf_counter()
    model, curve = make_model(config), _Curve(config.timesteps, send)
    try:
        model.learn(config.timesteps, callback=curve, log_interval=None)  # type: ignore[arg-type]
        end = time.perf_counter()
        greedy = round(float(evaluate(config, model, eval_episodes).mean()), 4)
    except FloatingPointError:
        end, greedy = time.perf_counter(), None
    model.get_env().close()  # type: ignore[union-attr]
    if folder is not None and greedy is not None:
        run = RunFolder(folder)
        run.keep(config)
        model.save(run.checkpoint(model.num_timesteps))
    send(Learning(asdict(config), parameters, curve.returns, greedy, round(end - begin, 1), diverged=greedy is None))


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
            infos = [self.locals["infos"][i] for i in np.flatnonzero(dones)]
            ended = [info["episode"]["r"] for info in infos if "episode" in info]  # a lost life in an Atari game has none
            self.sums[part] += sum(ended)
            self.counts[part] += len(ended)
        return True

    def _on_rollout_end(self) -> None:
        points = min(self.num_timesteps * CURVE_POINTS // self.timesteps, CURVE_POINTS)
        if points > self.points:
            self.points = points
            known = self.counts > 0
            self.send(Progress(points, float((self.sums[known] / self.counts[known]).mean()) if known.any() else float("nan")))


class Trainings:
    """Trainings side by side, each in a process with one thread; a context, at whose end all have ended."""

    def __init__(self, jobs: int, eval_episodes: int) -> None:
        self.jobs, self.eval_episodes = jobs, eval_episodes
        self._running: dict[int, Any] = {}

    def __enter__(self) -> Trainings:
        return self

    def __exit__(self, *error: object) -> None:
        for key in self.keys:
            self.stop(key)

    @property
    def keys(self) -> list[int]:
        """The keys of the running trainings."""
        return list(self._running)

    @property
    def has_room(self) -> bool:
        """Whether another training can be started."""
        return len(self._running) < self.jobs

    def start(self, key: int, job: Job) -> None:
        """Begin a training, known here by the key."""
        self._running[key] = Workers(
            learn, lambda number, restarts: (job, self.eval_episodes), 1, START_METHOD, preload=_PRELOAD
        )
        self._running[key].start()

    def stop(self, key: int) -> None:
        """End a training, whose result is lost if it has not been reported yet."""
        self._running.pop(key).stop()

    def events(self, timeout: float = 0.5) -> Iterator[tuple[int, Progress | Learning]]:
        """What the trainings report within `timeout` seconds, by their keys; one that reports a `Learning` has ended.

        WorkerError if a training raises an exception, or its process is lost repeatedly.
        """
        if not self._running:
            time.sleep(timeout)
        for key in self.keys:
            told = self._running[key].next_report(timeout / len(self._running))
            if told is not None:
                _, event = told
                if isinstance(event, Learning):
                    self.stop(key)
                yield key, event
