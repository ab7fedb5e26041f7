"""Environments by their names on the command line, as agents accept them. It imports little, since workers use it too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import FilterObservation, FlattenObservation, RecordEpisodeStatistics, TimeLimit, TransformObservation

from fw_rl.envs import ParallelVectorEnv, catch_id, retrieval_id
from fw_rl.modules import import_for, reason, without_module

__all__ = [
    "EVALUATION_STEPS",
    "changes_to_observations",
    "draw_without_screen",
    "environment_id",
    "make_env",
    "make_vector_env",
    "was_cut_off",
]

EVALUATION_STEPS = 10_000
"""Steps after which an evaluation cuts off an episode without a time limit: an untrained agent may never end it."""


def environment_id(name: str) -> str:
    """The Gymnasium id for a short name of one of our games, an id, or module:id, whose module is imported.

    ValueError if there is none.
    """
    own_id = import_for(name, "environment")
    module = name.rpartition(":")[0]
    if own_id not in gym.registry and module.partition(".")[0] in ("", "fw_rl"):
        short = own_id.removeprefix("fw_rl/")
        for prefix, find in (("Catch-", catch_id), ("Retrieval-", retrieval_id)):
            if short.startswith(prefix):
                return find(own_id)
        if f"fw_rl/{short}-v0" in gym.registry:
            return f"fw_rl/{short}-v0"
    try:
        gym.spec(own_id)
    except gym.error.Error as error:
        known = "Catch-N-M, RepeatFirstEasy, the id of a Gymnasium environment, or module:id for one that a module registers"
        raise ValueError(f"env must be {known}, got {name!r}: {_advice(module, own_id, error)}") from error
    return own_id if own_id.startswith("fw_rl/") else name.removeprefix(":")


def _advice(module: str, own_id: str, error: gym.error.Error) -> str:
    """Gymnasium's message, or for an id without a module the package that its first word names."""
    first = own_id.replace("/", "-").partition("-")[0].lower()
    package = dict(ale="ale_py").get(first, first)
    if isinstance(error, gym.error.DeprecatedEnv | gym.error.VersionNotFound) or module or not package.isidentifier():
        return reason(error)
    return f"perhaps {package}:{own_id}" if find_spec(package) else reason(error)


def draw_without_screen() -> None:
    """Keep pygame from looking for a screen and loudspeakers, and from complaining where there are none."""
    for driver in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
        os.environ.setdefault(driver, "dummy")


def make_vector_env(
    name: str,
    n_envs: int,
    workers: int = 1,
    autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
    training: bool = True,
) -> VectorEnv:
    """Environments side by side, stepped by `workers` processes: our games in arrays, others one by one."""
    if workers > 1:
        share = partial(make_vector_env, name, autoreset_mode=autoreset_mode, training=training)
        return ParallelVectorEnv(share, n_envs, workers)
    env_id = environment_id(name)
    if env_id.startswith("fw_rl/"):
        vector_kwargs: dict[str, Any] = dict(autoreset_mode=autoreset_mode)
        return gym.make_vec(env_id, num_envs=n_envs, vectorization_mode="vector_entry_point", **vector_kwargs)
    with _made_without_arguments(name):
        return SyncVectorEnv([partial(make_env, name, training)] * n_envs, autoreset_mode=autoreset_mode)


def make_env(name: str, training: bool, note: Callable[[str], None] = lambda line: None, **options: Any) -> gym.Env:
    """One environment with observations that agents accept, and with return and length in the infos of an ended episode.

    It calls `note` with a line for each change. Without `training` rewards are unchanged, and every episode ends.
    """
    env_id = environment_id(name)
    spec = gym.spec(without_module(env_id))
    atari = "ale_py" in str(spec.entry_point)
    if atari:
        options = dict(frameskip=1) | options  # SB3's wrapper skips frames, so the game must not
    env: gym.Env = gym.make(env_id, **options)
    if not training and spec.max_episode_steps is None:
        env = TimeLimit(env, EVALUATION_STEPS * (4 if atari else 1))  # of which the agent sees every fourth
    env = RecordEpisodeStatistics(env)
    if atari and len(env.observation_space.shape or ()) == 3:  # else it shows the console's memory
        from stable_baselines3.common.atari_wrappers import AtariWrapper

        note("Atari is prepared by SB3's AtariWrapper: 84 x 84 grey pixels, a lost life is an end, rewards are signs")
        env = AtariWrapper(env, clip_reward=training)
    if str(spec.entry_point).startswith("minigrid."):
        from minigrid.wrappers import OneHotPartialObsWrapper

        note("MiniGrid's cells are one-hot by its OneHotPartialObsWrapper: object, color and state are choices")
        env = OneHotPartialObsWrapper(env)
    return TransformObservation(_simplified(env, note), deepcopy, None)  # it may return the same array at every step


def was_cut_off(name: str, length: int, truncated: bool) -> bool:
    """Whether only the limit of `EVALUATION_STEPS` ended an episode of an evaluation."""
    is_long = truncated and length >= EVALUATION_STEPS
    return is_long and gym.spec(without_module(environment_id(name))).max_episode_steps is None


def changes_to_observations(name: str) -> list[str]:
    """A line for each change that makes the observations of an environment acceptable to agents; none for our games.

    ValueError if the environment cannot be made, or fails at its first steps.
    """
    lines: list[str] = []
    if environment_id(name).startswith("fw_rl/"):
        return lines
    with _made_without_arguments(name):
        env = make_env(name, True, lines.append)
    try:
        _check_shape(env.observation_space, env.reset(seed=0)[0])
        _check_shape(env.observation_space, env.step(env.action_space.sample())[0])
    except (Exception, SystemExit) as error:  # as above
        what = f"env must be one that can be reset and stepped, got {name!r}"
        raise ValueError(f"{what}: {type(error).__name__}: {reason(error)}") from error
    finally:
        with suppress(Exception):
            env.close()
    return lines


def _check_shape(space: spaces.Space, observation: Any) -> None:
    """ValueError for an observation that no array of its space can hold."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            _check_shape(part, observation[key])
    elif space.shape is not None and np.shape(observation) != space.shape:
        raise ValueError(f"observations must have the shape {space.shape}, got {np.shape(observation)}")


@contextmanager
def _made_without_arguments(name: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # whatever an environment may do, also one of the user's own
        raise ValueError(f"env must be one that can be made without arguments, got {name!r}: {reason(error)}") from error


def _simplified(env: gym.Env, note: Callable[[str], None]) -> gym.Env:
    """The environment with observations without text and without nested parts."""
    space = env.observation_space
    if not isinstance(space, spaces.Dict):
        if not _is_nested(space):
            return env
        note(f"Observations are flattened: they are a {type(space).__name__}")
        return FlattenObservation(env)
    texts = [key for key, part in space.spaces.items() if isinstance(part.sample(), str)]
    if texts:
        note(f"Text is left out of observations: {', '.join(texts)}")
        env = FilterObservation(env, [key for key in space.spaces if key not in texts])
    nested = {key: part for key, part in space.spaces.items() if _is_nested(part)}
    if nested:
        note(f"Parts of observations are flattened: {', '.join(nested)}")
        flat = {key: spaces.flatten_space(part) for key, part in nested.items()}
        parts = {key: part for key, part in space.spaces.items() if key not in texts}
        env = TransformObservation(env, partial(_flatten_parts, nested), spaces.Dict(parts | flat))
    return env


def _is_nested(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Dict | spaces.Tuple) and space.is_np_flattenable


def _flatten_parts(nested: dict[str, spaces.Space], observation: dict[str, Any]) -> dict[str, Any]:
    return observation | {key: spaces.flatten(part, observation[key]) for key, part in nested.items()}
