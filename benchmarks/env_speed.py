"""Environment steps per second of `CatchVectorEnv`, beside EnvPool's Catch and bsuite's, and of POPGym's games beside popgym.

    python benchmarks/env_speed.py --games --out results/env_speed.json
    python benchmarks/env_speed.py --num-envs --seconds 0.1 --out results/popgym_speed.json

The first command measures Catch alone, the second POPGym's games alone.

All run in turn on one core, each with its own autoreset, and get the same random actions. EnvPool's `Catch-v0` and bsuite's
`Catch` are the fully observable game on 10 x 5 pixels, so they have five times fewer pixels to write at n = 16. bsuite has no
vector environment: with more than one it is a Python loop over single ones. popgym has none either: its games are stepped by
Gymnasium's `SyncVectorEnv`, and one game by itself, which is reset when it ends. All are optional: pip install envpool bsuite
popgym.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from measure import calls_per_second, in_turn, ratio_row, write_report

from fw_rl.envs import CatchVectorEnv

OURS, ENVPOOL, BSUITE, POPGYM = "fw-rl", "EnvPool", "bsuite", "popgym"
ALONE = "one game of popgym"
GAMES = [
    env_id.removeprefix("fw_rl/") for env_id, spec in gym.registry.items() if "fw_rl.envs.popgym" in spec.kwargs.get("game", "")
]


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    num_envs: tuple[int, ...] = (1, 64, 1024)
    """Numbers of environments of Catch."""
    n: int = 16
    """Rows and columns of the screen."""
    m: int = 3
    """Visible frames."""
    games: tuple[str, ...] = tuple(GAMES)
    """Games of POPGym."""
    game_envs: int = 256
    """Environments of each of these games."""
    repeats: int = 9
    """Measurements of each environment, in turn."""
    seconds: float = 0.2
    """Length of one measurement."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


def main(settings: Settings) -> None:
    pinned = pin_to_one_core()
    print("Pinned to one core" if pinned else "Not pinned")
    for name in (ENVPOOL, BSUITE, POPGYM):
        if not find_spec(name.lower()):
            print(f"{name} is not installed, so it is left out: pip install {name.lower()}")
    of_catch = {str(num_envs): measure(num_envs, settings) for num_envs in settings.num_envs}
    if settings.games:
        title = f"{settings.game_envs:,} environments"
        print(f"\n{title:36s}{'steps/s':>12}{'ratio':>10}   min to max, beside {POPGYM}; ratio to {ALONE}")
    of_games = {game: measure_game(game, settings) for game in settings.games}
    write_report(settings.out, settings, pinned=pinned, steps_per_second=of_catch | of_games)


def measure(num_envs: int, settings: Settings) -> dict[str, list[float]]:
    """Environment steps per second of each, in turn, with a table."""
    plays = contenders(num_envs, settings)
    speeds = in_turn(
        lambda name: num_envs * 64 * calls_per_second(plays[name], settings.seconds), list(plays), settings.repeats
    )
    peer = ENVPOOL if ENVPOOL in plays else list(plays)[-1]
    title = f"Catch, {num_envs:,} envs"
    print(f"\n{title:20s}{'steps/s':>12}{'ratio':>10}   min to max, beside {peer}")
    for name, measured in speeds.items():
        print(ratio_row(name, measured, speeds[peer], width=20), flush=True)
    return {name: [round(speed) for speed in measured] for name, measured in speeds.items()}


def measure_game(game: str, settings: Settings) -> dict[str, list[float]]:
    """Environment steps per second of a game of POPGym, ours and popgym's, with a line of the table."""
    plays = games(game, settings.game_envs)

    def speed(name: str) -> float:
        num_envs, call = plays[name]
        return num_envs * calls_per_second(call, settings.seconds)

    speeds = in_turn(speed, list(plays), settings.repeats)
    beside_one = f"; {np.median(np.divide(speeds[OURS], speeds[ALONE])):.1f}" if ALONE in plays else ""
    print(ratio_row(game, speeds[OURS], speeds.get(POPGYM, speeds[OURS]), width=36) + beside_one, flush=True)
    return {name: [round(speed) for speed in measured] for name, measured in speeds.items()}


def games(game: str, num_envs: int) -> dict[str, tuple[int, Callable[[], None]]]:
    """Our games of POPGym and the package's, if it is installed: what plays a step, and how many environments it steps."""
    envs = gym.make_vec(f"fw_rl/{game}", num_envs, vectorization_mode="vector_entry_point")
    envs.action_space.seed(0)
    actions = [envs.action_space.sample() for _ in range(64)]
    envs.reset(seed=0)
    plays = {OURS: (num_envs, partial(step_with_next, envs.step, cycle(actions)))}
    if find_spec("popgym"):
        package = import_module("popgym.envs")
        made_by = {info["id"].lower(): made_by for made_by, info in package.ALL.items()}[f"popgym-{game}".lower()]
        sync, one = SyncVectorEnv([made_by] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP), made_by()
        sync.reset(seed=0)
        one.reset(seed=0)
        plays[POPGYM] = (num_envs, partial(step_with_next, sync.step, cycle(actions)))
        plays[ALONE] = (1, partial(step_with_next, partial(step_and_reset, one), cycle([row[0] for row in actions])))
    return plays


def contenders(num_envs: int, settings: Settings) -> dict[str, Callable[[], None]]:
    """For each that is installed, what plays 64 steps of all environments."""
    actions = np.random.default_rng(0).integers(3, size=(64, num_envs))
    ours = CatchVectorEnv(num_envs, settings.n, settings.m)
    ours.reset(seed=0)
    plays = {OURS: partial(play, ours.step, actions)}
    if find_spec("envpool"):
        pool = import_module("envpool").make_gymnasium("Catch-v0", num_envs=num_envs, num_threads=1)
        pool.reset()
        plays[ENVPOOL] = partial(play, pool.step, actions.astype(np.int32))  # the type that EnvPool needs
    if find_spec("bsuite"):
        games = [import_module("bsuite.environments.catch").Catch(seed=seed) for seed in range(num_envs)]
        for game in games:
            game.reset()
        plays[BSUITE] = partial(play, partial(step_each, games), actions.tolist())
    return plays


def play(step: Callable[[Any], Any], actions: Iterable[Any]) -> None:
    for row in actions:
        step(row)


def step_each(games: list[Any], actions: list[int]) -> list[Any]:
    return [game.step(action) for game, action in zip(games, actions, strict=True)]


def step_with_next(step: Callable[[Any], Any], actions: Iterator[Any]) -> None:
    step(next(actions))


def step_and_reset(env: Any, action: Any) -> None:
    _, _, terminated, truncated, _ = env.step(action)
    if terminated or truncated:
        env.reset()


def pin_to_one_core() -> bool:
    """Keep this process and its later threads on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return True


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
