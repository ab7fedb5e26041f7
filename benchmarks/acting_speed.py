"""Time to act for a few environments: our agents beside SB3's A2C without memory and sb3-contrib's RecurrentPPO.

    python benchmarks/acting_speed.py --out results/acting_speed.json

The environment does nothing, so all time is the agent's. "collect" is a step of `collect_rollouts`, with the values and
log-probabilities of the rollout, which SB3 computes step by step and ours in one pass after it. "predict" is a call of
`model.predict`. All have a layer of 128 ReLUs, 128 recurrent units shared by actor and critic (SB3's A2C has 128 more ReLUs),
and linear heads. The contenders take turns within one process, on one thread; processor time is measured, so other processes
disturb it little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
import tyro
from gymnasium import spaces
from measure import in_turn, ratio_row, write_report
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from training_speed import Encoder

from fw_rl.agents import RecurrentPPO

PEERS = ("SB3's A2C, no memory", "sb3-contrib's RecurrentPPO, LSTM")


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    cells: tuple[str, ...] = ("fast-weights", "lstm", "gru")
    """Memory cells in our policy."""
    n_envs: tuple[int, ...] = (1, 4, 16)
    """Numbers of environments."""
    n_steps: int = 128
    """Steps of a rollout, and calls of `predict`, in one measurement."""
    repeats: int = 15
    """Measurements of each, in turn."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


class NothingVecEnv(VecEnv):
    """Environments that show one random vector of eight numbers, have three actions, and never end."""

    def __init__(self, n_envs: int) -> None:
        super().__init__(n_envs, spaces.Box(-1, 1, (8,)), spaces.Discrete(3))
        self.shown = np.random.default_rng(0).uniform(-1, 1, (n_envs, 8)).astype(np.float32)
        self.answer = self.shown, np.zeros(n_envs, np.float32), np.zeros(n_envs, dtype=bool), [{} for _ in range(n_envs)]

    def reset(self) -> Any:
        return self.shown

    def step_async(self, actions: np.ndarray) -> None:
        pass

    def step_wait(self) -> Any:
        return self.answer

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def make_model(name: str, n_envs: int, n_steps: int) -> BaseAlgorithm:
    """A contender that can collect a rollout."""
    encoder: dict[str, Any] = dict(features_extractor_class=Encoder)
    common: dict[str, Any] = dict(env=NothingVecEnv(n_envs), n_steps=n_steps, device="cpu")
    if name == PEERS[0]:
        model: Any = stable_baselines3.A2C("MlpPolicy", policy_kwargs=encoder | dict(net_arch=[128]), **common)
    elif name == PEERS[1]:
        memory = dict(lstm_hidden_size=128, shared_lstm=True, enable_critic_lstm=False, net_arch=[])
        model = sb3_contrib.RecurrentPPO("MlpLstmPolicy", policy_kwargs=encoder | memory, **common)
    else:
        net = dict(cell=name, hidden_size=128, encoder_arch=[128], shared_cell=True, net_arch=[], norm_obs=False)
        model = RecurrentPPO("RecurrentPolicy", policy_kwargs=net, norm_reward=False, **common)
    model.collect = partial(model.collect_rollouts, model.env, model._setup_learn(10**9)[1], model.rollout_buffer, n_steps)
    return model


def collect(model: Any, n_steps: int) -> None:
    """A rollout, with the values that learning needs."""
    model.collect()
    assert model.rollout_buffer.values.shape[0] == n_steps


def predict(model: Any, n_steps: int) -> None:
    """As many calls of `predict`; the memory's state passes from one to the next."""
    observation = model.env.reset()
    state, starts = None, np.ones(model.n_envs, dtype=bool)
    for _ in range(n_steps):
        _, state = model.predict(observation, state, starts)
        starts = np.zeros(model.n_envs, dtype=bool)


def microseconds(act: Callable[[Any, int], None], models: dict[str, Any], n_steps: int, name: str) -> float:
    """Processor time per step."""
    begin = time.process_time()
    act(models[name], n_steps)
    return (time.process_time() - begin) / n_steps * 1e6


def main(settings: Settings) -> None:
    torch.set_num_threads(1)
    record = {}
    for n_envs in settings.n_envs:
        names = [*PEERS, *(cell for cell in settings.cells)]
        models = {name: make_model(name, n_envs, settings.n_steps) for name in names}
        for act in (collect, predict):
            for name in names:
                microseconds(act, models, settings.n_steps, name)
            measured = in_turn(partial(microseconds, act, models, settings.n_steps), names, settings.repeats)
            print(f"{act.__name__ + f', {n_envs} envs':58s}{'us/step':>12}{'ratio':>10}   min to max")
            for name in names:
                print(ratio_row(name, measured[name], measured[PEERS[0]], number=",.0f"), flush=True)
            record[f"{act.__name__}, {n_envs}"] = {name: [round(one, 1) for one in measured[name]] for name in names}
    write_report(settings.out, settings, microseconds=record)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
