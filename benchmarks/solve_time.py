"""Seconds until Catch-16-3 is solved: a greedy mean return of 0.95 over 1,000 episodes, ours and RecurrentPPO's.

    python benchmarks/solve_time.py --out results/solve_time.json

Every run is a process of its own, one at a time, whose clock runs from before Python starts. While the agent is evaluated, now
and then, the clock stands still, but for A3C, whose workers go on. Our runs go on to the end of their budget, to which the
learning rate is annealed: its time is told too. RecurrentPPO is stopped when it has solved the game, or at ten times our slower
median.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
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

from fw_rl.commands.config import TrainOptions, resolve
from fw_rl.commands.environments import make_vector_env
from fw_rl.commands.train import make_model
from fw_rl.envs.sb3 import VecEnvAdapter

SOLVED = 0.95


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
    """Frames of each of our runs, if not those that are tuned."""
    every: float = 1.0
    """Seconds of training between two evaluations of ours; RecurrentPPO has ten times as many."""
    episodes: int = 1000
    """Episodes of an evaluation."""
    peer_seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of RecurrentPPO."""
    peer_envs: int = 64
    """Environments of RecurrentPPO; the benchmark of training speed says which are fast."""
    peer_batch: int = 1024
    """Batch size of RecurrentPPO."""
    peer_learning_rate: float = 3e-4
    """Learning rate of RecurrentPPO; this one is its default."""
    peer_ent_coef: float = 0.01
    """Weight of the entropy in RecurrentPPO's loss."""
    threads: int = 2
    """Torch threads of RecurrentPPO and A2C."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


class Examiner(BaseCallback):
    """Evaluates at every `every` seconds until the game is solved; with a `limit` in seconds, training ends then or there.

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


def ours(settings: Settings, begin: float, algo: str, seed: int) -> dict[str, Any]:
    """When one of our runs solved the game and when it ended, in seconds, and the greedy return at the end."""
    torch.set_num_threads(settings.threads if algo == "a2c" else 1)
    config = resolve(TrainOptions(cell=settings.cell, algo=algo, seed=seed, timesteps=settings.timesteps))
    examiner = Examiner(begin, settings.episodes, settings.every, stands_still=algo != "a3c")
    return _train(make_model(config), config.timesteps, examiner)


def peer(settings: Settings, begin: float, limit: float, seed: int) -> dict[str, Any]:
    """The same of RecurrentPPO."""
    torch.set_num_threads(settings.threads)
    contender = Contender("RecurrentPPO", settings.peer_envs, settings.threads, batch_size=settings.peer_batch)
    options = dict(learning_rate=settings.peer_learning_rate, ent_coef=settings.peer_ent_coef, seed=seed)
    return _train(contender.make(**options), 10**9, Examiner(begin, settings.episodes, 10 * settings.every, limit))


def _train(model: BaseAlgorithm, timesteps: int, examiner: Examiner) -> dict[str, Any]:
    model.learn(timesteps, callback=examiner, log_interval=None)  # type: ignore[call-arg]
    end = examiner.seconds
    greedy = examiner.evaluate()
    solved_at = None if examiner.solved_at is None else round(examiner.solved_at, 1)
    return dict(solved_at=solved_at, end=round(end, 1), greedy=greedy, timesteps=model.num_timesteps)


def main(settings: Settings) -> None:
    print("seconds until a greedy mean return of 0.95 over 1,000 episodes, start-up included, by seed")
    runs = {
        algo: [in_new_process(ours, settings, time.time(), algo, seed) for seed in settings.seeds] for algo in settings.algos
    }
    for algo in settings.algos:
        show(f"{algo}, {settings.cell}", runs[algo])
    limit = 10 * max(typical(runs[algo]) for algo in settings.algos)
    runs["RecurrentPPO"] = [in_new_process(peer, settings, time.time(), limit, seed) for seed in settings.peer_seeds]
    show(f"RecurrentPPO, stopped at {limit:.0f} s", runs["RecurrentPPO"])
    write_report(settings.out, settings, limit=limit, runs=runs)


def typical(runs: list[dict[str, Any]]) -> float:
    """The median of the seconds to solve; a run that did not counts with its end."""
    return float(np.median([run["end"] if run["solved_at"] is None else run["solved_at"] for run in runs]))


def show(name: str, runs: list[dict[str, Any]]) -> None:
    """A line of the table: the median where most runs solved the game, and all seeds."""
    solved = sorted(math.inf if run["solved_at"] is None else run["solved_at"] for run in runs)
    median = np.median(solved) if math.isfinite(solved[len(runs) // 2]) else math.inf
    each = ", ".join("no" if run["solved_at"] is None else f"{run['solved_at']:.0f}" for run in runs)
    ends = ", ".join(f"{run['end']:.0f} ({run['greedy']:.2f})" for run in runs)
    print(f"{name:32s}median {median:6.1f}   {each}   ends, with greedy return: {ends}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
