"""Ten tasks that need a memory: our agents with their defaults beside sb3-contrib's RecurrentPPO.

    python benchmarks/pomdp.py --out results/pomdp

Ours have the same settings everywhere: those of `RecurrentPPO("RecurrentPolicy", env)`, or with `--algorithms A2C` of
`RecurrentA2C`, and as many environments as `train.py` makes. The peer is run twice: with rl-baselines3-zoo's settings for the
task, or else for its kind, and with its defaults on eight environments, the zoo's usual number. Each run has one thread and
becomes a line of `runs.jsonl`: run an interrupted command again to continue it. The tasks need `pip install 'fw-rl[envs]'`,
except for CartPole and Pendulum.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import matplotlib
import numpy as np
import torch
import tyro
from gymnasium.wrappers import FilterObservation, FlattenObservation, TransformObservation
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from measure import processor
from sb3_contrib import RecurrentPPO as PeerPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, sync_envs_normalization
from torch import nn

from fw_rl.agents import RecurrentA2C, RecurrentPPO
from fw_rl.experiments.run_folder import git_commit
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file
from fw_rl.intervals import mean_interval
from fw_rl.lines import STYLE, as_png, handles, line_styles, plot_mean

ZOO, DEFAULTS, NO_MEMORY = "sb3-contrib, as in rl-zoo", "sb3-contrib, defaults", "SB3's PPO, no memory"

ZOO_NET = dict(ortho_init=False, activation_fn=nn.ReLU, lstm_hidden_size=64, net_arch=[64])
ZOO_CARTPOLE = dict(n_envs=8, n_steps=32, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20, learning_rate=1e-3)
ZOO_CARTPOLE |= dict(normalize=True, anneal=True, policy_kwargs=ZOO_NET)
ZOO_PENDULUM = dict(n_envs=4, n_steps=1024, gamma=0.9, learning_rate=1e-3, use_sde=True, sde_sample_freq=4)
ZOO_PENDULUM |= dict(normalize=True, policy_kwargs=ZOO_NET)
ZOO_LANDER = dict(n_envs=32, n_steps=512, gae_lambda=0.98, gamma=0.999, n_epochs=4, ent_coef=0.01)
ZOO_LANDER |= dict(normalize=True, policy_kwargs=ZOO_NET)
ZOO_MUJOCO_NET = dict(log_std_init=-2, ortho_init=False, activation_fn=nn.ReLU, net_arch=[256, 256])
ZOO_HOPPER = dict(n_envs=1, batch_size=32, n_steps=512, gamma=0.999, learning_rate=9.80828e-05, ent_coef=0.00229519, n_epochs=5)
ZOO_HOPPER |= dict(gae_lambda=0.99, max_grad_norm=0.7, vf_coef=0.835671, normalize=True, policy_kwargs=ZOO_MUJOCO_NET)
ZOO_CHEETAH = dict(
    n_envs=1, batch_size=64, n_steps=512, gamma=0.98, learning_rate=2.0633e-05, ent_coef=0.000401762, n_epochs=20
)
ZOO_CHEETAH |= dict(clip_range=0.1, gae_lambda=0.92, max_grad_norm=0.8, vf_coef=0.58096, normalize=True)
ZOO_CHEETAH |= dict(policy_kwargs=ZOO_MUJOCO_NET)
ZOO_MINIGRID = dict(n_envs=8, n_steps=128, batch_size=64, learning_rate=2.5e-4, normalize=True)
ZOO_IMAGE = dict(n_envs=8, n_steps=128, batch_size=256, n_epochs=4, learning_rate=2.5e-4, clip_range=0.1, ent_coef=0.01)
ZOO_IMAGE |= dict(anneal=True, policy_kwargs=dict(enable_critic_lstm=False, lstm_hidden_size=128))
"""From rl-baselines3-zoo's hyperparams/ppo_lstm.yml, and for MiniGrid ppo.yml (commit 22e3ff2, April 2026)."""


class Task(NamedTuple):
    """An environment, the frames to learn it in, the number of seeds, and rl-zoo's settings for the peer."""

    make: Callable[[], gym.Env]
    frames: int
    seeds: int
    zoo: dict[str, Any]
    policy: str = "MlpLstmPolicy"
    possible: tuple[float, float] = (-math.inf, math.inf)
    """The lowest and the highest possible return."""
    flat_for_peer: bool = False
    """Whether the peer sees observations one-hot in one vector, which its LSTM needs."""


def hide_velocities(env_id: str, shown: list[int]) -> gym.Env:
    """The environment with only these numbers of its observation."""
    env = gym.make(env_id)
    space = env.observation_space
    assert isinstance(space, gym.spaces.Box)
    seen = gym.spaces.Box(space.low[shown].astype(np.float32), space.high[shown].astype(np.float32), dtype=np.float32)
    return TransformObservation(env, lambda observation: observation[shown].astype(np.float32), seen)


def see_grid(env_id: str) -> gym.Env:
    """A MiniGrid with one-hot cells, without its mission, which is the same in every episode."""
    from minigrid.wrappers import OneHotPartialObsWrapper

    return FlattenObservation(FilterObservation(OneHotPartialObsWrapper(gym.make(env_id)), ["image", "direction"]))


TASKS = {
    "CartPole": Task(partial(hide_velocities, "CartPole-v1", [0, 2]), 100_000, 5, ZOO_CARTPOLE, possible=(0, 500)),
    "Pendulum": Task(partial(hide_velocities, "Pendulum-v1", [0, 1]), 100_000, 5, ZOO_PENDULUM, possible=(-math.inf, 0)),
    "LunarLander": Task(partial(hide_velocities, "LunarLander-v3", [0, 1, 4, 6, 7]), 1_000_000, 3, ZOO_LANDER),
    "Hopper": Task(partial(hide_velocities, "Hopper-v5", [*range(5)]), 1_000_000, 3, ZOO_HOPPER),
    "HalfCheetah": Task(partial(hide_velocities, "HalfCheetah-v5", [*range(8)]), 1_000_000, 3, ZOO_CHEETAH),
    "MiniGrid-MemoryS7": Task(partial(see_grid, "minigrid:MiniGrid-MemoryS7-v0"), 300_000, 5, ZOO_MINIGRID),
    "RepeatPreviousEasy": Task(partial(gym.make, "popgym:popgym-RepeatPreviousEasy-v0"), 500_000, 3, ZOO_MINIGRID),
    "CountRecallEasy": Task(
        partial(gym.make, "popgym:popgym-CountRecallEasy-v0"), 500_000, 3, ZOO_MINIGRID, flat_for_peer=True
    ),
    "NoisyPositionOnlyPendulumEasy": Task(
        partial(gym.make, "popgym:popgym-NoisyPositionOnlyPendulumEasy-v0"), 500_000, 3, ZOO_PENDULUM
    ),
    "MortarMayhem-Grid": Task(partial(gym.make, "memory_gym:MortarMayhem-Grid-v0"), 1_000_000, 3, ZOO_IMAGE, "CnnLstmPolicy"),
}
"""CartPole shows the position of the cart and the angle of the pole, Pendulum cosine and sine of its angle, LunarLander
position, angle and contacts, Hopper and HalfCheetah the joints' positions."""

SLOW = {("CartPole", DEFAULTS), ("Pendulum", ZOO), ("Pendulum", DEFAULTS)}
"""Runs of more than five minutes in tasks with five seeds; these have three."""

POINTS = 40
"""Places of a curve at which a record has the mean return of the last 20 episodes."""


@dataclass(frozen=True)
class Settings:
    """What to train."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks."""
    cells: tuple[str, ...] = ("fast-weights", "lstm")
    """Our memory cells."""
    algorithms: tuple[Literal["PPO", "A2C"], ...] = ("PPO",)
    """Our algorithms."""
    others: tuple[str, ...] = (ZOO, DEFAULTS)
    """Contenders beside ours; also "SB3's PPO, no memory"."""
    seeds: int | None = None
    """Number of seeds of each, from 0 on; by default 5 if a run is short, else 3."""
    frames: int | None = None
    """Frames of a run, by default those of the task."""
    episodes: int = 50
    """Episodes of the evaluation at the end, greedy and again sampled."""
    learning_rate: float | None = None
    """Our learning rate, by default that of the class."""
    jobs: int = 1
    """Runs side by side."""
    out: Path = Path("runs/pomdp")
    """Folder for the records, the table and the picture."""

    @property
    def contenders(self) -> list[str]:
        """The contenders, by name."""
        names = {"PPO": "ours, ", "A2C": "ours, A2C, "}
        return [*(names[algorithm] + cell for algorithm, cell in product(self.algorithms, self.cells)), *self.others]


def make_envs(task: Task, contender: str, n_envs: int, seed: int) -> VecEnv:
    """The environments of a task as a contender sees them, before any scaling."""
    is_flat = task.flat_for_peer and not contender.startswith("ours")
    return make_vec_env(task.make, n_envs=n_envs, seed=seed, wrapper_class=FlattenObservation if is_flat else None)


def make_model(task: Task, contender: str, seed: int, learning_rate: float | None = None) -> BaseAlgorithm:
    """A contender before its training."""
    settings = dict(task.zoo if contender == ZOO else {}) | dict(seed=seed, device="cpu")
    settings |= {} if learning_rate is None else dict(learning_rate=learning_rate)
    usual = RunSettings.n_envs if contender.startswith("ours") else 8
    env = make_envs(task, contender, settings.pop("n_envs", usual), seed)
    if settings.pop("normalize", False):
        has_numbers = isinstance(env.observation_space, gym.spaces.Box | gym.spaces.Dict)  # else it refuses to scale them
        env = VecNormalize(env, norm_obs=has_numbers, gamma=settings.get("gamma", 0.99))
    if settings.pop("anneal", False):
        defaults = dict(clip_range=0.2) | settings
        settings |= {name: LinearSchedule(defaults[name], 0.0, 1.0) for name in ("learning_rate", "clip_range")}
    if contender in (ZOO, DEFAULTS):
        return PeerPPO(task.policy, env, **settings)
    if contender == NO_MEMORY:
        return PPO(task.policy.replace("Lstm", ""), env, **settings)
    agent = RecurrentA2C if contender.startswith("ours, A2C") else RecurrentPPO
    return agent("RecurrentPolicy", env, policy_kwargs=dict(cell=cell_of(contender)), **settings)


class Curve(BaseCallback):
    """Records the mean return of the last 20 episodes at `POINTS` places, None before the first episode has ended."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.every = frames / POINTS
        self.points: list[float | None] = []

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.every * (len(self.points) + 1):
            assert self.model.ep_info_buffer is not None
            last = [episode["r"] for episode in self.model.ep_info_buffer][-20:]
            self.points.append(round(float(np.mean(last)), 3) if last else None)
        return True


def train(
    name: str, contender: str, seed: int, frames: int, episodes: int, learning_rate: float | None = None
) -> dict[str, Any]:
    """One run: its curve, the returns at the end, and the seconds of processor time that the training took.

    A run that diverges ends there, and its curve keeps its last value.
    """
    torch.set_num_threads(1)
    task = TASKS[name]
    model = make_model(task, contender, seed, learning_rate)
    curve = Curve(frames)
    begin, told = time.process_time(), {}
    try:
        model.learn(frames, callback=curve)
    except FloatingPointError:
        told = dict(diverged_at=model.num_timesteps)
        curve.points += curve.points[-1:] * (POINTS - len(curve.points))
    seconds = time.process_time() - begin
    env = make_envs(task, contender, 10, seed=1_000_003)
    if isinstance(model.get_env(), VecNormalize):
        env = VecNormalize(env, training=False, norm_obs=model.get_env().norm_obs, norm_reward=False)
        sync_envs_normalization(model.get_env(), env)
    for way in ("greedy", "sampled"):
        mean = np.mean(evaluate_policy(model, env, episodes, deterministic=way == "greedy")[0])
        told[way] = round(float(mean), 3)
    return dict(seconds=round(seconds, 1), processor=processor(), git_commit=git_commit(), curve=curve.points) | told


Runs = list[dict[str, Any]]
"""The settings and the results of each run."""


def train_all(settings: Settings) -> Runs:
    """The runs; those that are not in the file are made, and written there as soon as they end."""
    path = settings.out / "runs.jsonl"
    known: Runs = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    asked = [_asked(settings, name, contender, seed) for name, contender, seed in _jobs(settings)]
    missing = [wanted for wanted in asked if not any(wanted.items() <= run.items() for run in known)]
    with ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(train, *wanted.values()): wanted for wanted in missing}
        for done in as_completed(running):
            run = running[done] | done.result()
            known.append(run)
            known.sort(key=lambda run: (run["task"], run["contender"], run["seed"]))
            write_file(path, "".join(json.dumps(run) + "\n" for run in known).encode())
            print(f"{run['task']}, {run['contender']}, seed {run['seed']}: {run['greedy']:.2f}, {run['seconds']} s", flush=True)
    return [run for wanted in asked for run in known if wanted.items() <= run.items()]


def _jobs(settings: Settings) -> list[tuple[str, str, int]]:
    """Seed by seed, so that an interrupted command has some of everything."""
    jobs = product(range(settings.seeds or 5), settings.tasks, settings.contenders)
    return [(name, contender, seed) for seed, name, contender in jobs if seed < (settings.seeds or _seeds(name, contender))]


def _seeds(name: str, contender: str) -> int:
    return 3 if (name, contender) in SLOW else TASKS[name].seeds


def _asked(settings: Settings, name: str, contender: str, seed: int) -> dict[str, Any]:
    wanted = dict(task=name, contender=contender, seed=seed, frames=settings.frames or TASKS[name].frames)
    rate = settings.learning_rate if contender.startswith("ours") else None
    return wanted | dict(episodes=settings.episodes, learning_rate=rate)


def of(runs: Runs, name: str, contender: str) -> Runs:
    """The runs of one contender in one task."""
    return [run for run in runs if (run["task"], run["contender"]) == (name, contender)]


def report(settings: Settings, runs: Runs) -> str:
    """The greedy returns with their 95 % interval over seeds, and the seconds of processor time."""
    lines = ["| task | contender | return | 95 % interval | worst to best | seconds |", "| --- | --- | --- | --- | --- | --- |"]
    for name, contender in product(settings.tasks, settings.contenders):
        own = of(runs, name, contender)
        returns = np.array([run["greedy"] for run in own])
        mean, low, high = mean_interval(returns)
        seconds = np.median([run["seconds"] for run in own])
        diverged = sum("diverged_at" in run for run in own)
        told = f", {diverged} diverged" if diverged else ""
        spread = f"{returns.min():.4g} to {returns.max():.4g}{told}"
        lines.append(f"| {name} | {contender} | {mean:.4g} | {low:.4g} to {high:.4g} | {spread} | {seconds:.0f} |")
    return "\n".join(lines)


def draw(settings: Settings, runs: Runs, path: Path) -> None:
    """A panel for each task: mean and 95 % interval over the seeds, within the possible range."""
    columns = min(len(settings.tasks), 3)
    rows = math.ceil(len(settings.tasks) / columns)
    styles = line_styles({contender: cell_of(contender) for contender in settings.contenders})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(0.5 + 4.4 * columns, 0.8 + 3.4 * rows), dpi=150, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, name in zip(panels, settings.tasks, strict=False):
            for place, (contender, style) in enumerate(styles.items()):
                own = of(runs, name, contender)
                frames = np.linspace(0, own[0]["frames"], POINTS + 1)[1:]
                band = mean_interval(np.array([run["curve"] for run in own], dtype=float))
                plot_mean(axes, frames, band, style, (place, len(styles)), TASKS[name].possible)
            axes.set(title=name, xlabel="frames", ylabel="mean return")
            axes.title.set_fontsize(11)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        for axes in panels[len(settings.tasks) :]:
            axes.set_visible(False)
        figure.legend(handles=handles(styles), loc="outside lower center", ncols=min(len(styles), 4), frameon=False)
        write_file(path, as_png(figure))


def cell_of(contender: str) -> str:
    """The memory of a contender: that of the peer is an LSTM."""
    return "lstm" if contender in (ZOO, DEFAULTS) else contender.rpartition(", ")[-1]


def main(settings: Settings) -> None:
    settings.out.mkdir(parents=True, exist_ok=True)
    runs = train_all(settings)
    table = report(settings, runs)
    print("\n" + table)
    write_file(settings.out / "table.md", (table + "\n").encode())
    draw(settings, runs, settings.out / "curves.png")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
