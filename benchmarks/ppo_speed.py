"""Training frames per second and memory of PPO on Catch-16-3: sb3-contrib's, also with our cells, a single file's, and ours.

    python benchmarks/ppo_speed.py --out results/ppo_speed.json

All have 128 ReLUs, 128 recurrent units shared by actor and critic, linear heads, the same vector environment, and the PPO
settings of sb3-contrib. Its buffer keeps the state of the memory at every step, ours at the start of a sequence. The single
file is a training loop in the style of CleanRL, which runs its LSTM step by step. Each is measured in turn, in a process of its
own and after a warm-up, by its processor time, so other processes disturb it little. In the shared net sb3-contrib's memory
learns only from the actor, ours from the critic too. The memory in MiB is the peak of the process.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sb3_contrib
import torch
import tyro
from measure import Clock, in_new_process, in_turn, ratio_row, write_report
from single_file_ppo import SingleFilePPO
from stable_baselines3.common.base_class import BaseAlgorithm
from training_speed import ENV, Encoder

from fw_rl.agents import CellLstmPolicy, RecurrentPPO
from fw_rl.envs import VecEnvAdapter
from fw_rl.experiments.environments import make_vector_env

PEER = "sb3-contrib"
PLUGGED = "sb3-contrib with CellLstmPolicy"
SINGLE = "a single file, as CleanRL's"
OURS = "ours"


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    cells: tuple[str, ...] = ("lstm", "fast-weights")
    """Memory cells in our policies."""
    n_envs: int = 64
    """Environments."""
    n_steps: int = 60
    """Steps of a rollout."""
    batch_size: int = 960
    """Steps of a minibatch."""
    threads: int = 1
    """Torch threads; the time of all of them counts."""
    repeats: int = 3
    """Measurements of each, in turn."""
    seconds: float = 5.0
    """Length of one measurement, at least."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


def make_model(settings: Settings, way: str, cell: str) -> BaseAlgorithm:
    """A contender."""
    ppo = dict(n_steps=settings.n_steps, batch_size=settings.batch_size, target_kl=None, normalize_advantage=True, device="cpu")
    env = VecEnvAdapter(make_vector_env(ENV, settings.n_envs), monitor=True)
    if way == OURS:
        net = dict(cell=cell, hidden_size=128, encoder_arch=[128], shared_cell=True, net_arch=[])
        return RecurrentPPO("RecurrentPolicy", env, policy_kwargs=net, **ppo)
    memory: dict[str, Any] = dict(features_extractor_class=Encoder, shared_lstm=True, enable_critic_lstm=False, net_arch=[])
    if way == PLUGGED:
        return sb3_contrib.RecurrentPPO(CellLstmPolicy, env, policy_kwargs=memory | dict(cell=cell, hidden_size=128), **ppo)
    return sb3_contrib.RecurrentPPO("MlpLstmPolicy", env, policy_kwargs=memory | dict(lstm_hidden_size=128), **ppo)


def measure(settings: Settings, way: str, cell: str) -> tuple[float, float]:
    """Frames per second, and the peak of the process in MiB."""
    torch.set_num_threads(settings.threads)
    if way == SINGLE:
        speed = speed_of_single_file(settings)
    else:
        clock = Clock(settings.seconds, timer=time.process_time)
        make_model(settings, way, cell).learn(10**9, callback=clock, log_interval=None)  # type: ignore[call-arg]
        speed = clock.frames_per_second
    return speed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def speed_of_single_file(settings: Settings, warm_up: float = 1.5) -> float:
    """Frames per second, between two updates at least `settings.seconds` apart."""
    ppo = SingleFilePPO(make_vector_env(ENV, settings.n_envs), settings.n_steps, settings.batch_size)
    begin = (0, 0.0)
    for now, seconds, _ in ppo.updates():
        if begin[0] and seconds - begin[1] >= settings.seconds:
            break
        begin = (now, seconds) if not begin[0] and seconds >= warm_up else begin
    return (now - begin[0]) / (seconds - begin[1])


def main(settings: Settings) -> None:
    contenders = [(PEER, "lstm"), (SINGLE, "lstm"), *[(way, cell) for cell in settings.cells for way in (PLUGGED, OURS)]]
    mebibytes: dict[tuple[str, str], float] = {}

    def speed(contender: tuple[str, str]) -> float:
        frames_per_second, mebibytes[contender] = in_new_process(partial(measure, settings), *contender)
        return float(frames_per_second)

    speeds = in_turn(speed, contenders, settings.repeats)
    print(
        f"{'median of ' + str(settings.repeats) + ' in turn':44s}{'frames/s':>12}{'ratio':>10}   {'min to max':16s}{'MiB':>8}"
    )
    for contender, measured in speeds.items():
        row = ratio_row(", ".join(contender), measured, speeds[PEER, "lstm"], width=44)
        print(f"{row:85s}{mebibytes[contender]:8,.0f}")
    record = {
        ", ".join(contender): dict(frames_per_second=[round(one) for one in measured], mebibytes=round(mebibytes[contender]))
        for contender, measured in speeds.items()
    }
    write_report(settings.out, settings, contenders=record)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
