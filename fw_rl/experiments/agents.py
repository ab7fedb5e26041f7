"""The agent of a run: made anew, loaded from a checkpoint, evaluated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from fw_rl.agents import A3C, Player, RecurrentA2C, RecurrentPPO
from fw_rl.agents.normalization import describe_normalization, normalize_as
from fw_rl.cells import find_cell
from fw_rl.envs import VecEnvAdapter, VecPreviousStep
from fw_rl.experiments.environments import make_vector_env
from fw_rl.experiments.ray_engine import rllib_agent
from fw_rl.experiments.run_folder import RunFolder
from fw_rl.experiments.settings import NOT_ON_RAY, ONLY_PPO, RunSettings

__all__ = ["agent_class", "evaluate", "load_model", "load_trained", "make_model"]

EVALUATION_ENVS = 100


def make_model(config: RunSettings, device: str = "cpu", ray_address: str | None = None) -> RecurrentA2C:
    """A new agent for the settings of a run."""
    names = "learning_rate anneal anneal_entropy normalize_advantage n_steps gamma gae_lambda ent_coef vf_coef max_grad_norm"
    settings = {name: getattr(config, name) for name in [*names.split(), "matmul_precision", "optimizer", "seed"]}
    settings["policy_kwargs"] = dict(cell=config.cell, hidden_size=config.hidden_size, cell_kwargs=config.cell_options)
    if config.engine == "ray":
        for name in NOT_ON_RAY:
            del settings[name]
        return rllib_agent()("RecurrentPolicy", _make_runner_env(config), **_on_ray(config, ray_address), **settings)
    if config.algo == "a3c":
        return A3C("RecurrentPolicy", _make_env(config), n_workers=config.workers, device=device, **settings)
    if config.algo == "ppo":
        settings |= {name: getattr(config, name) for name in ONLY_PPO}
        return RecurrentPPO("RecurrentPolicy", _make_env(config)(), device=device, **settings)
    return RecurrentA2C("RecurrentPolicy", _make_env(config)(), device=device, **settings)


def load_model(config: RunSettings, checkpoint: Path, device: str = "cpu", ray_address: str | None = None) -> RecurrentA2C:
    """The agent of a run as a checkpoint has it, ready to go on.

    Raises ValueError if the checkpoint is damaged, or of another run.
    """
    model: RecurrentA2C
    find_cell(config.cell)  # a checkpoint imports nothing
    if config.engine == "ray":
        model = rllib_agent().load(checkpoint, _make_runner_env(config), **_on_ray(config, ray_address))
    elif config.algo == "a3c":
        model = A3C.load(checkpoint, _make_env(config), device=device, n_workers=config.workers)
    else:
        model = agent_class(config).load(checkpoint, _make_env(config)(), device=device)
    policy = model.policy
    if (policy.cell_name, policy.hidden_size, policy.cell_kwargs) != (config.cell, config.hidden_size, config.cell_options):
        raise ValueError(f"{checkpoint} is of another run: its net is not that of the run's settings")
    return model


def _make_env(config: RunSettings) -> Callable[[], VecEnv]:
    """What makes the environments of one process that acts: every worker of A3C, or all, if workers only step them."""
    if config.algo == "a3c":
        return partial(_adapted, config, config.n_envs // config.workers)
    make = _normalized if config.normalize else _adapted
    return partial(make, config, config.n_envs, config.workers)


def _adapted(config: RunSettings, n_envs: int, workers: int = 1) -> VecEnv:
    env = VecEnvAdapter(make_vector_env(config.env, n_envs, workers), monitor=True)
    return VecPreviousStep(env) if config.previous_step else env


def _normalized(config: RunSettings, n_envs: int, workers: int) -> VecEnv:
    env = _adapted(config, n_envs, workers)
    space = env.observation_space
    if not isinstance(space, spaces.Dict):
        return VecNormalize(env, norm_obs=_is_numbers(space), gamma=config.gamma)
    keys = [key for key, part in space.spaces.items() if _is_numbers(part)]
    return VecNormalize(env, norm_obs=bool(keys), norm_obs_keys=keys, gamma=config.gamma)


def _is_numbers(space: spaces.Space) -> bool:
    """Whether an observation can be scaled: an image is not, nor is a choice among some."""
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)


def _make_runner_env(config: RunSettings) -> Callable[[], VectorEnv]:
    """What makes the environments of a runner of Ray, as RLlib takes them."""
    return partial(make_vector_env, config.env, config.n_envs // config.workers, autoreset_mode=AutoresetMode.NEXT_STEP)


def _on_ray(config: RunSettings, address: str | None) -> dict[str, Any]:
    return dict(algorithm=config.algo, n_workers=config.workers, ray_address=address)


def evaluate(config: RunSettings, model: RecurrentA2C, episodes: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The returns of greedy episodes from a seed of their own."""
    env = _adapted(config, min(episodes, EVALUATION_ENVS))
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        env = normalize_as(env, describe_normalization(normalizer) | dict(training=False, norm_reward=False))
    env.seed(config.seed + 1_000_003)
    returns = Player(model).play(env, episodes)
    env.close()
    return returns


def agent_class(config: RunSettings) -> type[RecurrentA2C]:
    """The class of a run's agent without Ray, where what RLlib has trained is a `RecurrentA2C`."""
    local: dict[str, type[RecurrentA2C]] = {"a3c": A3C, "ppo": RecurrentPPO}
    return local.get(config.algo, RecurrentA2C) if config.engine == "local" else RecurrentA2C


def load_trained(run: Path, checkpoint: Path | None = None) -> tuple[RunSettings, RecurrentA2C]:
    """The settings of a run, and its agent without an environment, from its last checkpoint or from another file.

    Raises ValueError if there is no run, no checkpoint, or a damaged one.
    """
    folder, config = RunFolder.open(run)
    find_cell(config.cell)  # a checkpoint imports nothing
    if checkpoint is None:
        saved = folder.saved_checkpoints()
        if not saved:
            raise ValueError(f"{run} has no checkpoint: its training has hardly begun")
        checkpoint = saved[-1]
    return config, agent_class(config).load(checkpoint, device="cpu")
