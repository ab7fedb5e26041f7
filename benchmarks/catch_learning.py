"""What `train.py` with its tuned defaults reaches on Catch: the greedy return of every cell and seed.

    python benchmarks/catch_learning.py --out results/catch-16-3/seeds.json

Each run is a process of its own. The table has the mean over seeds with its 95 % interval (Student's t).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from fw_rl.experiments.environments import environment_id
from fw_rl.files import write_json
from fw_rl.intervals import mean_interval

TRAIN = Path(__file__).resolve().parents[1] / "train.py"


@dataclass(frozen=True)
class Settings:
    """What to train."""

    env: str = "Catch-16-3"
    """Environment, as `train.py` takes it."""
    engine: str = "local"
    """local, or ray."""
    algo: str = "a2c"
    """Algorithm: a2c or a3c, on Ray impala or ppo."""
    cells: tuple[str, ...] = ("fast-weights", "lstm", "rnn")
    """Memory cells."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of each cell."""
    jobs: int = 1
    """Runs side by side."""
    log_dir: Path = Path("runs/seeds")
    """Folder for the folders of the runs."""
    out: Path | None = None
    """A JSON file for the results; runs that it has are not repeated."""


def main(settings: Settings) -> None:
    jobs = [(cell, seed) for cell in settings.cells for seed in settings.seeds]
    records = json.loads(settings.out.read_text()) if settings.out is not None and settings.out.exists() else []
    results = {(record["cell"], record["seed"]): record for record in records if is_of(record, settings)}
    missing = [job for job in jobs if job not in results]
    with ThreadPoolExecutor(settings.jobs) as pool:
        for job, record in zip(missing, pool.map(lambda job: train(settings, *job), missing), strict=True):
            results[job] = record
            records.append(record)
            if settings.out:
                write_json(settings.out, records)
    print(f"\n{settings.env:15s}{'frames':>10}{'seconds':>9}{'>= 0.95':>9}{'greedy return':>15}   95 % interval")
    for cell in settings.cells:
        print(row(cell, [results[cell, seed] for seed in settings.seeds]))


def is_of(record: dict[str, Any], settings: Settings) -> bool:
    """Whether a record is of the environment, the engine and the algorithm of the settings."""
    wanted = dict(env=environment_id(settings.env), engine=settings.engine, algo=settings.algo)
    return wanted.items() <= record["settings"].items()


def train(settings: Settings, cell: str, seed: int) -> dict[str, Any]:
    """One run of the command: cell and seed, its evaluation, the settings, and the seconds from start to end."""
    log_dir = settings.log_dir / f"{settings.env}-{settings.algo}-{cell}-{seed}-{os.getpid()}"
    command = [sys.executable, str(TRAIN), "--env", settings.env, "--engine", settings.engine, "--algo", settings.algo]
    command += ["--cell", cell, "--seed", str(seed)]
    begin = time.perf_counter()
    subprocess.run([*command, "--log-dir", str(log_dir), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    (run,) = log_dir.iterdir()
    evaluation = json.loads((run / "eval.json").read_text())
    print(f"{cell}, seed {seed}: {evaluation['mean']:.3f} in {seconds:.0f} s", flush=True)
    made_with = json.loads((run / "config.json").read_text())["settings"]
    return dict(cell=cell, seed=seed) | evaluation | dict(seconds=round(seconds, 1), settings=made_with)


def row(cell: str, results: list[dict[str, Any]]) -> str:
    returns = np.array([result["mean"] for result in results])
    count = len(returns)
    mean, low, high = mean_interval(returns)
    solved = f"{(returns >= 0.95).sum()} of {count}"
    seconds = np.median([result["seconds"] for result in results])
    interval = f"{max(low, -1):.3f} to {min(high, 1):.3f}"  # Catch returns no more than 1
    return f"{cell:15s}{results[0]['timesteps']:10,}{seconds:9.0f}{solved:>9}{mean:15.3f}   {interval}"


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
