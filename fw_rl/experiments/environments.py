"""Environments by the names that the command line takes; also in worker processes, so that this imports little."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv

from fw_rl.envs import ParallelVectorEnv, catch_id
from fw_rl.modules import import_for

__all__ = ["environment_id", "make_vector_env"]


def environment_id(name: str) -> str:
    """The Gymnasium id of a short Catch name, an id, or module:id, whose module is imported; ValueError if there is none."""
    own_id = import_for(name, "environment")
    if own_id.removeprefix("fw_rl/").startswith("Catch-") and own_id != "fw_rl/Catch-v0":
        return catch_id(own_id)
    try:
        gym.spec(own_id)
    except gym.error.Error as error:
        known = "Catch-N-M, the id of a Gymnasium environment, or module:id for one that a module registers"
        raise ValueError(f"env must be {known}, got {name!r}") from error
    return name.removeprefix(":")


def make_vector_env(
    name: str, n_envs: int, workers: int = 1, autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP
) -> VectorEnv:
    """Environments side by side, stepped by so many processes: those of Catch in arrays, others one by one."""
    if workers > 1:
        return ParallelVectorEnv(partial(make_vector_env, name, autoreset_mode=autoreset_mode), n_envs, workers)
    env_id = environment_id(name)
    autoreset: dict[str, Any] = dict(autoreset_mode=autoreset_mode)
    if env_id.startswith("fw_rl/"):
        return gym.make_vec(env_id, num_envs=n_envs, vectorization_mode="vector_entry_point", **autoreset)
    return gym.make_vec(env_id, num_envs=n_envs, vectorization_mode="sync", vector_kwargs=autoreset)
