"""The agent of a run: newly made, loaded from a checkpoint, evaluated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from fw_rl.agents import Player, RecurrentA2C, RecurrentActorCriticPolicy, RecurrentOnPolicyAlgorithm
from fw_rl.agents.checkpoint import argument_defaults
from fw_rl.agents.player import PlayedEpisode
from fw_rl.algorithms import ENGINES
from fw_rl.cells import find_cell
from fw_rl.envs import VecEnvAdapter, VecPreviousStep
from fw_rl.experiments.checks import ray_needed
from fw_rl.experiments.environments import make_vector_env, was_cut_off
from fw_rl.experiments.run_folder import RunFolder
from fw_rl.experiments.settings import RunSettings
from fw_rl.intervals import mean_interval

__all__ = ["evaluate", "evaluation_record", "load_model", "load_trained", "make_model"]

EVALUATION_ENVS = 100


def make_model(config: RunSettings, device: str = "cpu", ray_address: str | None = None) -> RecurrentOnPolicyAlgorithm:
    """A new agent for the settings of a run; ValueError if they do not make one, or if Ray is needed and not installed."""
    agent = _agent_class(config)
    settings = {name: value for name, value in config.of_agent.items() if name in argument_defaults(agent)}
    if config.normalize is not None:
        settings |= dict(norm_reward=config.normalize)
    machine = _machine(config, agent, device, ray_address)
    return agent("RecurrentPolicy", _environments(config), policy_kwargs=_policy_kwargs(config), **settings, **machine)


def load_model(
    config: RunSettings, checkpoint: Path, device: str = "cpu", ray_address: str | None = None
) -> RecurrentOnPolicyAlgorithm:
    """The agent of a run from a checkpoint, ready to continue; ValueError if the file is damaged, or of another run."""
    find_cell(config.cell)  # a checkpoint imports nothing
    agent = _agent_class(config)
    model = agent.load(checkpoint, _environments(config), **_machine(config, agent, device, ray_address))
    wanted, policy = _policy_kwargs(config), model.policy
    if wanted != {name: getattr(policy, name) for name in wanted} | dict(cell=policy.cell_name):
        raise ValueError(f"{checkpoint} is of another run: its net is not that of the run's settings")
    return model


def _agent_class(config: RunSettings) -> type[RecurrentOnPolicyAlgorithm]:
    with ray_needed():
        return ENGINES[config.engine][config.algo].agent


def _machine(config: RunSettings, agent: type[RecurrentOnPolicyAlgorithm], device: str, address: str | None) -> dict[str, Any]:
    """The agent's arguments besides its settings: where it learns, and in which processes. The command sets Torch's threads."""
    given = dict(threads=torch.get_num_threads(), n_workers=config.workers, algorithm=config.algo, ray_address=address)
    return dict(device=device) | {name: given[name] for name in given if name in argument_defaults(agent)}


def _environments(config: RunSettings) -> Any:
    """The environments for the agent of a run, or a function that makes those of one worker if workers act apart."""
    of_worker = config.n_envs // config.workers
    if config.engine == "ray":
        return partial(make_vector_env, config.env, of_worker, autoreset_mode=AutoresetMode.NEXT_STEP)  # as RLlib needs them
    if config.acts_apart:
        return partial(_adapted, config, of_worker)
    return _adapted(config, config.n_envs, config.workers)


def _policy_kwargs(config: RunSettings) -> dict[str, Any]:
    names = [name for name in signature(RecurrentActorCriticPolicy).parameters if hasattr(config, name)]
    of_policy = {name: getattr(config, name) for name in names}
    return of_policy | dict(cell_kwargs=config.cell_options, norm_obs=bool(config.normalize))


def _adapted(config: RunSettings, n_envs: int, workers: int = 1, training: bool = True) -> VecEnv:
    of_catch = config.env.startswith("fw_rl/")  # others report their returns themselves, as they were before any wrapper
    env = VecEnvAdapter(make_vector_env(config.env, n_envs, workers, training=training), monitor=of_catch)
    return VecPreviousStep(env, reward=config.previous_reward) if config.previous_step else env


def evaluate(config: RunSettings, model: RecurrentOnPolicyAlgorithm, episodes: int, greedy: bool = True) -> NDArray[np.float64]:
    """The returns [episodes] of episodes with a seed of their own, greedy or with actions sampled as in training."""
    return np.array([episode.total for episode in _played(config, model, episodes, greedy)])


def _played(config: RunSettings, model: RecurrentOnPolicyAlgorithm, episodes: int, greedy: bool) -> Iterator[PlayedEpisode]:
    env = _adapted(config, min(episodes, EVALUATION_ENVS), training=False)
    seed = config.seed + 1_000_003
    env.seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield from Player(model).episodes(env, episodes, deterministic=greedy)
    env.close()


def evaluation_record(
    config: RunSettings, model: RecurrentOnPolicyAlgorithm, episodes: int, progress_bar: bool = False
) -> dict[str, Any]:
    """The content of eval.json: an evaluation by `episodes` greedy and as many sampled episodes."""
    with tqdm(
        total=2 * episodes, unit=" episodes", mininterval=0.5, disable=None if progress_bar else True, leave=False
    ) as bar:
        greedy, sampled = (_summary(config, _counted(_played(config, model, episodes, way), bar)) for way in (True, False))
    return greedy | dict(episodes=episodes, greedy=True, timesteps=model.num_timesteps, sampled=sampled)


def _counted(played: Iterable[PlayedEpisode], bar: tqdm) -> Iterator[PlayedEpisode]:
    for episode in played:
        bar.update()
        yield episode


def _summary(config: RunSettings, played: Iterable[PlayedEpisode]) -> dict[str, Any]:
    """Mean, interval and standard deviation of the returns of episodes, and how many of them were cut off.

    The interval is None for a single episode.
    """
    episodes = list(played)
    returns = np.array([episode.total for episode in episodes])
    mean, low, high = (float(number) for number in mean_interval(returns))
    cut_off = sum(was_cut_off(config.env, episode.length, episode.truncated) for episode in episodes)
    return dict(mean=mean, interval_95=None if math.isnan(low) else [low, high], std=float(returns.std()), cut_off=cut_off)


def load_trained(run: Path, checkpoint: Path | None = None) -> tuple[RunSettings, RecurrentOnPolicyAlgorithm]:
    """The settings of a run and its agent, by default the latest, without an environment; ValueError if there is none."""
    folder, config = RunFolder.open(run)
    find_cell(config.cell)  # a checkpoint imports nothing
    agent = RecurrentA2C if config.engine == "ray" else _agent_class(config)  # acting needs no Ray
    return config, agent.load(checkpoint or folder.last_checkpoint(), device="cpu")
