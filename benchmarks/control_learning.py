"""Learning curves on CartPole and Pendulum whose velocities are hidden: our memory cells beside sb3-contrib's RecurrentPPO.

    python benchmarks/control_learning.py --out results/control

All get the same number of frames and the same observations, and have 64 units for the actor and as many for the critic. PPO has
the settings that rl-baselines3-zoo (hyperparams/ppo_lstm.yml) gives for these two environments, without its state-dependent
exploration, for every memory alike; "no memory" is SB3's PPO with them. Every run is a process with one thread and leaves a
small record, so that a command that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np
import torch
import tyro
from gymnasium.wrappers import TransformObservation
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from measure import in_new_process
from sb3_contrib import RecurrentPPO as PeerPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

from fw_rl.agents import RecurrentPPO as OwnPPO
from fw_rl.commands.curves import COLORS
from fw_rl.commands.pictures import STYLE
from fw_rl.commands.statistics import mean_interval
from fw_rl.files import write_file, write_json

SHOWN = {"CartPole-v1": [0, 2], "Pendulum-v1": [0, 1]}
"""What is seen: place of the cart and angle of the pole; cosine and sine of the angle."""

FRAMES = {"CartPole-v1": 100_000, "Pendulum-v1": 100_000}

PEER, NO_MEMORY = "RecurrentPPO (sb3-contrib), lstm", "PPO (SB3), no memory"

OURS = {f"RecurrentPPO (ours), {cell}": cell for cell in ("fast-weights", "lstm", "gru", "rnn")}

RATES = dict(eta=0.01, decay=0.3)
"""Of the fast weights: with those of the paper what comes back outweighs what is seen."""

POINTS = 40
"""Places of a curve at which a record has the mean return of the last 20 episodes."""


@dataclass(frozen=True)
class Settings:
    """What to train."""

    envs: tuple[str, ...] = tuple(SHOWN)
    """Environments."""
    contenders: tuple[str, ...] = (PEER, NO_MEMORY, *OURS)
    """Who learns."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of each."""
    episodes: int = 50
    """Greedy episodes at the end."""
    frames: int | None = None
    """Frames of a run; 100,000 by default."""
    jobs: int = 1
    """Runs side by side."""
    out: Path = Path("runs/control")
    """Folder of the records, the table and the picture."""


def hide_velocities(env_id: str) -> gym.Env:
    """The environment with the places alone."""
    env, shown = gym.make(env_id), SHOWN[env_id]
    space = env.observation_space
    assert isinstance(space, gym.spaces.Box)
    seen = gym.spaces.Box(space.low[shown], space.high[shown], dtype=np.float32)
    return TransformObservation(env, lambda observation: observation[shown], seen)


def make_model(env_id: str, contender: str, seed: int) -> BaseAlgorithm:
    """A contender before its training."""
    cart = env_id == "CartPole-v1"
    ppo: dict[str, Any] = dict(
        n_steps=32 if cart else 1024,
        batch_size=256 if cart else 128,
        n_epochs=20 if cart else 10,
        gamma=0.98 if cart else 0.9,
        gae_lambda=0.8 if cart else 0.95,
        learning_rate=LinearSchedule(1e-3, 0, 1) if cart else 1e-3,
        clip_range=LinearSchedule(0.2, 0, 1) if cart else 0.2,
    )
    env = make_vec_env(lambda: hide_velocities(env_id), n_envs=8 if cart else 4, seed=seed)
    if contender == PEER:
        return PeerPPO("MlpLstmPolicy", env, **ppo, policy_kwargs=dict(lstm_hidden_size=64), seed=seed, device="cpu")
    if contender == NO_MEMORY:
        return PPO("MlpPolicy", env, **ppo, seed=seed, device="cpu")
    cell = OURS[contender]
    memory = dict(cell=cell, hidden_size=64, shared_cell=False, cell_kwargs=RATES if cell == "fast-weights" else {})
    # As many layers as the peer has, one of them before the cell: layer normalisation would lose how long an observation is.
    layers = dict(encoder_arch=(64,), net_arch=[64], activation_fn=nn.Tanh, ortho_init=True)
    return OwnPPO("RecurrentPolicy", env, **ppo, policy_kwargs=memory | layers, seed=seed, device="cpu")


class Curve(BaseCallback):
    """Notes the mean return of the last 20 episodes at `POINTS` places."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.every = frames / POINTS
        self.points: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.every * (len(self.points) + 1):
            assert self.model.ep_info_buffer is not None
            last = [episode["r"] for episode in self.model.ep_info_buffer][-20:]
            self.points.append((self.num_timesteps, round(float(np.mean(last)), 2) if last else float("nan")))
        return True


def train(env_id: str, contender: str, seed: int, frames: int, episodes: int) -> dict[str, Any]:
    """One run: its curve, the greedy return at the end, and the frames a second."""
    torch.set_num_threads(1)
    model = make_model(env_id, contender, seed)
    curve = Curve(frames)
    begin = time.process_time()
    model.learn(frames, callback=curve)
    seconds = time.process_time() - begin
    env = make_vec_env(lambda: hide_velocities(env_id), n_envs=10, seed=1_000_003)
    greedy = float(np.mean(evaluate_policy(model, env, episodes)[0]))
    return dict(
        env=env_id,
        contender=contender,
        seed=seed,
        frames=frames,
        frames_per_second=round(model.num_timesteps / seconds),
        greedy=round(greedy, 2),
        curve=curve.points,
    )


def main(settings: Settings) -> None:
    runs = settings.out / "runs"
    jobs = list(product(settings.envs, settings.contenders, settings.seeds))
    with ThreadPoolExecutor(settings.jobs) as pool:
        records = list(pool.map(lambda job: _record(settings, runs, *job), jobs))
    groups = {
        env: {
            name: [record for record in records if (record["env"], record["contender"]) == (env, name)]
            for name in settings.contenders
        }
        for env in settings.envs
    }
    table = report(groups)
    print("\n" + table)
    write_file(settings.out / "table.txt", (table + "\n").encode())
    draw(groups, settings.out / "curves.png")


def _record(settings: Settings, folder: Path, env_id: str, contender: str, seed: int) -> dict[str, Any]:
    """The record of a run, which is made if it is not there."""
    words = "".join(letter if letter.isalnum() else "-" for letter in f"{env_id} {contender} {seed}").lower()
    path = folder / f"{words}.json"
    if not path.exists():
        frames = settings.frames or FRAMES[env_id]
        record = in_new_process(train, env_id, contender, seed, frames, settings.episodes)
        write_json(path, record)
        print(
            f"{env_id}, {contender}, seed {seed}: {record['greedy']:.1f} ({record['frames_per_second']:,} frames/s)", flush=True
        )
    return dict(json.loads(path.read_text()))


Groups = dict[str, dict[str, list[dict[str, Any]]]]
"""Records by environment and contender."""


def report(groups: Groups) -> str:
    """The greedy returns with their 95 % interval, and the frames a second beside those of the peer."""
    lines = []
    for env, contenders in groups.items():
        lines.append(f"{env:40s}{'greedy return':>16}   95 % interval        frames/s   ratio")
        peer = contenders.get(PEER, [])
        for name, records in contenders.items():
            mean, low, high = mean_interval(np.array([record["greedy"] for record in records]))
            speed = np.median([record["frames_per_second"] for record in records])
            ratio = f"{speed / np.median([record['frames_per_second'] for record in peer]):8.1f}" if peer else ""
            interval = f"{low:.1f} to {high:.1f}"
            lines.append(f"  {name:38s}{mean:16.1f}   {interval:20s}{speed:9,.0f}{ratio}")
    return "\n".join(lines)


def draw(groups: Groups, path: Path) -> None:
    """A panel for each environment: mean and 95 % interval over the seeds."""
    names = dict.fromkeys(name for contenders in groups.values() for name in contenders)
    colors = dict(zip(names, COLORS, strict=False))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.6), dpi=150, layout="constrained")
        for axes, (env, contenders) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
            for name, records in contenders.items():
                curves = np.array([[point for _, point in record["curve"]] for record in records])
                frames = np.mean([[frame for frame, _ in record["curve"]] for record in records], axis=0)
                mean, low, high = mean_interval(curves)
                axes.fill_between(frames, low, high, color=colors[name], alpha=0.15, linewidth=0)
                axes.plot(frames, mean, color=colors[name], linewidth=2, label=name)
            axes.set(title=f"{env}, velocities hidden", xlabel="frames", ylabel="mean return of the last 20 episodes")
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
