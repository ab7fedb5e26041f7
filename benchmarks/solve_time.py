"""Seconds until Catch-16-3 is solved: a greedy mean return of 0.95 over 1,000 episodes, ours and RecurrentPPO's.

    python benchmarks/solve_time.py --out results/solve_time.json

Every run is a process of its own, one at a time. Its clock runs from the start of training; while the agent is evaluated, now
and then, the clock stands still, but for A3C, whose workers go on. RecurrentPPO is stopped at ten times our slower median.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

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

SOLVED, EPISODES = 0.95, 1000


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of each algorithm."""
    cell: str = "fast-weights"
    """Our memory cell."""
    algos: tuple[str, ...] = ("a2c", "a3c")
    """Our algorithms, with the tuned settings of `train.py`."""
    evaluations: int = 20
    """Evaluations along our whole budget of frames; RecurrentPPO has as many in its time."""
    peer_envs: int = 64
    """Environments of RecurrentPPO; the benchmark of training speed says which are fast."""
    peer_batch: int = 1024
    """Batch size of RecurrentPPO."""
    threads: int = 2
    """Torch threads of RecurrentPPO and A2C."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


class UntilSolved(BaseCallback):
    """Evaluates at every `every` seconds of training, and stops when the game is solved or the time is over."""

    def __init__(self, every: float, limit: float, stands_still: bool) -> None:
        super().__init__()
        self.every, self.limit, self.stands_still = every, limit, stands_still
        self.next, self.paused, self.solved, self.result = every, 0.0, False, -math.inf

    def _on_training_start(self) -> None:
        self.begin = time.perf_counter()
        self.env = VecEnvAdapter(make_vector_env(ENV, 100))
        self.env.seed(1_000_003)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begin - self.paused

    def evaluate(self) -> None:
        """The greedy return now."""
        self.took, begin = self.seconds, time.perf_counter()
        self.result = float(np.mean(evaluate_policy(self.model, self.env, EPISODES, deterministic=True, warn=False)[0]))
        self.solved = self.result >= SOLVED
        self.paused += time.perf_counter() - begin if self.stands_still else 0.0

    def _on_rollout_end(self) -> None:
        if self.seconds >= self.next:
            self.next += self.every
            self.evaluate()

    def _on_step(self) -> bool:
        return not self.solved and self.seconds < self.limit


def ours(settings: Settings, algo: str, seed: int) -> dict[str, float | bool]:
    """Seconds that one of our runs takes, and what it reached then."""
    torch.set_num_threads(settings.threads if algo == "a2c" else 1)
    config = resolve(TrainOptions(cell=settings.cell, algo=algo, seed=seed))
    return _train(make_model(config), config.timesteps, UntilSolved(1.0, math.inf, stands_still=algo != "a3c"))


def peer(settings: Settings, limit: float, seed: int) -> dict[str, float | bool]:
    """The same of RecurrentPPO, with its own defaults and an entropy weight of 0.01."""
    torch.set_num_threads(settings.threads)
    model = Contender("RecurrentPPO", settings.peer_envs, settings.threads, batch_size=settings.peer_batch).make()
    model.ent_coef = 0.01  # type: ignore[attr-defined]
    model.set_random_seed(seed)
    return _train(model, 10**9, UntilSolved(limit / settings.evaluations, limit, stands_still=True))


def _train(model: BaseAlgorithm, timesteps: int, until: UntilSolved) -> dict[str, float | bool]:
    model.learn(timesteps, callback=until, log_interval=None)  # type: ignore[call-arg]
    if not until.solved:
        until.evaluate()
    return dict(seconds=round(until.took, 1), solved=until.solved, greedy=until.result, timesteps=model.num_timesteps)


def main(settings: Settings) -> None:
    print("seconds of training until a greedy mean return of 0.95 over 1,000 episodes, by seed")
    results: dict[str, list[dict[str, float | bool]]] = {}
    for algo in settings.algos:
        results[algo] = [in_new_process(ours, settings, algo, seed) for seed in settings.seeds]
        _show(f"ours, {algo}, {settings.cell}", results[algo])
    limit = 10 * max(_median(runs) for runs in results.values())
    results["RecurrentPPO"] = [in_new_process(peer, settings, limit, seed) for seed in settings.seeds]
    _show(f"RecurrentPPO, stopped at {limit:.0f} s", results["RecurrentPPO"])
    write_report(settings.out, settings=asdict(settings) | {"out": None}, limit=limit, runs=results)


def _median(runs: list[dict[str, float | bool]]) -> float:
    return float(np.median([run["seconds"] if run["solved"] else math.inf for run in runs]))


def _show(name: str, runs: list[dict[str, float | bool]]) -> None:
    times = ", ".join(f"{run['seconds']:.0f}" if run["solved"] else f"not solved ({run['greedy']:.2f})" for run in runs)
    print(f"{name:36s}median {_median(runs):6.1f}   {times}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
