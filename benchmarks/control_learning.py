"""Learning curves on CartPole and Pendulum whose velocities are hidden: our memory cells beside sb3-contrib's RecurrentPPO.

    python benchmarks/control_learning.py --out results/control

All get the same number of frames and have 64 units to remember with. PPO has the settings that rl-baselines3-zoo
(hyperparams/ppo_lstm.yml) gives for these two environments, without state-dependent exploration, for every memory alike; "no
memory" is SB3's PPO with them. "As in rl-zoo" also scales observations and rewards, as our A2C does, and has the zoo's net.
Each run has one thread and becomes a line of `runs.jsonl`, so that a command that was interrupted goes on where it was.

    python benchmarks/control_learning.py --out results/control --repeats 3

measures the frames per second too, in turn: for a machine that does nothing else.
"""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np
import torch
import tyro
from gymnasium.wrappers import TransformObservation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from measure import Clock, in_new_process, in_turn, ratio_row, write_report
from sb3_contrib import RecurrentPPO as PeerPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, sync_envs_normalization
from torch import nn

from fw_rl.agents import RecurrentA2C
from fw_rl.agents import RecurrentPPO as OwnPPO
from fw_rl.experiments.curves import COLORS, STYLE
from fw_rl.files import write_file
from fw_rl.intervals import mean_interval

SHOWN = {"CartPole-v1": [0, 2], "Pendulum-v1": [0, 1]}
"""What is seen: place of the cart and angle of the pole; cosine and sine of the angle."""

FRAMES = {"CartPole-v1": 100_000, "Pendulum-v1": 100_000}

CELLS = ("fast-weights", "lstm", "gru", "rnn")
A2C, OWN_PPO, OWN_ZOO = "RecurrentA2C", "RecurrentPPO (ours)", "RecurrentPPO (ours, as in rl-zoo)"
PEER = "RecurrentPPO (sb3-contrib), lstm"
ZOO_PEER = "RecurrentPPO (sb3-contrib, as in rl-zoo), lstm"
NO_MEMORY = "PPO (SB3), no memory"

PPO_SETTINGS: dict[str, dict[str, Any]] = {
    "CartPole-v1": dict(n_envs=8, n_steps=32, batch_size=256, n_epochs=20, gamma=0.98, gae_lambda=0.8, anneal=True),
    "Pendulum-v1": dict(n_envs=4, n_steps=1024, batch_size=128, n_epochs=10, gamma=0.9, gae_lambda=0.95, anneal=False),
}
"""From rl-baselines3-zoo; with `anneal` both the learning rate of 1e-3 and the clip range of 0.2 go down to 0."""

A2C_SETTINGS: dict[str, dict[str, Any]] = {
    "CartPole-v1": dict(n_envs=16, n_steps=8, gamma=0.98),
    "Pendulum-v1": dict(n_envs=8, n_steps=8, gamma=0.9),
}

RATES = dict(eta=0.01, decay=0.3)
"""Of the fast weights: with those of the paper what comes back outweighs what is seen."""

POINTS = 40
"""Places of a curve at which a record has the mean return of the last 20 episodes."""


@dataclass(frozen=True)
class Settings:
    """What to train."""

    envs: tuple[str, ...] = tuple(SHOWN)
    """Environments."""
    algorithms: tuple[str, ...] = (A2C, OWN_PPO)
    """Ours: RecurrentA2C, "RecurrentPPO (ours)", "RecurrentPPO (ours, as in rl-zoo)"."""
    cells: tuple[str, ...] = CELLS
    """What remembers in them."""
    others: tuple[str, ...] = (PEER, ZOO_PEER, NO_MEMORY)
    """Those beside them; the speeds are compared with the first."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of each."""
    episodes: int = 50
    """Greedy episodes at the end."""
    frames: int | None = None
    """Frames of a run; 100,000 by default."""
    jobs: int = 1
    """Runs side by side."""
    repeats: int = 0
    """Times that the speed of each is measured, in turn; 0 leaves that out."""
    out: Path = Path("runs/control")
    """Folder of the records, the table, the speeds and the picture."""

    @property
    def contenders(self) -> list[str]:
        """Who learns."""
        return [*self.others, *(f"{algorithm}, {cell}" for algorithm, cell in product(self.algorithms, self.cells))]


def hide_velocities(env_id: str) -> gym.Env:
    """The environment with the places alone."""
    env, shown = gym.make(env_id), SHOWN[env_id]
    space = env.observation_space
    assert isinstance(space, gym.spaces.Box)
    seen = gym.spaces.Box(space.low[shown], space.high[shown], dtype=np.float32)
    return TransformObservation(env, lambda observation: observation[shown], seen)


def settings_of(env_id: str, contender: str) -> dict[str, Any]:
    """What a contender learns with, as it goes into its record."""
    algorithm, memory = contender.rsplit(", ", 1)
    rates = dict(cell_kwargs=RATES if memory == "fast-weights" else {})
    if algorithm == A2C:
        own = dict(learning_rate=2e-3, optimizer="adam", gae_lambda=0.95, ent_coef=0.0, normalize=True)
        return own | rates | A2C_SETTINGS[env_id]
    zoo = "as in rl-zoo" in algorithm
    settings = dict(learning_rate=1e-3, clip_range=0.2, normalize=zoo) | PPO_SETTINGS[env_id]
    # A minibatch of ours holds whole sequences.
    return settings | rates | dict(bptt_length=32) if algorithm in (OWN_PPO, OWN_ZOO) else settings


def make_model(env_id: str, contender: str, seed: int) -> BaseAlgorithm:
    """A contender before its training."""
    algorithm, memory = contender.rsplit(", ", 1)
    settings = settings_of(env_id, contender) | dict(seed=seed, device="cpu")
    env: VecEnv = make_vec_env(partial(hide_velocities, env_id), n_envs=settings.pop("n_envs"), seed=seed)
    if settings.pop("normalize"):
        env = VecNormalize(env, gamma=settings["gamma"])
    if settings.pop("anneal", False):
        settings |= {name: LinearSchedule(settings[name], 0.0, 1.0) for name in ("learning_rate", "clip_range")}
    if contender == NO_MEMORY:
        return PPO("MlpPolicy", env, **settings)
    if contender in (PEER, ZOO_PEER):
        zoo = dict(net_arch=[64], activation_fn=nn.ReLU, ortho_init=False) if contender == ZOO_PEER else {}
        return PeerPPO("MlpLstmPolicy", env, policy_kwargs=dict(lstm_hidden_size=64) | zoo, **settings)
    net = dict(cell=memory, hidden_size=64, encoder_arch=[64], cell_kwargs=settings.pop("cell_kwargs"))
    if algorithm == A2C:
        return RecurrentA2C("RecurrentPolicy", env, policy_kwargs=net, **settings)
    # As many layers as the peer has, one of them before the cell: layer normalisation would lose how long an observation is.
    zoo = dict(net_arch=[], activation_fn=nn.ReLU, ortho_init=False) if algorithm == OWN_ZOO else {}
    net |= dict(shared_cell=False, net_arch=[64], activation_fn=nn.Tanh, ortho_init=True) | zoo
    return OwnPPO("RecurrentPolicy", env, policy_kwargs=net, **settings)


class Curve(BaseCallback):
    """Notes the mean return of the last 20 episodes at `POINTS` places, None before the first episode has ended."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.every = frames / POINTS
        self.points: list[float | None] = []

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.every * (len(self.points) + 1):
            assert self.model.ep_info_buffer is not None
            last = [episode["r"] for episode in self.model.ep_info_buffer][-20:]
            self.points.append(round(float(np.mean(last)), 1) if last else None)
        return True


def train(env_id: str, contender: str, seed: int, frames: int, episodes: int) -> dict[str, Any]:
    """One run: its curve, the greedy return at the end, and the seconds of processor time that the training took.

    A run that diverges ends there, and its curve stays where it was.
    """
    torch.set_num_threads(1)
    model = make_model(env_id, contender, seed)
    curve = Curve(frames)
    begin, diverged = time.process_time(), {}
    try:
        model.learn(frames, callback=curve)
    except FloatingPointError:
        diverged = dict(diverged_at=model.num_timesteps)
        curve.points += curve.points[-1:] * (POINTS - len(curve.points))
    seconds = time.process_time() - begin
    env: VecEnv = make_vec_env(partial(hide_velocities, env_id), n_envs=10, seed=1_000_003)
    if isinstance(model.get_env(), VecNormalize):
        env = VecNormalize(env, training=False, norm_reward=False)
        sync_envs_normalization(model.get_env(), env)
    greedy = float(np.mean(evaluate_policy(model, env, episodes)[0]))
    return dict(seconds=round(seconds, 1), greedy=round(greedy, 2), curve=curve.points) | diverged


Runs = list[dict[str, Any]]
"""What was asked for and what came of it, for each run."""


def train_all(settings: Settings) -> Runs:
    """The runs, of which those that are not in the file are made, and put there as soon as they end."""
    path = settings.out / "runs.jsonl"
    known: Runs = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    asked = [_asked(settings, *job) for job in product(settings.envs, settings.contenders, settings.seeds)]
    missing = [wanted for wanted in asked if not any(wanted.items() <= run.items() for run in known)]
    with ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn")) as pool:
        arguments = ("env", "contender", "seed", "frames", "episodes")
        running = {pool.submit(train, *(wanted[name] for name in arguments)): wanted for wanted in missing}
        for done in as_completed(running):
            run = running[done] | done.result()
            known.append(run)
            known.sort(key=lambda run: (run["env"], run["contender"], run["seed"]))
            write_file(path, "".join(json.dumps(run) + "\n" for run in known).encode())
            print(f"{run['env']}, {run['contender']}, seed {run['seed']}: {run['greedy']:.1f}", flush=True)
    return [run for wanted in asked for run in known if wanted.items() <= run.items()]


def _asked(settings: Settings, env_id: str, contender: str, seed: int) -> dict[str, Any]:
    wanted = dict(env=env_id, contender=contender, seed=seed, frames=settings.frames or FRAMES[env_id])
    return wanted | dict(episodes=settings.episodes, settings=settings_of(env_id, contender))


def frames_per_second(contender: str, env_id: str) -> float:
    """Act and learn for at least eight seconds, after a warm-up."""
    torch.set_num_threads(1)
    clock = Clock(seconds=8.0)
    make_model(env_id, contender, seed=0).learn(10**9, callback=clock)
    return clock.frames_per_second


def measure_speed(settings: Settings) -> None:
    """Print and write the frames per second of each, and the ratio to the peer's."""
    speeds = {}
    for env_id in settings.envs:
        measured = in_turn(
            lambda contender, env_id=env_id: in_new_process(frames_per_second, contender, env_id),
            settings.contenders,
            settings.repeats,
        )
        print(f"\n{env_id:40s}{'frames/s':>12}{'ratio':>10}   min to max")
        for contender, own in measured.items():
            print(ratio_row(contender, own, measured[settings.contenders[0]], width=40))
        speeds[env_id] = {contender: [round(speed) for speed in own] for contender, own in measured.items()}
    write_report(settings.out / "speed.json", settings, frames_per_second=speeds)


def of(runs: Runs, env_id: str, contender: str) -> Runs:
    """Those of one contender in one environment."""
    return [run for run in runs if (run["env"], run["contender"]) == (env_id, contender)]


def report(settings: Settings, runs: Runs) -> str:
    """The greedy returns with their 95 % interval over seeds."""
    lines = []
    for env_id in settings.envs:
        lines.append(f"{env_id:38s}{'greedy return':>16}   95 % interval         worst    best")
        for contender in settings.contenders:
            greedy = np.array([run["greedy"] for run in of(runs, env_id, contender)])
            mean, low, high = mean_interval(greedy)
            interval = f"{low:.1f} to {high:.1f}"
            diverged = sum("diverged_at" in run for run in of(runs, env_id, contender))
            told = f"   {diverged} diverged" if diverged else ""
            lines.append(f"  {contender:36s}{mean:16.1f}   {interval:19s}{greedy.min():8.1f}{greedy.max():8.1f}{told}")
    return "\n".join(lines)


def draw(settings: Settings, runs: Runs, path: Path) -> None:
    """A panel for each environment and algorithm of ours: mean and 95 % interval over the seeds."""
    jobs = list(product(settings.envs, settings.algorithms))
    columns = min(len(jobs), 2)
    rows = math.ceil(len(jobs) / columns)
    sharey = "row" if len(settings.algorithms) > 1 else False
    styles = {cell: dict(color=COLORS[i]) for i, cell in enumerate(settings.cells)}
    others = {PEER: dict(linestyle="--"), ZOO_PEER: dict(linestyle="-."), NO_MEMORY: dict(color="#6b7280", linestyle=":")}
    styles |= {name: others[name] for name in settings.others}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.5 * columns, 0.8 + 3.8 * rows), dpi=150, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat
        for axes, (env_id, algorithm) in zip(panels, jobs, strict=True):
            for name, style in styles.items():
                contender = f"{algorithm}, {name}" if name in settings.cells else name
                draw_curve(axes, of(runs, env_id, contender), label=name, **style)
            axes.set(title=f"{algorithm}, {env_id} without velocities", xlabel="frames", ylabel="mean return")
            axes.title.set_fontsize(11)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3 if columns > 1 else 1, frameon=False)
        figure.savefig(path)


def draw_curve(axes: Axes, runs: Runs, label: str, color: str = "black", linestyle: str = "-") -> None:
    """The mean from where all seeds have ended an episode, and its interval."""
    frames = np.linspace(0, runs[0]["frames"], POINTS + 1)[1:]
    mean, low, high = mean_interval(np.array([run["curve"] for run in runs], dtype=float))
    axes.fill_between(frames, low, high, color=color, alpha=0.12, linewidth=0)
    axes.plot(frames, mean, color=color, linestyle=linestyle, linewidth=2, label=label)


def main(settings: Settings) -> None:
    runs = train_all(settings)
    table = report(settings, runs)
    print("\n" + table)
    write_file(settings.out / "table.txt", (table + "\n").encode())
    if settings.algorithms:
        draw(settings, runs, settings.out / "curves.png")
    if settings.repeats:
        measure_speed(settings)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
