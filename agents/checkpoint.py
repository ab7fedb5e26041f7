"""Checkpoints: an agent, trained or half-trained, in one safetensors file.

Reading a file runs no code from it: see `fw_rl.agents.document`. What it names is looked up among the classes there, the
registered cells and the agent's policies. `fw_rl.agents.restore` makes an agent of what was read.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from gymnasium import spaces
from torch import Tensor, nn

from fw_rl.agents.document import (
    CheckpointError,
    Json,
    describe_space,
    make_space,
    one_line,
    pack,
    pack_what_can_be,
    parse_json,
    problems_named,
    read_file,
    unpack,
)
from fw_rl.agents.normalization import describe_normalization
from fw_rl.agents.running_episodes import describe_episodes
from fw_rl.files import write_file

if TYPE_CHECKING:
    from fw_rl.agents.a2c import RecurrentA2C

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "argument_names",
    "checkpoint_path",
    "constructor_arguments",
    "policy_parameters",
    "read_checkpoint",
    "write_checkpoint",
]

FORMAT, VERSION, SUFFIX = "fw_rl", 1, ".safetensors"

NUMBER = int | float | np.bool_ | np.integer | np.floating
COUNTERS = ("num_timesteps", "_total_timesteps", "_current_progress_remaining", "_n_updates", "_episode_num")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    `arguments`: those of the agent's constructor, without `env`, `device` and `policy_kwargs`. `not_stored`: names of what a
    file cannot hold. `policy`: its parameters by name. `counters`: attributes of the agent that count its steps.
    `optimizer_state`: Torch's state dict. `statistics`: the last episodes, for logging. `random_state`: that of the global
    generators. `episodes`: how far the running episodes are. `normalization`: settings and statistics of a `VecNormalize`. The
    last five are None where there was none.
    """

    path: Path
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


def checkpoint_path(path: str | os.PathLike[str]) -> Path:
    """The path with the ending .safetensors, which also takes the place of SB3's .zip.

    >>> [checkpoint_path(name).name for name in ("agent", "agent.zip", "agent-0.5", "agent.safetensors")]
    ['agent.safetensors', 'agent.safetensors', 'agent-0.5.safetensors', 'agent.safetensors']
    """
    path = Path(path)
    return path if path.suffix == SUFFIX else path.with_name(path.name.removesuffix(".zip") + SUFFIX)


def write_checkpoint(path: str | os.PathLike[str], model: RecurrentA2C, include_state: bool | None = None) -> Path:
    """Write all of an agent into one file, which gets its name only when it is whole; returns its path.

    `include_state`: see `RecurrentA2C.save`.

    What a file cannot hold, such as a learning rate that is a function, is left out with a warning.
    """
    path = checkpoint_path(path)
    document, tensors = _describe(model, include_state)
    if document["not_stored"]:
        names = ", ".join(document["not_stored"])
        warnings.warn(f"a checkpoint cannot hold {names}: `load` takes arguments again, the rest begins anew", stacklevel=3)
    metadata = dict(format=FORMAT, version=str(VERSION), json=json.dumps(document, allow_nan=False))
    write_file(path, safetensors.torch.save(tensors, metadata))
    return path


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint file, by the name that `write_checkpoint` gives it or by any other that it has.

    Raises CheckpointError if there is no such file or if it is not a whole checkpoint.

    >>> checkpoint = read_checkpoint("agent.safetensors")  # doctest: +SKIP
    >>> checkpoint.counters["num_timesteps"], checkpoint.policy_kwargs["cell"]  # doctest: +SKIP
    (1000000, 'fast-weights')
    """
    literal, path = Path(path), checkpoint_path(path)
    if literal.is_file() and not path.exists():
        path = literal
    metadata, tensors = read_file(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of {FORMAT}")
    with problems_named(f"{path} is damaged"):
        version = int(metadata["version"])
        if version > VERSION:
            raise CheckpointError(f"{path} is of version {version}: this {FORMAT} reads no later one than {VERSION}")
        return _parse(path, parse_json(metadata["json"]), tensors)


def _describe(model: RecurrentA2C, include_state: bool | None) -> tuple[dict[str, Json], dict[str, Tensor]]:
    required = dict(
        observation_space=describe_space(model.observation_space),
        action_space=describe_space(model.action_space),
        n_envs=model.n_envs,
        policy=policy_parameters(model.policy),
        counters={name: getattr(model, name) for name in COUNTERS},
    )
    optional = dict(
        optimizer_state=model.policy.optimizer.state_dict(),
        statistics=_statistics(model),
        random_state=_random_state(model.device),
        episodes=None if include_state is False else describe_episodes(model, in_any_case=bool(include_state)),
        normalization=None if model._vec_normalize_env is None else describe_normalization(model._vec_normalize_env),
    )
    arguments = constructor_arguments(model)
    policy_kwargs = arguments.pop("policy_kwargs", {})

    tensors: dict[str, Tensor] = {}
    not_stored: list[str] = []
    document = {name: pack(value, name, tensors) for name, value in required.items()}
    document |= pack_what_can_be(optional, "", tensors, not_stored)
    document["arguments"] = pack_what_can_be(arguments, "", tensors, not_stored)
    document["policy_kwargs"] = pack_what_can_be(policy_kwargs, "policy_kwargs.", tensors, not_stored)
    document["not_stored"] = not_stored
    return document, tensors


def constructor_arguments(model: RecurrentA2C) -> dict[str, Any]:
    """The arguments that the agent keeps as attributes, and its policy by its alias."""
    attributes = vars(model)
    values = {}
    for name in argument_names(type(model)):
        for attribute in (name, f"_{name}"):
            if attribute in attributes:
                values[name] = attributes[attribute]
    aliases = {policy_class: alias for alias, policy_class in model.policy_aliases.items()}
    return values | dict(policy=aliases.get(model.policy_class, model.policy_class))


def argument_names(agent_class: type[RecurrentA2C]) -> list[str]:
    """What the constructor takes, also by handing it on as **kwargs; not what belongs to the machine rather than the agent."""
    names: list[str] = []
    for constructor in (vars(ancestor)["__init__"] for ancestor in agent_class.__mro__ if "__init__" in vars(ancestor)):
        parameters = inspect.signature(constructor).parameters.values()
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in dict.fromkeys(names) if name not in ("self", "env", "device", "_init_setup_model")]


def policy_parameters(policy: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; what several modules share has its first name only."""
    unique: dict[int, tuple[str, Tensor]] = {}
    for name, part in policy.state_dict(keep_vars=True).items():
        unique.setdefault(id(part), (name, part))
    return dict(unique.values())


def _statistics(model: RecurrentA2C) -> dict[str, list[Any]] | None:
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


def _parse(path: Path, document: Json, tensors: dict[str, Tensor]) -> Checkpoint:
    left = dict(tensors)
    tree = unpack(document, left)
    if left:
        raise CheckpointError(f"{path} has the tensor {min(left)!r}, which its description does not name")
    checkpoint = Checkpoint(
        path=path,
        arguments=_typed(tree, "arguments", dict),
        policy_kwargs=_typed(tree, "policy_kwargs", dict),
        not_stored=[str(name) for name in _typed(tree, "not_stored", list)],
        observation_space=make_space(tree["observation_space"]),
        action_space=make_space(tree["action_space"]),
        n_envs=_typed(tree, "n_envs", int),
        policy=_typed(tree, "policy", dict),
        counters={name: _typed(tree["counters"], name, int | float) for name in COUNTERS},
        optimizer_state=_typed(tree, "optimizer_state", dict | None),
        statistics=_typed(tree, "statistics", dict | None),
        random_state=_typed(tree, "random_state", dict | None),
        episodes=_typed(tree, "episodes", dict | None),
        normalization=_typed(tree, "normalization", dict | None),
    )
    for name in checkpoint.policy:
        _typed(checkpoint.policy, name, Tensor)
    return checkpoint


def _typed(tree: dict[str, Any], name: str, kind: Any) -> Any:
    value = tree.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name!r} is {one_line(repr(value))}")
    return value
