"""Checkpoints: an agent, trained or half-trained, in one file.

Names in a file are looked up among the classes of `fw_rl.document`, the registered cells and the agent's policies; nothing in
it is run. `fw_rl.agents.restore` makes an agent from what was read.
"""

from __future__ import annotations

import os
import platform
import random
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common import torch_layers
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import unwrap_vec_normalize
from torch import Tensor, nn

from fw_rl.agents.normalization import describe_normalization
from fw_rl.agents.schedules import describe_schedule, make_schedule
from fw_rl.agents.spaces import describe_space, make_space
from fw_rl.arguments import constructor_parameters
from fw_rl.document import (
    CheckpointError,
    allow_classes,
    name_of,
    one_line,
    pack,
    pack_if_possible,
    problems_named,
    read_document,
    write_document,
)

__all__ = ["Checkpoint", "CheckpointError", "read_checkpoint", "versions"]

PACKAGES = ("fw-rl", "torch", "gymnasium", "stable-baselines3", "sb3-contrib", "numpy", "ray")
allow_classes(torch_layers)

NUMBER = int | float | np.bool_ | np.integer | np.floating
FIELDS = dict(
    ep_info_buffer="statistics", ep_success_buffer="statistics", _last_obs="episodes", _vec_normalize_env="normalization"
)
"""What holds the attributes of an SB3 agent that may be excluded from its file."""

COUNTERS = (
    *("num_timesteps", "_total_timesteps", "_current_progress_remaining", "_n_updates", "_episode_num"),
    *("learning_rate_factor", "learning_rate_falls"),
)
"""Attributes of an agent, if it has them, that record its progress."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds; the last five are None where there was none.

    Attributes:
        path: The file, or the name of an open file.
        versions: Versions of the packages it was saved with, by name.
        arguments: Arguments of the agent's constructor, without `env`, `device` and `policy_kwargs`.
        policy_kwargs: Arguments of the policy's constructor.
        not_stored: Names of what a file cannot hold.
        observation_space: The agent's.
        action_space: The agent's.
        n_envs: Number of environments.
        policy: The policy's parameters by name.
        counters: The agent's `COUNTERS`.
        optimizer_state: Torch's state dict.
        statistics: The last episodes, for logging.
        random_state: State of the global generators.
        episodes: Progress of the running episodes.
        normalization: Settings and statistics of a `VecNormalize`.
    """

    path: str
    versions: dict[str, str]
    arguments: dict[str, Any]
    policy_kwargs: dict[str, Any]
    not_stored: list[str]
    observation_space: spaces.Space
    action_space: spaces.Space
    n_envs: int
    policy: dict[str, Tensor]
    counters: dict[str, int | float]
    optimizer_state: dict[str, Any] | None
    statistics: dict[str, list[Any]] | None
    random_state: dict[str, Any] | None
    episodes: dict[str, Any] | None
    normalization: dict[str, Any] | None


def write_checkpoint(
    path: str | os.PathLike[str] | BinaryIO,
    model: OnPolicyAlgorithm,
    episodes: dict[str, Any] | None,
    exclude: Iterable[str] = (),
    include: Iterable[str] = (),
) -> None:
    """Write an agent, except what is excluded, into one file, which gets its name only when it is complete.

    What a file cannot hold, such as a learning rate that is a function, is left out with a warning.
    """
    left_out = {FIELDS.get(name, name) for name in set(exclude).difference(include)}
    normalizer = model.get_vec_normalize_env()
    required = dict(
        versions=versions(),
        observation_space=describe_space(model.observation_space),
        action_space=describe_space(model.action_space),
        n_envs=model.n_envs,
        policy=policy_parameters(model.policy),
        counters={name: getattr(model, name) for name in COUNTERS if name not in left_out and hasattr(model, name)},
    )
    optional = dict(
        optimizer_state=model.policy.optimizer.state_dict(),
        statistics=_statistics(model),
        random_state=_random_state(model.device),
        episodes=episodes,
        normalization=None if normalizer is None else describe_normalization(normalizer),
    )
    optional |= dict.fromkeys(left_out & optional.keys())
    arguments = {name: value for name, value in constructor_arguments(model).items() if name not in left_out - {"policy"}}
    policy_kwargs = arguments.pop("policy_kwargs", {})
    described = {name: describe_schedule(value) for name, value in arguments.items()}
    schedules = {name: numbers for name, numbers in described.items() if numbers is not None}

    tensors: dict[str, Tensor] = {}
    held = {*required, *optional, *arguments, "policy_kwargs", *FIELDS, *COUNTERS}
    not_stored = sorted({name for name in include if name not in held and hasattr(model, name)})
    if normalizer is not None and unwrap_vec_normalize(normalizer.venv) is not None:
        not_stored.append("the inner VecNormalize")
    document = {name: pack(value, name, tensors) for name, value in required.items()}
    document |= pack_if_possible(optional, "", tensors, not_stored)
    document["schedules"] = pack_if_possible(schedules, "", tensors, not_stored)
    rest = {name: value for name, value in arguments.items() if name not in schedules}
    document["arguments"] = pack_if_possible(rest, "", tensors, not_stored)
    document["policy_kwargs"] = pack_if_possible(policy_kwargs, "policy_kwargs.", tensors, not_stored)
    document["not_stored"] = not_stored
    if not_stored:
        names = ", ".join(not_stored)
        warnings.warn(f"a checkpoint cannot hold {names}: `load` takes arguments again, the rest begins anew", stacklevel=3)
    write_document(_file_to_write(path), document, tensors)


def read_checkpoint(path: str | os.PathLike[str] | BinaryIO) -> Checkpoint:
    """Read a checkpoint file.

    Args:
        path: The file, with or without its ending .zip, or one opened in binary mode.

    Raises:
        CheckpointError: If there is no such file or if it is not a complete checkpoint.

    Examples:
        >>> checkpoint = read_checkpoint("agent.zip")  # doctest: +SKIP
        >>> checkpoint.counters["num_timesteps"], checkpoint.policy_kwargs["cell"]  # doctest: +SKIP
        (1000000, 'fast-weights')
    """
    file = _file_to_read(path)
    tree = read_document(file)
    with problems_named(f"{name_of(file)} is damaged"):
        kinds = dict(versions=dict, arguments=dict, policy_kwargs=dict, not_stored=list, n_envs=int, policy=dict)
        optional = ("optimizer_state", "statistics", "random_state", "episodes", "normalization")
        values = {name: _typed(tree, name, kind) for name, kind in (kinds | dict.fromkeys(optional, dict | None)).items()}
        values["arguments"] |= {name: make_schedule(numbers) for name, numbers in tree["schedules"].items()}
        values["not_stored"] = [str(name) for name in values["not_stored"]]
        for name in values["policy"]:
            _typed(values["policy"], name, Tensor)
        return Checkpoint(
            path=name_of(file),
            observation_space=make_space(tree["observation_space"]),
            action_space=make_space(tree["action_space"]),
            counters={name: _typed(tree["counters"], name, int | float) for name in COUNTERS if name in tree["counters"]},
            **values,
        )


def _file_to_write(path: str | os.PathLike[str] | BinaryIO) -> Path | BinaryIO:
    if not isinstance(path, str | os.PathLike):
        return path
    path = Path(path)
    return path if path.suffix else path.with_name(f"{path.name}.zip")


def _file_to_read(path: str | os.PathLike[str] | BinaryIO) -> Path | BinaryIO:
    if not isinstance(path, str | os.PathLike):
        if path.seekable():
            path.seek(0)  # as SB3, which reads what it has just written
        return path
    path = Path(path)
    with_ending = path.with_name(f"{path.name}.zip")
    return with_ending if with_ending.is_file() and not path.is_file() else path


def versions() -> dict[str, str]:
    """The versions of what a checkpoint or a run depends on, by name."""
    return dict(system=platform.platform(), python=platform.python_version()) | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def print_versions(checkpoint: Checkpoint) -> None:
    """Print the installed versions, and those a checkpoint was saved with, under SB3's headings."""
    for heading, by_name in (("CURRENT", versions()), ("SAVED MODEL", checkpoint.versions)):
        print(f"== {heading} SYSTEM INFO ==", *(f"- {name}: {of}" for name, of in by_name.items()), "", sep="\n")


def _typed(tree: dict[str, Any], name: str, kind: Any) -> Any:
    value = tree.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name!r} is {one_line(repr(value))}")
    return value


def constructor_arguments(model: OnPolicyAlgorithm) -> dict[str, Any]:
    """The constructor's arguments that the agent keeps as attributes, with the policy given by its alias."""
    attributes, names = vars(model), argument_defaults(type(model))
    values = {name: attributes[key] for name in names for key in (name, f"_{name}") if key in attributes}
    aliases = {policy_class: alias for alias, policy_class in model.policy_aliases.items()}
    return values | dict(policy=aliases.get(model.policy_class, model.policy_class))


def argument_defaults(agent_class: type[OnPolicyAlgorithm]) -> dict[str, Any]:
    """The constructor's arguments, including its **kwargs, with their defaults; without those specific to the machine."""
    of_machine = ("self", "env", "device", "_init_setup_model")
    parameters = constructor_parameters(agent_class)
    return {name: parameter.default for name, parameter in parameters.items() if name not in of_machine}


def policy_parameters(policy: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, compiled or not; what several modules share has only its first name."""
    unique: dict[int, tuple[str, Tensor]] = {}
    for name, part in getattr(policy, "_orig_mod", policy).state_dict(keep_vars=True).items():
        unique.setdefault(id(part), (name, part))
    return dict(unique.values())


def _statistics(model: OnPolicyAlgorithm) -> dict[str, list[Any]] | None:
    if model.ep_info_buffer is None or model.ep_success_buffer is None:
        return None
    return dict(
        episodes=[
            {key: value for key, value in episode.items() if isinstance(value, NUMBER)} for episode in model.ep_info_buffer
        ],
        successes=[float(success) for success in model.ep_success_buffer if isinstance(success, NUMBER)],
    )


def _random_state(device: torch.device) -> dict[str, Any]:
    return dict(
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        numpy=np.random.get_state(),  # noqa: NPY002 (SB3 draws from the global generator)
        python=random.getstate(),
    )
