"""Seconds until Catch-16-3 is solved: a greedy mean return of 0.95 over 1,000 episodes, ours and RecurrentPPO's.

    python benchmarks/solve_time.py --out results/solve_time.json

Every run is a process of its own, one at a time; its clock starts before Python does. The clock stands still during
evaluations, except for A3C, whose workers continue. Our runs continue to the end of their budget, over which the learning rate
is annealed; that time is reported too. RecurrentPPO has the number of environments and the batch size that the benchmark of
training speed found fast, SB3's learning rate and a higher one, an entropy weight, and otherwise its defaults. It is stopped
when it has solved the game, or at ten times our slower median, in which a run of ours that did not solve it counts with its
end. The record is written after every run, and recorded runs are not repeated.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from measure import in_new_process, write_report
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from training_speed import ENV, Contender

from fw_rl.envs.sb3 import VecEnvAdapter
from fw_rl.experiments.agents import make_model
from fw_rl.experiments.environments import make_vector_env
from fw_rl.experiments.settings import resolve

SOLVED = 0.95
PEER = "RecurrentPPO"


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    algos: tuple[str, ...] = ("a2c", "a3c")
    """Our algorithms, with the tuned settings of `train.py`."""
    cell: str = "fast-weights"
    """Our memory cell."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of ours."""
    timesteps: int | None = None
    """Frames of each of our runs; by default as tuned."""
    every: float = 1.0
    """Seconds of training between two evaluations of ours; RecurrentPPO has ten times as many."""
    episodes: int = 1000
    """Episodes of an evaluation."""
    peer_seeds: tuple[int, ...] = (0, 1)
    """Seeds of RecurrentPPO."""
    peer_envs: int = 64
    """Environments of RecurrentPPO; the benchmark of training speed says which are fast."""
    peer_batch: int = 1024
    """Batch size of RecurrentPPO."""
    peer_learning_rates: tuple[float, ...] = (3e-4, 1e-3)
    """Learning rates of RecurrentPPO, a row each; the first is its default."""
    peer_ent_coef: float = 0.01
    """Weight of the entropy in RecurrentPPO's loss."""
    patience: float = 10.0
    """How many times our slower median RecurrentPPO may take."""
    threads: int = 2
    """Torch threads of RecurrentPPO and A2C."""
    out: Path | None = None
    """A JSON file for the settings, versions and all runs; an existing one is continued."""


@dataclass(frozen=True)
class Job:
    """One run: all that it depends on except the limit."""

    algo: str
    seed: int
    cell: str
    threads: int
    episodes: int
    every: float
    timesteps: int | None = None
    n_envs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    ent_coef: float | None = None

    def __str__(self) -> str:
        return f"{self.algo}, {self.cell}" + (f", learning rate {self.learning_rate:g}" if self.learning_rate else "")


class Examiner(BaseCallback):
    """Evaluates every `every` seconds until the game is solved, and with a `limit` in seconds stops then, or at the limit.

    `begin`: when the clock began, by `time.time`. `stands_still`: whether the clock does during an evaluation.
    """

    def __init__(self, begin: float, episodes: int, every: float, limit: float = math.inf, stands_still: bool = True) -> None:
        super().__init__()
        self.begin, self.episodes, self.every, self.limit, self.stands_still = begin, episodes, every, limit, stands_still
        self.next, self.paused = 0.0, 0.0
        self.solved_at: float | None = None

    @property
    def seconds(self) -> float:
        return time.time() - self.begin - self.paused

    def evaluate(self) -> float:
        """The greedy return now."""
        now, begin = self.seconds, time.time()
        env = VecEnvAdapter(make_vector_env(ENV, min(self.episodes, 100)))
        env.seed(1_000_003)
        greedy = float(np.mean(evaluate_policy(self.model, env, self.episodes, warn=False)[0]))
        if greedy >= SOLVED and self.solved_at is None:
            self.solved_at = now
        self.paused += time.time() - begin if self.stands_still else 0.0
        return greedy

    def _on_training_start(self) -> None:
        self.next = self.seconds + self.every

    def _on_rollout_end(self) -> None:
        if self.solved_at is None and self.seconds >= self.next:
            self.evaluate()
            self.next = self.seconds + self.every

    def _on_step(self) -> bool:
        return math.isinf(self.limit) or (self.solved_at is None and self.seconds < self.limit)


def train(job: Job, begin: float, limit: float) -> dict[str, Any]:
    """When a run solved the game and when it ended, in seconds, and the greedy return at the end; only the peer has a limit."""
    torch.set_num_threads(job.threads)
    if job.algo == PEER:
        contender = Contender(PEER, job.n_envs or 0, job.threads, batch_size=job.batch_size or 0)
        model = contender.make(learning_rate=job.learning_rate, ent_coef=job.ent_coef, seed=job.seed)
        return _train(model, 10**9, Examiner(begin, job.episodes, job.every, limit))
    config = resolve(cell=job.cell, algo=job.algo, seed=job.seed, timesteps=job.timesteps)
    examiner = Examiner(begin, job.episodes, job.every, stands_still=job.algo != "a3c")
    return _train(make_model(config), config.timesteps, examiner)


def _train(model: BaseAlgorithm, timesteps: int, examiner: Examiner) -> dict[str, Any]:
    model.learn(timesteps, callback=examiner, log_interval=None)  # type: ignore[call-arg]
    end = examiner.seconds
    greedy = examiner.evaluate()
    solved_at = None if examiner.solved_at is None else round(examiner.solved_at, 1)
    return dict(solved_at=solved_at, end=round(end, 1), greedy=greedy, timesteps=model.num_timesteps)


def main(settings: Settings) -> None:
    print(f"seconds until a greedy mean return of {SOLVED} over {settings.episodes:,} episodes, start-up included, by seed")
    record = Record(settings)
    limit = settings.patience * max(typical(record.row(our_jobs(settings, algo))) for algo in settings.algos)
    print(f"{PEER} is stopped at {limit:.0f} s")
    for rate in settings.peer_learning_rates:
        record.row(peer_jobs(settings, rate), limit)


def our_jobs(settings: Settings, algo: str) -> list[Job]:
    """A row of the table, one of our algorithms."""
    threads = settings.threads if algo == "a2c" else 1
    job = Job(algo, 0, settings.cell, threads, settings.episodes, settings.every, settings.timesteps)
    return [replace(job, seed=seed) for seed in settings.seeds]


def peer_jobs(settings: Settings, learning_rate: float) -> list[Job]:
    """A row of the table, RecurrentPPO with one learning rate."""
    own = dict(n_envs=settings.peer_envs, batch_size=settings.peer_batch, ent_coef=settings.peer_ent_coef)
    job = Job(PEER, 0, "lstm", settings.threads, settings.episodes, 10 * settings.every, learning_rate=learning_rate, **own)  # type: ignore[arg-type]
    return [replace(job, seed=seed) for seed in settings.peer_seeds]


class Record:
    """The runs so far, in the file that is named in the settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        there = settings.out is not None and settings.out.exists()
        self.runs: list[dict[str, Any]] = json.loads(settings.out.read_text())["runs"] if there else []  # type: ignore[union-attr]

    def row(self, jobs: list[Job], limit: float | None = None) -> list[dict[str, Any]]:
        """The runs of one row, which is printed."""
        runs = [self.result(job, limit) for job in jobs]
        show(str(jobs[0]), runs)
        return runs

    def result(self, job: Job, limit: float | None = None) -> dict[str, Any]:
        """The result of a run, which is made if it is missing, or was stopped before the limit."""
        known = [run for run in self.runs if run["job"] == asdict(job)]
        if known and (limit is None or known[0]["solved_at"] is not None or known[0]["limit"] >= limit):
            return known[0]
        self.runs = [run for run in self.runs if run not in known]
        result = in_new_process(train, job, time.time(), math.inf if limit is None else limit)
        self.runs.append(dict(job=asdict(job), limit=limit) | result)
        write_report(self.settings.out, self.settings, runs=self.runs)
        return self.runs[-1]


def typical(runs: list[dict[str, Any]]) -> float:
    """The median of the seconds to solve; a run that did not counts with its end."""
    return float(np.median([run["end"] if run["solved_at"] is None else run["solved_at"] for run in runs]))


def show(name: str, runs: list[dict[str, Any]]) -> None:
    """A line of the table: the median where most runs solved the game, and all seeds."""
    solved = sorted(math.inf if run["solved_at"] is None else run["solved_at"] for run in runs)
    median = np.median(solved) if math.isfinite(solved[len(runs) // 2]) else math.inf
    each = ", ".join("no" if run["solved_at"] is None else f"{run['solved_at']:.0f}" for run in runs)
    ends = ", ".join(f"{run['end']:.0f} ({run['greedy']:.2f})" for run in runs)
    print(f"{name:40s}median {median:6.1f}   {each}   ends, with greedy return: {ends}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
