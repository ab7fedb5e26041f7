"""Training frames per second on Catch-16-3: ours beside a recurrent A2C and PPO in JAX, which are one compiled function.

    python benchmarks/jax_speed.py --out results/jax_speed.json

The same net, cell and rollouts of an episode in both, see `benchmarks/jax_agent.py`; PPO learns four times from a rollout, in
minibatches of 16 games. Each side has its best number of environments, found by one measurement each. Then all are measured in
turn, each time in a process of its own and after a warm-up, JAX with all cores, ours with one thread per process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax_agent
import torch
import tyro
from measure import Clock, in_new_process, in_turn, ratio_row, write_report
from training_speed import CORES, ENV, best

from fw_rl.experiments.agents import make_model
from fw_rl.experiments.settings import resolve

EPISODE = 15


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    cells: tuple[str, ...] = ("fast-weights", "lstm")
    """Memory cells that both have: fast-weights, lstm or gru."""
    n_envs: tuple[int, ...] = (64, 256, 512, 1024)
    """Numbers of environments that each side tries with A2C and A3C; PPO has 64."""
    repeats: int = 5
    """Measurements of each, in turn."""
    seconds: float = 4.0
    """Length of one measurement, at least."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


@dataclass(frozen=True)
class Contender:
    """One side's algorithm; `n_envs` are those of all its processes."""

    side: str
    algo: str
    cell: str
    n_envs: int = 64

    def __str__(self) -> str:
        workers = f", {CORES} workers" if self.algo == "a3c" else ""
        return f"{self.side}, {self.algo.upper()}, {self.cell}, {self.n_envs} envs{workers}"


def frames_per_second(contender: Contender, seconds: float) -> float:
    """Frames per second of acting and learning for at least `seconds`, after a warm-up."""
    if contender.side == "JAX":
        return _of_jax(contender, seconds)
    torch.set_num_threads(1)  # which `make_model` uses too
    own = dict(a2c={}, a3c=dict(workers=CORES), ppo=dict(n_steps=EPISODE, n_epochs=4, batch_size=16 * EPISODE, gae_lambda=1.0))
    config = resolve(env=ENV, cell=contender.cell, algo=contender.algo, n_envs=contender.n_envs, **own[contender.algo])
    clock = Clock(seconds)
    make_model(config).learn(10**9, callback=clock, log_interval=None)  # type: ignore[call-arg]
    return clock.frames_per_second


def _of_jax(contender: Contender, seconds: float, warm_up: float = 1.5) -> float:
    given = jax_agent.Settings(algo=contender.algo, cell=contender.cell, n_envs=contender.n_envs, frames=10**9)  # type: ignore[arg-type]
    begin = None
    for now in jax_agent.train(given, together=5):
        if begin is None:
            begin = now if now.seconds >= warm_up else None
        elif now.seconds - begin.seconds >= seconds:
            break
    assert begin is not None
    return (now.frames - begin.frames) / (now.seconds - begin.seconds)


def groups(settings: Settings) -> Iterator[list[Contender]]:
    """What is compared, JAX first; each group is one contender with different numbers of environments."""
    for cell in settings.cells:
        for side, algo in (("JAX", "a2c"), ("ours", "a2c"), ("ours", "a3c")):
            first = Contender(side, algo, cell)
            yield [replace(first, n_envs=n_envs * (CORES if algo == "a3c" else 1)) for n_envs in settings.n_envs]
        for side in ("JAX", "ours"):
            yield [Contender(side, "ppo", cell)]


def main(settings: Settings) -> None:
    measure = partial(_measure, settings)
    search: dict[Contender, float] = {}
    chosen = [best(group, search, measure) for group in groups(settings)]  # type: ignore[arg-type]
    speeds = in_turn(measure, chosen, settings.repeats)
    print(f"\n{'median of ' + str(settings.repeats) + ' in turn':58s}{'frames/s':>12}{'to JAX':>10}   min to max")
    for contender, measured in speeds.items():
        peer = next(one for one in speeds if one.side == "JAX" and one.cell == contender.cell and _alike(one, contender))
        print(ratio_row(str(contender), measured, speeds[peer]))
    write_report(
        settings.out,
        settings,
        search={str(contender): round(speed) for contender, speed in search.items()},
        frames_per_second={str(contender): [round(speed) for speed in measured] for contender, measured in speeds.items()},
    )


def _alike(one: Contender, other: Contender) -> bool:
    return (one.algo == "ppo") == (other.algo == "ppo")


def _measure(settings: Settings, contender: Contender) -> float:
    return in_new_process(frames_per_second, contender, settings.seconds)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
