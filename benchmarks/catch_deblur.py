"""HP87's question put to an agent: does what it once knew of Catch come back when a few episodes are rehearsed?

    python benchmarks/catch_deblur.py --out results/catch_deblur

An agent learns Catch-16-3. Its actions in all 240 games, one for each start of ball and paddle, are its old associations. They
are blurred by another game, in which the screen is turned on its side, and right and left are exchanged. Then a tenth of the
old games is rehearsed, and the return in the others is measured. With a slow and a fast weight on every connection, the fast
ones fade after every change (HP87 §3). The controls have no fast weights, and learn at several rates, from that of the slow
weights to the sum of both. One more has fast weights, and waits: it lets them fade for as long, and rehearses nothing.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from tabulate import tabulate
from torch import Tensor
from torch.nn.utils import parametrize

from fw_rl.agents import RecurrentActorCriticPolicy
from fw_rl.commands.command_line import fail
from fw_rl.envs import CatchVectorEnv
from fw_rl.experiments.agents import make_model
from fw_rl.experiments.checks import check_count
from fw_rl.experiments.curves import STYLE, as_png
from fw_rl.experiments.settings import resolve
from fw_rl.fast_slow import FastSlowSGD, fast_slow
from fw_rl.files import write_file, write_json
from fw_rl.intervals import mean_interval

N, STEPS = 16, 15
ENV = "Catch-16-3"
SWAPPED = torch.tensor([0, 2, 1])
"""Actions of the other game: right and left are exchanged."""


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    cell: str = "fast-weights"
    """Memory of the agent, with the tuned settings of `train.py`."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the agents."""
    timesteps: int | None = None
    """Frames of their training; by default as tuned."""
    rehearsed: int = 24
    """Old games that are rehearsed, of 240."""
    blurred: float = 0.0
    """Mean return in the old games at which blurring ends; chance is -0.75."""
    most_blurring: int = 3000
    """Most changes of the weights while blurring."""
    rehearsal: int = 200
    """Changes of the weights while rehearsing."""
    slow_lr: float = 0.002
    """Step size of the slow weights."""
    fast_lr: float = 0.05
    """Step size of the fast weights."""
    control_lrs: tuple[float, ...] = (0.002, 0.005, 0.02, 0.052)
    """Step sizes of the agents without fast weights."""
    decay: float = 0.99
    """What remains of the fast weights after a change."""
    out: Path = Path("results/catch_deblur")
    """Folder for record, table and picture."""


class Condition(NamedTuple):
    """A way to learn: with fast weights or without, at a rate of the slow ones, and whether it rehearses or waits."""

    fast: bool
    slow_lr: float
    rehearses: bool = True


class Games(NamedTuple):
    """The screens [T, B, N * N] of some games and the actions [T, B] to be taken in them."""

    screens: Tensor
    actions: Tensor

    def some(self, which: Tensor) -> Games:
        return Games(self.screens[:, which], self.actions[:, which])


def main(settings: Settings) -> int:
    """Measure, and write table and picture; returns the exit code: 0 done, 2 bad input."""
    try:
        for name in ("rehearsed", "rehearsal", "most_blurring"):
            check_count(name, getattr(settings, name))
        resolve(env=ENV, cell=settings.cell)
    except ValueError as error:
        return fail("catch_deblur.py", error)
    conditions = {
        "slow and fast weights": Condition(True, settings.slow_lr),
        "slow and fast weights, waiting": Condition(True, settings.slow_lr, rehearses=False),
        **{f"slow weights, rate {lr:g}": Condition(False, lr) for lr in settings.control_lrs},
    }
    curves: dict[str, list[list[float]]] = {name: [] for name in conditions}
    blurring: dict[str, list[int]] = {name: [] for name in conditions}
    for seed in settings.seeds:
        policy = trained(settings, seed)
        for name, condition in conditions.items():
            changes, curve = deblur(copy.deepcopy(policy), condition, settings, seed)
            curves[name].append(curve)
            blurring[name].append(changes)
            print(f"seed {seed}, {name}: {changes} changes, {curve[0]:.2f}, {curve[-1]:.2f}", flush=True)
    rounded = {name: np.round(returns, 4).tolist() for name, returns in curves.items()}
    write_json(settings.out / "catch_deblur.json", dict(blurring=blurring, returns=rounded))
    text = table(curves, blurring)
    write_file(settings.out / "catch_deblur.md", f"{text}\n".encode())
    write_file(settings.out / "catch_deblur.png", draw(curves))
    print(text)
    return 0


def trained(settings: Settings, seed: int) -> RecurrentActorCriticPolicy:
    """The policy of an agent that knows Catch."""
    given: dict[str, Any] = {} if settings.timesteps is None else dict(timesteps=settings.timesteps)
    config = resolve(env=ENV, cell=settings.cell, algo="a2c", seed=seed, **given)
    model = make_model(config)
    model.learn(config.timesteps, log_interval=None)  # type: ignore[call-arg]
    return model.policy


@torch.no_grad()
def play(policy: RecurrentActorCriticPolicy) -> tuple[Games, Tensor]:
    """What the agent sees and does in all games, greedily, and their returns [B]."""
    ball, paddle = np.divmod(np.arange(N * (N - 1)), N - 1)
    env = CatchVectorEnv(len(ball), n=N, m=3)
    observation, _ = env.reset(options=dict(ball=ball, paddle=paddle))
    state, start, seen, done = None, np.ones(env.num_envs, dtype=bool), [], []
    for _ in range(STEPS):
        actions, state = policy.predict(observation, state, start, deterministic=True)
        seen.append(torch.as_tensor(observation, dtype=torch.float32))
        done.append(torch.as_tensor(actions))
        observation, reward, *_ = env.step(actions)
        start = np.zeros(env.num_envs, dtype=bool)
    return Games(torch.stack(seen), torch.stack(done)), torch.as_tensor(reward)


def other_game(games: Games) -> Games:
    """The games with their screens on their sides, in which right is left."""
    return Games(games.screens.unflatten(-1, (N, N)).transpose(-1, -2).flatten(-2), SWAPPED[games.actions])


def make_change(policy: RecurrentActorCriticPolicy, condition: Condition, settings: Settings) -> Callable[[Games | None], None]:
    """A function that changes the weights towards the actions in some games, or, for None, only lets time pass."""
    if condition.fast:
        fast_slow(policy)
        fast_lr, decay = settings.fast_lr, settings.decay
    else:
        fast_lr, decay = 0.0, 1.0
    most = 0.5 * math.sqrt(2 if condition.fast else 1)  # with fast weights each gradient occurs twice
    optimizer = FastSlowSGD(policy.named_parameters(), condition.slow_lr, 0.9, fast_lr, 0.5, decay)

    def change(games: Games | None) -> None:
        optimizer.zero_grad()
        if games is not None:
            count = games.actions.shape[1]
            starts = torch.zeros(STEPS, count, dtype=torch.bool)
            with parametrize.cached():
                state = policy.initial_state(count)
                _, log_prob, _ = policy.evaluate_actions(games.screens, games.actions, state, starts)
                (-log_prob.mean()).backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), most)
        optimizer.step()

    return change


def deblur(policy: RecurrentActorCriticPolicy, condition: Condition, settings: Settings, seed: int) -> tuple[int, list[float]]:
    """How many changes blurred, and the mean return in the old games that are not rehearsed after each change since then."""
    old, _ = play(policy)
    new = other_game(old)
    change = make_change(policy, condition, settings)
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(old.actions.shape[1], generator=rng)
    rehearsed, rest = order[: settings.rehearsed], order[settings.rehearsed :]
    changes = 0
    while play(policy)[1].mean() > settings.blurred and changes < settings.most_blurring:
        change(new)
        changes += 1
    curve = [float(play(policy)[1][rest].mean())]
    for _ in range(settings.rehearsal):
        change(old.some(rehearsed) if condition.rehearses else None)
        curve.append(float(play(policy)[1][rest].mean()))
    return changes, curve


def within(returns: list[list[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean over agents and its 95 % interval, within the possible returns."""
    mean, low, high = mean_interval(np.array(returns))
    return mean, low.clip(-1, 1), high.clip(-1, 1)


def table(curves: dict[str, list[list[float]]], blurring: dict[str, list[int]]) -> str:
    """Mean return in the games that are not rehearsed, by the number of changes, with its interval over agents."""
    rows = []
    for name, returns in curves.items():
        mean, low, high = within(returns)
        at = [step for step in (0, 5, 10, 20, 50, 100, 200) if step < len(mean)]
        rows.append([name, np.median(blurring[name]), *(f"{mean[i]:.2f} ({low[i]:.2f} to {high[i]:.2f})" for i in at)])
    return tabulate(rows, ["weights", "changes that blur, median", *(f"after {i}" for i in at)], "github")


def draw(curves: dict[str, list[list[float]]]) -> bytes:
    """The curves as a PNG file, those with fast weights with their intervals."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
        axes = figure.subplots()
        for number, (name, returns) in enumerate(curves.items()):
            mean, low, high = within(returns)
            style, width = (("-", 2.5), ("--", 2.0))[number] if number < 2 else ("-", 1.0)
            (line,) = axes.plot(mean, style, linewidth=width, label=name)
            if number < 2:
                axes.fill_between(range(len(mean)), low, high, color=line.get_color(), alpha=0.15)
        axes.set(xlabel="changes of the weights since blurring", ylabel="mean return in games that are not rehearsed")
        axes.legend(frameon=False)
        return as_png(figure)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
