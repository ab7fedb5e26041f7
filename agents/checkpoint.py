"""Checkpoints: an agent, trained or half-trained, in one safetensors file.

Reading a file runs no code from it: see `fw_rl.agents.document`. What it names is looked up among the classes there, the
registered cells and the agent's policies.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import sys
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor, nn

from fw_rl.agents.document import (
    CLASS_NAMES,
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
from fw_rl.agents.normalization import describe_normalization, normalize_as, normalize_nothing_as, restore_normalization
from fw_rl.agents.running_episodes import describe_episodes, restore_episodes
from fw_rl.cells import available_cells
from fw_rl.files import write_file

if TYPE_CHECKING:
    from fw_rl.agents.a2c import RecurrentA2C

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "build_agent",
    "checkpoint_path",
    "constructor_arguments",
    "read_checkpoint",
    "write_checkpoint",
]

FORMAT, VERSION, SUFFIX = "fw_rl", 1, ".safetensors"

NUMBER = int | float | np.bool_ | np.integer | np.floating
COUNTERS = ("num_timesteps", "_total_timesteps", "_current_progress_remaining", "_n_updates", "_episode_num")
OPTIMIZER_KWARGS = ("policy_kwargs.optimizer_class", "policy_kwargs.optimizer_kwargs")

_Agent = TypeVar("_Agent", bound="RecurrentA2C")


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


def build_agent(
    agent_class: type[_Agent],
    checkpoint: Checkpoint,
    env: Any = None,
    device: torch.device | str = "auto",
    overrides: Mapping[str, Any] | None = None,
) -> _Agent:
    """The agent of a checkpoint, ready to go on where it was; see `RecurrentA2C.load`.

    Raises CheckpointError if the checkpoint does not fit the environment, the overrides or itself, and ValueError for an
    override that is no argument of the agent.
    """
    overrides = overrides or {}
    arguments = _merge_arguments(agent_class, checkpoint, overrides, predicts_only=env is None)
    if env is not None:
        env = agent_class._wrap_env(env, monitor_wrapper=arguments.get("monitor_wrapper", True))
        with problems_named(f"{checkpoint.path}: its environment cannot be normalized"):
            env = agent_class._wrap_env(_normalized(env, checkpoint.normalization))
        _check_spaces(checkpoint, env)
    with problems_named(f"{checkpoint.path}: its agent cannot be built"):
        model = _construct(agent_class, checkpoint, arguments, env, device, seed=overrides.get("seed"))
    with problems_named(f"{checkpoint.path}: its agent cannot be restored"):
        _load_parameters(model.policy, checkpoint)
        if not _changes_optimizer(checkpoint, overrides):
            _load_optimizer(model.policy.optimizer, checkpoint)
        _load_counters(model, checkpoint)
        if env is None and checkpoint.normalization is not None:
            model._vec_normalize_env = normalize_nothing_as(
                model.observation_space, model.action_space, model.n_envs, checkpoint.normalization
            )
        if env is not None and "seed" not in overrides:
            _continue_episodes(model, checkpoint)
    return model


# From an agent to a document and its tensors.


def _describe(model: RecurrentA2C, include_state: bool | None) -> tuple[dict[str, Json], dict[str, Tensor]]:
    required = dict(
        observation_space=describe_space(model.observation_space),
        action_space=describe_space(model.action_space),
        n_envs=model.n_envs,
        policy=_parameters(model.policy),
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
    for name in _argument_names(type(model)):
        for attribute in (name, f"_{name}"):
            if attribute in attributes:
                values[name] = attributes[attribute]
    aliases = {policy_class: alias for alias, policy_class in model.policy_aliases.items()}
    return values | dict(policy=aliases.get(model.policy_class, model.policy_class))


def _argument_names(agent_class: type[RecurrentA2C]) -> list[str]:
    """What the constructor takes, also by handing it on as **kwargs; not what belongs to the machine rather than the agent."""
    names: list[str] = []
    for constructor in (vars(ancestor)["__init__"] for ancestor in agent_class.__mro__ if "__init__" in vars(ancestor)):
        parameters = inspect.signature(constructor).parameters.values()
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in dict.fromkeys(names) if name not in ("self", "env", "device", "_init_setup_model")]


def _parameters(policy: nn.Module) -> dict[str, Tensor]:
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


# From a document and its tensors to an agent.


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


def _merge_arguments(
    agent_class: type[RecurrentA2C], checkpoint: Checkpoint, overrides: Mapping[str, Any], predicts_only: bool
) -> dict[str, Any]:
    """The arguments of the constructor: the overrides, and for the rest what is stored."""
    known = _argument_names(agent_class)
    for name in overrides:
        if name not in known:
            raise ValueError(f"load has no argument {name!r}: it takes env, device, {', '.join(known)}")
    for name in checkpoint.arguments:
        if name not in known:
            raise CheckpointError(f"{checkpoint.path} has the argument {name!r}, which {agent_class.__name__} does not take")

    own_kwargs = overrides.get("policy_kwargs") or {}
    other_optimizer = "optimizer" in overrides or "optimizer_class" in own_kwargs.keys() & checkpoint.policy_kwargs.keys()
    renewed = OPTIMIZER_KWARGS if other_optimizer else ()
    policy_kwargs = {key: value for key, value in checkpoint.policy_kwargs.items() if f"policy_kwargs.{key}" not in renewed}
    policy_kwargs |= own_kwargs
    arguments = checkpoint.arguments | dict(overrides)
    if policy_kwargs:
        arguments["policy_kwargs"] = policy_kwargs
    if predicts_only:
        arguments.setdefault("learning_rate", 0.0)

    needed = {"policy"} if predicts_only else {*known}
    given = {*arguments, *(f"policy_kwargs.{name}" for name in policy_kwargs), *renewed}
    lacking = [name for name in checkpoint.not_stored if name not in given and (name in needed or "." in name)]
    if lacking:
        raise CheckpointError(f"{checkpoint.path} could not hold {', '.join(lacking)}: give it to load again")
    cell = policy_kwargs.get("cell")
    if isinstance(cell, str) and not _is_registered(cell):
        raise CheckpointError(
            f"{checkpoint.path} needs the cell {cell!r}, which is not registered: first import what registers it by "
            f"`register_cell` (there are {', '.join(available_cells())})"
        )
    return arguments


def _is_registered(cell: str) -> bool:
    """Whether a cell is there without an import, which no file is to bring about."""
    module, _, name = cell.rpartition(":")
    return name in available_cells() and (not module or module in sys.modules)


def _changes_optimizer(checkpoint: Checkpoint, overrides: Mapping[str, Any]) -> bool:
    given = {*overrides, *(f"policy_kwargs.{name}" for name in overrides.get("policy_kwargs") or {})}
    return not given.isdisjoint({"optimizer", *OPTIMIZER_KWARGS}.difference(checkpoint.not_stored))


def _normalized(env: VecEnv, stored: dict[str, Any] | None) -> VecEnv:
    """The environments with the stored statistics, in their own `VecNormalize` or else in one with the stored settings."""
    if stored is None:
        return env
    normalizer = unwrap_vec_normalize(env)
    if normalizer is None:
        return normalize_as(env, stored)
    restore_normalization(normalizer, stored)
    return env


def _check_spaces(checkpoint: Checkpoint, env: VecEnv) -> None:
    for name in ("observation_space", "action_space"):
        stored, offered = getattr(checkpoint, name), getattr(env, name)
        if stored != offered:
            raise CheckpointError(
                f"{checkpoint.path} has the {name.replace('_', ' ')} {one_line(stored)}, but the environment's is "
                f"{one_line(offered)}"
            )


def _construct(
    agent_class: type[_Agent],
    checkpoint: Checkpoint,
    arguments: dict[str, Any],
    env: VecEnv | None,
    device: torch.device | str,
    seed: int | None,
) -> _Agent:
    """A new agent, which seeds the global generators with `seed`: the stored one is that of a beginning long past."""
    now: dict[str, Any] = {name: seed if name == "seed" else value for name, value in arguments.items()}
    model = agent_class(env=env, device=device, _init_setup_model=False, **now)
    if env is None:
        model.observation_space, model.action_space = checkpoint.observation_space, checkpoint.action_space
        model.n_envs = checkpoint.n_envs
    model._setup_model()
    model.seed = arguments.get("seed")
    return model


@torch.no_grad()
def _load_parameters(policy: nn.Module, checkpoint: Checkpoint) -> None:
    ours, stored, path = _parameters(policy), checkpoint.policy, checkpoint.path
    for name in (*ours, *stored):
        if name not in stored:
            raise CheckpointError(f"{path} lacks the parameter {name!r}")
        if name not in ours:
            raise CheckpointError(f"{path} has the parameter {name!r}, which the policy does not have")
        if _kind(stored[name]) != _kind(ours[name]):
            raise CheckpointError(f"{path} has the parameter {name!r} as {_kind(stored[name])}, not {_kind(ours[name])}")
    for name, part in ours.items():
        part.copy_(stored[name])


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    if checkpoint.optimizer_state is None:
        return
    optimizer.load_state_dict(checkpoint.optimizer_state)
    if type(optimizer) not in CLASS_NAMES:  # it may keep tensors of any shape
        return
    for parameter, state in optimizer.state.items():
        for name, part in state.items():
            if isinstance(part, Tensor) and not _broadcasts(part.shape, parameter.shape):
                shapes = f"{list(part.shape)}, which does not fit {list(parameter.shape)}"
                raise CheckpointError(f"{checkpoint.path} has the optimizer's {name!r} with shape {shapes}")


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    sizes = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(size in (1, wanted) for size, wanted in sizes)


def _load_counters(model: RecurrentA2C, checkpoint: Checkpoint) -> None:
    for name, value in checkpoint.counters.items():
        setattr(model, name, value)
    if checkpoint.statistics is not None:
        window = model._stats_window_size
        model.ep_info_buffer = deque(map(dict, checkpoint.statistics["episodes"]), maxlen=window)
        model.ep_success_buffer = deque(map(float, checkpoint.statistics["successes"]), maxlen=window)


def _continue_episodes(model: RecurrentA2C, checkpoint: Checkpoint) -> None:
    """Go on in the running episodes and with the random numbers where the checkpoint was, or else in new episodes."""
    assert model.env is not None
    goes_on = (
        checkpoint.episodes is not None
        and checkpoint.n_envs == model.n_envs
        # What the cell remembers may be of another form.
        and checkpoint.policy_kwargs.get("cell_kwargs") == model.policy_kwargs.get("cell_kwargs")
        and restore_episodes(model, model.env, checkpoint.episodes)
    )
    if checkpoint.random_state is not None:
        _set_random_state(checkpoint.random_state, model.device)
    if not goes_on and model.seed is not None:
        model.env.seed()  # a seed from NumPy's generator: other episodes than those that training began with


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    name, keys, position, *gauss = state["numpy"]
    if not 0 <= position <= len(keys):  # NumPy itself does not look
        raise ValueError(f"the state of NumPy's generator is at {position} of {len(keys)}")
    version, words, python_gauss = state["python"]
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    np.random.set_state((name, keys, position, *gauss))  # noqa: NPY002
    random.setstate((version, words, python_gauss))
