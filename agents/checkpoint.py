"""Checkpoints: an agent, trained or half-trained, in one safetensors file.

What a file names is looked up among the classes of `fw_rl.document`, the registered cells and the agent's policies;
nothing in it is run. `fw_rl.agents.restore` makes an agent of what was read.
"""

from __future__ import annotations

import inspect
import os
import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common import torch_layers
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor, nn

from fw_rl.agents.normalization import describe_normalization
from fw_rl.agents.spaces import describe_space, make_space
from fw_rl.document import (
    CheckpointError,
    allow_classes,
    one_line,
    pack,
    pack_if_possible,
    problems_named,
    read_document,
    write_document,
)

__all__ = ["Checkpoint", "CheckpointError", "checkpoint_path", "read_checkpoint"]

SUFFIX = ".safetensors"
allow_classes(torch_layers)

NUMBER = int | float | np.bool_ | np.integer | np.floating
COUNTERS = ("num_timesteps", "_total_timesteps", "_current_progress_remaining", "_n_updates", "_episode_num")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds; the last five are None where there was none.

    Attributes:
        path: The file.
        arguments: Those of the agent's constructor, without `env`, `device` and `policy_kwargs`.
        policy_kwargs: Those of the policy's constructor.
        not_stored: Names of what a file cannot hold.
        observation_space: The agent's.
        action_space: The agent's.
        n_envs: Environments.
        policy: The policy's parameters by name.
        counters: Attributes of the agent that count its steps.
        optimizer_state: Torch's state dict.
        statistics: The last episodes, for logging.
        random_state: That of the global generators.
        episodes: How far the running episodes are.
        normalization: Settings and statistics of a `VecNormalize`.
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

    Examples:
        >>> [checkpoint_path(name).name for name in ("agent", "agent.zip", "agent-0.5", "agent.safetensors")]
        ['agent.safetensors', 'agent.safetensors', 'agent-0.5.safetensors', 'agent.safetensors']
    """
    path = Path(path)
    return path if path.suffix == SUFFIX else path.with_name(path.name.removesuffix(".zip") + SUFFIX)


def write_checkpoint(path: str | os.PathLike[str], model: OnPolicyAlgorithm, episodes: dict[str, Any] | None) -> None:
    """Write all of an agent into one file, which gets its name only when it is whole.

    What a file cannot hold, such as a learning rate that is a function, is left out with a warning.
    """
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
        episodes=episodes,
        normalization=None if model._vec_normalize_env is None else describe_normalization(model._vec_normalize_env),
    )
    arguments = constructor_arguments(model)
    policy_kwargs = arguments.pop("policy_kwargs", {})

    tensors: dict[str, Tensor] = {}
    not_stored: list[str] = []
    document = {name: pack(value, name, tensors) for name, value in required.items()}
    document |= pack_if_possible(optional, "", tensors, not_stored)
    document["arguments"] = pack_if_possible(arguments, "", tensors, not_stored)
    document["policy_kwargs"] = pack_if_possible(policy_kwargs, "policy_kwargs.", tensors, not_stored)
    document["not_stored"] = not_stored
    if not_stored:
        names = ", ".join(not_stored)
        warnings.warn(f"a checkpoint cannot hold {names}: `load` takes arguments again, the rest begins anew", stacklevel=3)
    write_document(checkpoint_path(path), document, tensors)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint file.

    Args:
        path: File, with the ending .safetensors or without it; a file with any other name is read too.

    Raises:
        CheckpointError: If there is no such file or if it is not a whole checkpoint.

    Examples:
        >>> checkpoint = read_checkpoint("agent.safetensors")  # doctest: +SKIP
        >>> checkpoint.counters["num_timesteps"], checkpoint.policy_kwargs["cell"]  # doctest: +SKIP
        (1000000, 'fast-weights')
    """
    literal, path = Path(path), checkpoint_path(path)
    if literal.is_file() and not path.exists():
        path = literal
    tree = read_document(path)
    with problems_named(f"{path} is damaged"):
        kinds = dict(arguments=dict, policy_kwargs=dict, not_stored=list, n_envs=int, policy=dict)
        optional = ("optimizer_state", "statistics", "random_state", "episodes", "normalization")
        values = {name: _typed(tree, name, kind) for name, kind in (kinds | dict.fromkeys(optional, dict | None)).items()}
        values["not_stored"] = [str(name) for name in values["not_stored"]]
        for name in values["policy"]:
            _typed(values["policy"], name, Tensor)
        return Checkpoint(
            path=path,
            observation_space=make_space(tree["observation_space"]),
            action_space=make_space(tree["action_space"]),
            counters={name: _typed(tree["counters"], name, int | float) for name in COUNTERS},
            **values,
        )


def _typed(tree: dict[str, Any], name: str, kind: Any) -> Any:
    value = tree.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name!r} is {one_line(repr(value))}")
    return value


def constructor_arguments(model: OnPolicyAlgorithm) -> dict[str, Any]:
    """The constructor's arguments that the agent keeps as attributes, with its policy by its alias."""
    attributes, names = vars(model), argument_defaults(type(model))
    values = {name: attributes[key] for name in names for key in (name, f"_{name}") if key in attributes}
    aliases = {policy_class: alias for alias, policy_class in model.policy_aliases.items()}
    return values | dict(policy=aliases.get(model.policy_class, model.policy_class))


def argument_defaults(agent_class: type[OnPolicyAlgorithm]) -> dict[str, Any]:
    """What the constructor takes, also by its **kwargs, with its default; without what belongs to the machine."""
    defaults: dict[str, Any] = {}
    for constructor in (vars(ancestor)["__init__"] for ancestor in agent_class.__mro__ if "__init__" in vars(ancestor)):
        parameters = inspect.signature(constructor).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} | defaults
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return {name: value for name, value in defaults.items() if name not in ("self", "env", "device", "_init_setup_model")}


def policy_parameters(policy: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; what several modules share has its first name only."""
    unique: dict[int, tuple[str, Tensor]] = {}
    for name, part in policy.state_dict(keep_vars=True).items():
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
