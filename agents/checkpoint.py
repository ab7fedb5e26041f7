"""Checkpoints: an agent, trained or half-trained, in one safetensors file.

The file holds tensors, and in its metadata one JSON document that says what they are. Reading it runs no code from it: nothing
is unpickled, and what the document names is looked up in `CLASSES`, among the registered cells and among the agent's policies,
never imported.

The document is plain JSON but for objects with one key that begins with "$": {"$tensor": name}, {"$array": name} (of NumPy, but
stored as a tensor), {"$tuple": [...]}, {"$float": "inf"}, {"$class": "torch.nn.Tanh"}, and {"$items": [[key, value], ...]} for
a dictionary whose keys are not just strings.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import random
import warnings
import zipfile
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from safetensors import safe_open
from stable_baselines3.common import torch_layers
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor, VecTransposeImage
from torch import Tensor, nn

from fw_rl.cells import available_cells
from fw_rl.envs.sb3 import VecEnvAdapter

if TYPE_CHECKING:
    from fw_rl.agents.a2c import RecurrentA2C

__all__ = ["Checkpoint", "CheckpointError", "build_agent", "checkpoint_path", "read_checkpoint", "write_checkpoint"]

FORMAT, VERSION, SUFFIX = "fw_rl", 1, ".safetensors"

CLASSES: dict[str, type] = {
    f"{module.__name__}.{name}": value
    for module in (torch.nn, torch.optim, torch_layers)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, nn.Module | torch.optim.Optimizer)
}
"""The classes that a file may name, as for `policy_kwargs=dict(activation_fn=torch.nn.Tanh)`."""

CLASS_NAMES = {cls: name for name, cls in CLASSES.items()}

NUMBER = int | float | np.bool_ | np.integer | np.floating
COUNTERS = (
    "num_timesteps",
    "_total_timesteps",
    "_current_progress_remaining",
    "_n_updates",
    "_episode_num",
)

Json = Any
"""What `json.dumps` takes."""
_Agent = TypeVar("_Agent", bound="RecurrentA2C")


class CheckpointError(ValueError):
    """A file that is no whole checkpoint, or one that does not fit what it is loaded into."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    `arguments`: those of the agent's constructor, without `env` and `device`. `not_stored`: names of what a file cannot hold.
    `policy`: its parameters by name. `counters`: attributes of the agent that count its steps. `optimizer_state`: Torch's state
    dict. `statistics`: the last episodes, for logging. `random_state`: that of the global generators. `episodes`: how far the
    running episodes are. The last four are None where there was none.
    """

    path: Path
    arguments: dict[str, Any]
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


def checkpoint_path(path: str | os.PathLike[str]) -> Path:
    """The path with the ending .safetensors, which also takes the place of SB3's .zip.

    >>> [checkpoint_path(name).name for name in ("agent", "agent.zip", "agent-0.5", "agent.safetensors")]
    ['agent.safetensors', 'agent.safetensors', 'agent-0.5.safetensors', 'agent.safetensors']
    """
    path = Path(path)
    return path if path.suffix == SUFFIX else path.with_name(path.name.removesuffix(".zip") + SUFFIX)


def write_checkpoint(path: str | os.PathLike[str], model: RecurrentA2C) -> Path:
    """Write all of an agent into one file, which gets its name only when it is whole; returns its path.

    What a file cannot hold, such as a learning rate that is a function, is left out with a warning.
    """
    path = checkpoint_path(path)
    document, tensors = _describe(model)
    if document["not_stored"]:
        names = ", ".join(document["not_stored"])
        warnings.warn(f"a checkpoint cannot hold {names}: `load` takes arguments again, the rest begins anew", stacklevel=3)
    metadata = dict(format=FORMAT, version=str(VERSION), json=json.dumps(document, allow_nan=False))
    _write_atomically(path, safetensors.torch.save(tensors, metadata))
    return path


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint file, by the name that `write_checkpoint` gives it or by any other that it has.

    Raises CheckpointError if there is no such file or if it is not a whole checkpoint.

    >>> checkpoint = read_checkpoint("agent.safetensors")  # doctest: +SKIP
    >>> checkpoint.counters["num_timesteps"], checkpoint.arguments["policy_kwargs"]["cell"]  # doctest: +SKIP
    (1000000, 'fast-weights')
    """
    literal, path = Path(path), checkpoint_path(path)
    if literal.is_file() and not path.exists():
        path = literal
    metadata, tensors = _read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of {FORMAT}")
    with _problems_named(f"{path} is damaged"):
        version = int(metadata["version"])
        if version > VERSION:
            raise CheckpointError(f"{path} is of version {version}: this {FORMAT} reads no later one than {VERSION}")
        return _parse(path, json.loads(metadata["json"], parse_constant=_refuse_constant), tensors)


def build_agent(
    agent_class: type[_Agent],
    checkpoint: Checkpoint,
    env: GymEnv | VectorEnv | str | None = None,
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
        env = env if isinstance(env, VectorEnv) else maybe_make_env(env, 0)
        env = agent_class._wrap_env(env, monitor_wrapper=arguments.get("monitor_wrapper", True))
        _check_spaces(checkpoint, env)
    with _problems_named(f"{checkpoint.path}: its agent cannot be built"):
        model = _construct(agent_class, checkpoint, arguments, env, device, seed=overrides.get("seed"))
    with _problems_named(f"{checkpoint.path}: its agent cannot be restored"):
        _load_parameters(model.policy, checkpoint)
        if not _names_optimizer(overrides):
            _load_optimizer(model.policy.optimizer, checkpoint)
        _load_counters(model, checkpoint)
        if env is not None and "seed" not in overrides:
            _continue_episodes(model, checkpoint)
    return model


# From an agent to a document and its tensors.


def _describe(model: RecurrentA2C) -> tuple[dict[str, Json], dict[str, Tensor]]:
    required = dict(
        observation_space=_describe_space(model.observation_space),
        action_space=_describe_space(model.action_space),
        n_envs=model.n_envs,
        policy=_parameters(model.policy),
        counters={name: getattr(model, name) for name in COUNTERS},
    )
    optional = dict(
        optimizer_state=model.policy.optimizer.state_dict(),
        statistics=_statistics(model),
        random_state=_random_state(model.device),
        episodes=_episodes(model),
    )
    arguments = _constructor_arguments(model)
    policy_kwargs = arguments.pop("policy_kwargs")

    tensors: dict[str, Tensor] = {}
    not_stored: list[str] = []
    document = {name: _pack(value, name, tensors) for name, value in required.items()}
    document |= _pack_what_can_be(optional, "", tensors, not_stored)
    document["arguments"] = _pack_what_can_be(arguments, "", tensors, not_stored)
    document["arguments"]["policy_kwargs"] = _pack_what_can_be(policy_kwargs, "policy_kwargs.", tensors, not_stored)
    document["not_stored"] = not_stored
    return document, tensors


def _constructor_arguments(model: RecurrentA2C) -> dict[str, Any]:
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


def _episodes(model: RecurrentA2C) -> dict[str, Any] | None:
    """How far the running episodes are, if there are any and the environment tells: what the agent sees and remembers there."""
    keeper = None if model.env is None else _keeper(model.env)
    if keeper is None or model._last_obs is None or model._last_state is None:
        return None
    try:
        state = keeper.get_state()
    except Exception as error:
        warnings.warn(f"the checkpoint is without the running episodes: {_one_line(error)}", stacklevel=5)
        return None
    monitors = _monitors(model.env)
    return dict(
        env=state,
        returns=monitors[0].episode_returns if monitors else None,
        lengths=monitors[0].episode_lengths if monitors else None,
        memory=model._last_state,
        observation=model._last_obs,
        starts=model._last_episode_starts,
    )


def _keeper(env: VecEnv) -> Any | None:
    """The outermost layer of the environment that can tell and take its state, if all that lie around it have none."""
    layer: Any = env
    while not (hasattr(type(layer), "get_state") and hasattr(type(layer), "set_state")):
        if isinstance(layer, VecMonitor | VecTransposeImage):
            layer = layer.venv
        elif isinstance(layer, VecEnvAdapter):
            layer = layer.env
        else:
            return None
    return layer


def _monitors(env: VecEnv | None) -> list[Any]:
    """Those that sum up the returns and lengths of the running episodes."""
    layers = [env]
    while isinstance(layers[-1], VecEnvWrapper):
        layers.append(layers[-1].venv)
    return [layer for layer in layers if isinstance(layer, VecMonitor | VecEnvAdapter)]


def _describe_space(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Dict):
        return dict(type="Dict", spaces={key: _describe_space(part) for key, part in space.spaces.items()})
    if isinstance(space, spaces.MultiBinary):
        return dict(type="MultiBinary", n=space.n)
    dtype = np.dtype(space.dtype).name
    if isinstance(space, spaces.Box):
        return dict(type="Box", low=_compact(space.low), high=_compact(space.high), shape=space.shape, dtype=dtype)
    if isinstance(space, spaces.Discrete):
        return dict(type="Discrete", n=space.n, start=space.start, dtype=dtype)
    if isinstance(space, spaces.MultiDiscrete):
        return dict(type="MultiDiscrete", nvec=space.nvec, start=space.start, dtype=dtype)
    raise ValueError(f"a checkpoint cannot hold the space {_one_line(space)}")


def _compact(bound: NDArray[Any]) -> Any:
    """The number that is everywhere in the array, or else the array."""
    return bound.flat[0] if bound.size and (bound == bound.flat[0]).all() else bound


# From a document and its tensors to an agent.


def _parse(path: Path, document: Json, tensors: dict[str, Tensor]) -> Checkpoint:
    left = dict(tensors)
    tree = _unpack(document, left)
    if left:
        raise CheckpointError(f"{path} has the tensor {min(left)!r}, which its description does not name")
    checkpoint = Checkpoint(
        path=path,
        arguments=_typed(tree, "arguments", dict),
        not_stored=[str(name) for name in _typed(tree, "not_stored", list)],
        observation_space=_make_space(tree["observation_space"]),
        action_space=_make_space(tree["action_space"]),
        n_envs=_typed(tree, "n_envs", int),
        policy=_typed(tree, "policy", dict),
        counters={name: _typed(tree["counters"], name, int | float) for name in COUNTERS},
        optimizer_state=_typed(tree, "optimizer_state", dict | None),
        statistics=_typed(tree, "statistics", dict | None),
        random_state=_typed(tree, "random_state", dict | None),
        episodes=_typed(tree, "episodes", dict | None),
    )
    _typed(checkpoint.arguments, "policy_kwargs", dict)
    for name in checkpoint.policy:
        _typed(checkpoint.policy, name, Tensor)
    return checkpoint


def _typed(tree: dict[str, Any], name: str, kind: Any) -> Any:
    value = tree.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name!r} is {_one_line(repr(value))}")
    return value


def _make_space(description: dict[str, Any]) -> spaces.Space:
    kind = description["type"]
    if kind == "Dict":
        return spaces.Dict(OrderedDict((key, _make_space(part)) for key, part in description["spaces"].items()))
    if kind == "MultiBinary":
        return spaces.MultiBinary(description["n"])
    dtype = np.dtype(description["dtype"])
    if kind == "Box":
        low, high = (np.full(description["shape"], description[bound], dtype) for bound in ("low", "high"))
        return spaces.Box(low, high, dtype=dtype.type)
    if kind == "Discrete":
        other_dtype = {} if dtype == np.int64 else dict(dtype=dtype.type)  # an argument only since Gymnasium 1.2
        return spaces.Discrete(description["n"], start=description["start"], **other_dtype)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(description["nvec"], dtype=dtype.type, start=description["start"])
    raise ValueError(f"there is no space {_one_line(repr(kind))}")


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

    policy_kwargs = dict(checkpoint.arguments["policy_kwargs"])
    if "optimizer" in overrides:
        policy_kwargs = {name: value for name, value in policy_kwargs.items() if not name.startswith("optimizer_")}
    policy_kwargs |= overrides.get("policy_kwargs") or {}
    arguments = checkpoint.arguments | dict(overrides) | dict(policy_kwargs=policy_kwargs)
    if predicts_only:
        arguments.setdefault("learning_rate", 0.0)

    given = {*arguments, *(f"policy_kwargs.{name}" for name in policy_kwargs)}
    lacking = [name for name in checkpoint.not_stored if name not in given and (name in known or "." in name)]
    if lacking:
        raise CheckpointError(f"{checkpoint.path} could not hold {', '.join(lacking)}: give load this argument again")
    cell = policy_kwargs.get("cell")
    if isinstance(cell, str) and cell not in available_cells():
        raise CheckpointError(
            f"{checkpoint.path} needs the cell {cell!r}, which is not registered: first import what registers it by "
            f"`register_cell` (there are {', '.join(available_cells())})"
        )
    return arguments


def _names_optimizer(overrides: Mapping[str, Any]) -> bool:
    return bool({"optimizer", "optimizer_class", "optimizer_kwargs"} & {*overrides, *(overrides.get("policy_kwargs") or {})})


def _check_spaces(checkpoint: Checkpoint, env: VecEnv) -> None:
    for name in ("observation_space", "action_space"):
        stored, offered = getattr(checkpoint, name), getattr(env, name)
        if stored != offered:
            raise CheckpointError(
                f"{checkpoint.path} has the {name.replace('_', ' ')} {_one_line(stored)}, but the environment's is "
                f"{_one_line(offered)}"
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
    goes_on = _restore_episodes(model, model.env, checkpoint)
    if checkpoint.random_state is not None:
        _set_random_state(checkpoint.random_state, model.device)
    if not goes_on and model.seed is not None:
        model.env.seed()  # a seed from NumPy's generator: other episodes than those that training began with


def _restore_episodes(model: RecurrentA2C, env: VecEnv, checkpoint: Checkpoint) -> bool:
    episodes, keeper = checkpoint.episodes, _keeper(env)
    if episodes is None or keeper is None or checkpoint.n_envs != env.num_envs:
        return False
    memory = tuple(part.to(model.device) for part in episodes["memory"])
    observation, starts = episodes["observation"], np.asarray(episodes["starts"], dtype=bool)
    seen = observation.values() if isinstance(observation, dict) else [observation]
    if any(len(part) != env.num_envs for part in (*memory, *seen, starts)):
        raise ValueError(f"the running episodes are not {env.num_envs}")
    model._predict_values(observation, memory)  # raises if one of them does not fit the policy

    try:
        keeper.set_state(episodes["env"])
    except Exception as error:
        reason = _one_line(f"{type(error).__name__}: {error}")
        warnings.warn(f"new episodes begin, since the environment does not take the stored state ({reason})", stacklevel=5)
        return False
    for monitor in _monitors(env):
        if episodes["returns"] is not None:
            monitor.episode_returns[:], monitor.episode_lengths[:] = episodes["returns"], episodes["lengths"]
    model._last_obs, model._last_episode_starts, model._last_state = observation, starts, memory
    return True


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


# Nested values as JSON and tensors.


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Json:
    """The value as JSON, its tensors and arrays moved to `tensors`; raises TypeError for what is neither."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, Tensor):
        return {"$tensor": _keep(value, name, tensors)}
    if isinstance(value, np.ndarray):
        native = np.array(value, dtype=value.dtype.newbyteorder("="))
        return {"$array": _keep(torch.from_numpy(native), name, tensors)}
    if isinstance(value, list):
        return [_pack(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": _pack(list(value), name, tensors)}
    if isinstance(value, dict):
        packed = [[_pack(key, name, tensors), _pack(item, f"{name}.{key}", tensors)] for key, item in value.items()]
        plain = all(isinstance(key, str) and not key.startswith("$") for key in value)
        return dict(packed) if plain else {"$items": packed}
    if isinstance(value, type) and value in CLASS_NAMES:
        return {"$class": CLASS_NAMES[value]}
    raise TypeError(f"{name} is neither JSON nor an array: {_one_line(value)}")


def _keep(tensor: Tensor, name: str, tensors: dict[str, Tensor]) -> str:
    while name in tensors:
        name += "'"
    tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return name


def _pack_what_can_be(
    values: dict[str, Any], prefix: str, tensors: dict[str, Tensor], not_stored: list[str]
) -> dict[str, Json]:
    """Each value packed; the names of the others go to `not_stored`, since a long training must not be lost to them."""
    packed = {}
    for name, value in values.items():
        known = len(tensors)
        try:
            packed[name] = _pack(value, prefix + name, tensors)
        except (TypeError, ValueError, RecursionError):
            not_stored.append(prefix + name)
            while len(tensors) > known:
                tensors.popitem()
    return packed


def _unpack(value: Json, tensors: dict[str, Tensor]) -> Any:
    """What `_pack` was given; takes the tensors that it needs out of `tensors`."""
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value)) if len(value) == 1 else ""
    if not tag.startswith("$"):
        return {key: _unpack(item, tensors) for key, item in value.items()}
    content = value[tag]
    if tag == "$tensor":
        return _take(content, tensors)
    if tag == "$array":
        return _take(content, tensors).numpy()
    if tag == "$tuple":
        return tuple(_unpack(content, tensors))
    if tag == "$items":
        return {_unpack(key, tensors): _unpack(item, tensors) for key, item in content}
    if tag == "$float" and content in ("inf", "-inf", "nan"):
        return float(content)
    if tag == "$class" and content in CLASSES:
        return CLASSES[content]
    raise ValueError(f"nothing is known as {_one_line(repr(content))} ({_one_line(tag)})")


def _take(name: Json, tensors: dict[str, Tensor]) -> Tensor:
    if name not in tensors:
        raise ValueError(f"the tensor {_one_line(repr(name))} is missing")
    return tensors.pop(name)


# Files.


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.exists():
        raise CheckpointError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            # Clones, so that nothing stays tied to a file that the next checkpoint may replace.
            return file.metadata() or {}, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        hint = ", but a zip file like those of SB3" if zipfile.is_zipfile(path) else ""
        raise CheckpointError(f"{path} is no whole safetensors file{hint} ({_one_line(error)})") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@contextmanager
def _problems_named(context: str) -> Iterator[None]:
    """Any exception inside becomes a CheckpointError of one line."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{context} ({type(error).__name__}: {_one_line(error)})") from error


def _one_line(value: object, longest: int = 200) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= longest else f"{text[:longest]}..."
