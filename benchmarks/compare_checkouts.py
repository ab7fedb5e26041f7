"""Frames per second of two checkouts on Catch-16-3, in turn: does a change make training slower?

    git worktree add /tmp/before COMMIT
    python benchmarks/compare_checkouts.py --before /tmp/before

Each measurement is a process of its own that imports the package from one of the checkouts; the two alternate. The kernels of
both are compiled beforehand. Each checkout makes its default nets, and the ratio is that of the medians.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import tyro
from measure import Clock, in_turn, write_report

CELLS: dict[str, dict[str, Any]] = {
    "fast-weights": dict(cell="fast-weights", cell_kwargs=dict(eta=0.1, decay=0.1, recurrent_scale=0.3)),
    "lstm": dict(cell="lstm"),
}
CONTENDERS = [(algo, cell) for algo in ("ppo", "a2c", "a3c") for cell in CELLS]


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    before: Path
    """Checkout to compare with."""
    after: Path = Path(__file__).parents[1]
    """Checkout that may be slower."""
    repeats: int = 5
    """Measurements of each."""
    seconds: float = 4.0
    """Length of a measurement, at least."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


def frames_per_second(algo: str, cell: str, seconds: float) -> float:
    """Frames per second of training in this process, after a warm-up."""
    import torch

    from fw_rl.agents import A3C, RecurrentA2C, RecurrentPPO
    from fw_rl.envs import CatchVectorEnv

    torch.set_num_threads(1)
    make = partial(CatchVectorEnv, 64 if cell == "fast-weights" else 32, n=16, m=3)
    common: dict[str, Any] = dict(n_steps=15, optimizer="adam", policy_kwargs=CELLS[cell], seed=0, device="cpu")
    if algo == "a3c":
        model: Any = A3C("RecurrentPolicy", make, n_workers=2, **common)
    elif algo == "ppo":
        equal: dict[str, Any] = dict(batch_size=240, n_epochs=4, target_kl=None, normalize_advantage=True)  # in both checkouts
        model = RecurrentPPO("RecurrentPolicy", make(), **equal, **common)
    else:
        model = RecurrentA2C("RecurrentPolicy", make(), **common)
    clock = Clock(seconds)
    model.learn(10**9, callback=clock, log_interval=10**6)
    return clock.frames_per_second


def measured(settings: Settings, contender: tuple[tuple[str, str], Path]) -> float:
    """Frames per second of one of the checkouts, in a process of its own."""
    (algo, cell), checkout = contender
    environment = os.environ | dict(PYTHONPATH=str(checkout.resolve()))
    command = [sys.executable, __file__, "measure", algo, cell, str(settings.seconds)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()[-1])


def main(settings: Settings) -> None:
    results: dict[str, Any] = {}
    for contender in CONTENDERS:
        pair = [(contender, settings.before), (contender, settings.after)]
        for one in pair:
            measured(Settings(**vars(settings) | dict(seconds=0.5)), one)
        rates = in_turn(partial(measured, settings), pair, settings.repeats)
        before, after = (list(rates[one]) for one in pair)
        name = ", ".join(contender)
        print(
            f"{name:20s}{median(before):12,.0f}{median(after):12,.0f}   ratio {median(after) / median(before):.3f}", flush=True
        )
        results[name] = dict(before=before, after=after, ratio=median(after) / median(before))
    write_report(settings.out, settings, frames_per_second=results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(frames_per_second(sys.argv[2], sys.argv[3], float(sys.argv[4])))
    else:
        main(tyro.cli(Settings, description=__doc__))
