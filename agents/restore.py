"""From a checkpoint to an agent that continues where it stopped."""

from __future__ import annotations

import random
import sys
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from fw_rl.agents.checkpoint import Checkpoint, argument_defaults, policy_parameters
from fw_rl.agents.contrib_names import own_names
from fw_rl.agents.environments import WorkerVecEnv
from fw_rl.agents.normalization import normalize_as, normalizer_alone
from fw_rl.agents.running_episodes import restore_episodes
from fw_rl.cells import available_cells
from fw_rl.document import CLASS_NAMES, CheckpointError, one_line, problems_named

SPACES = ("observation_space", "action_space")
OPTIMIZER_KWARGS = ("policy_kwargs.optimizer_class", "policy_kwargs.optimizer_kwargs")

_Agent = TypeVar("_Agent", bound=OnPolicyAlgorithm)


class NotStored:
    """A placeholder for an argument that a file could not hold, and that only learning needs."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path


def require_stored_arguments(model: OnPolicyAlgorithm) -> None:
    """Raises CheckpointError if an agent is to learn without an argument that its file could not hold."""
    lacking = {value.name: value.path for value in vars(model).values() if isinstance(value, NotStored)}
    if lacking:
        names, path = ", ".join(lacking), next(iter(lacking.values()))
        raise CheckpointError(f"{path} could not hold {names}: give it to load again to learn")


def build_agent(
    agent_class: type[_Agent],
    checkpoint: Checkpoint,
    env: Any = None,
    device: torch.device | str = "auto",
    overrides: Mapping[str, Any] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
) -> _Agent:
    """The agent of a checkpoint: its parameters, optimizer, counters and normalization."""
    known, custom = argument_defaults(agent_class), dict(custom_objects or {})
    if "policy_class" in custom:
        custom["policy"] = custom["policy_class"]
    checkpoint = replace(checkpoint, **{name: custom[name] for name in SPACES if name in custom})
    overrides = {name: value for name, value in custom.items() if name in known} | dict(overrides or {})
    arguments = _merge_arguments(known, agent_class, checkpoint, overrides)
    if env is not None:
        env = agent_class._wrap_env(env, monitor_wrapper=arguments.get("monitor_wrapper", True))
        if checkpoint.normalization is not None:
            if isinstance(env, WorkerVecEnv):
                raise CheckpointError(f"{checkpoint.path} goes with a VecNormalize, which workers cannot share")
            with problems_named(f"{checkpoint.path}: its environment cannot be normalized"):
                env = agent_class._wrap_env(normalize_as(env, checkpoint.normalization))
        _check_spaces(checkpoint, env)
    with problems_named(f"{checkpoint.path}: its agent cannot be built"):
        model = _construct(agent_class, checkpoint, arguments, env, device, seed=overrides.get("seed"))
    with problems_named(f"{checkpoint.path}: its agent cannot be restored"):
        _load_parameters(model.policy, checkpoint)
        if not _changes_optimizer(checkpoint, overrides):
            _load_optimizer(model.policy.optimizer, checkpoint)
        for name, value in checkpoint.counters.items():
            if not (name.startswith("learning_rate") and "learning_rate" in overrides):  # a new rate is taken as it is
                setattr(model, name, value)
        if checkpoint.statistics is not None:
            window = model._stats_window_size
            model.ep_info_buffer = deque(map(dict, checkpoint.statistics["episodes"]), maxlen=window)
            model.ep_success_buffer = deque(map(float, checkpoint.statistics["successes"]), maxlen=window)
        if env is None and checkpoint.normalization is not None:
            model._vec_normalize_env = normalizer_alone(checkpoint.normalization, model.n_envs)
    for name in checkpoint.not_stored:
        if name in known and name not in arguments:
            _withhold(model, NotStored(name, checkpoint.path))
    return model


def _withhold(model: OnPolicyAlgorithm, argument: NotStored) -> None:
    """Keep the agent from learning with a default instead of its own lost argument."""
    places = {argument.name, f"_{argument.name}"} | ({"lr_schedule"} if argument.name == "learning_rate" else set())
    for place in places.intersection(vars(model)):
        setattr(model, place, argument)


def _merge_arguments(
    known: Mapping[str, Any], agent_class: type[OnPolicyAlgorithm], checkpoint: Checkpoint, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of the constructor: the overrides, and the stored ones for the rest."""
    for name in overrides:
        if name not in known:
            raise ValueError(f"an argument of load must be one of env, device, {', '.join(known)}, got {name!r}")
    for name in checkpoint.arguments:
        if name not in known:
            taken = f"it has the argument {name!r}, which {agent_class.__name__} does not take"
            raise CheckpointError(f"{checkpoint.path} is of another class: {taken}")

    own_kwargs = own_names(overrides.get("policy_kwargs") or {})
    other_optimizer = "optimizer" in overrides or "optimizer_class" in own_kwargs.keys() & checkpoint.policy_kwargs.keys()
    renewed = OPTIMIZER_KWARGS if other_optimizer else ()
    policy_kwargs = {key: value for key, value in checkpoint.policy_kwargs.items() if f"policy_kwargs.{key}" not in renewed}
    if "optimizer_eps" in overrides and "optimizer_kwargs" in policy_kwargs:
        policy_kwargs["optimizer_kwargs"] = policy_kwargs["optimizer_kwargs"] | dict(eps=overrides["optimizer_eps"])
    policy_kwargs |= own_kwargs
    arguments = checkpoint.arguments | dict(overrides)
    if policy_kwargs:
        arguments["policy_kwargs"] = policy_kwargs

    given = {*arguments, *(f"policy_kwargs.{name}" for name in policy_kwargs), *renewed}
    lacking = [name for name in checkpoint.not_stored if name not in given and (name == "policy" or "." in name)]
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
    """Whether a cell is registered without an import, which no file may cause."""
    module, _, name = cell.rpartition(":")
    return name in available_cells() and (not module or module in sys.modules)


def _changes_optimizer(checkpoint: Checkpoint, overrides: Mapping[str, Any]) -> bool:
    given = {*overrides, *(f"policy_kwargs.{name}" for name in overrides.get("policy_kwargs") or {})}
    return not given.isdisjoint({"optimizer", "optimizer_eps", *OPTIMIZER_KWARGS}.difference(checkpoint.not_stored))


def _check_spaces(checkpoint: Checkpoint, env: VecEnv) -> None:
    for name in SPACES:
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
    """A new agent, which seeds the global generators with `seed`: the stored seed was for the start of the training."""
    now: dict[str, Any] = arguments | (dict(seed=seed) if "seed" in arguments else {}) | dict(env=env, device=device)
    model = agent_class(_init_setup_model=False, **now)
    if env is None:
        model.observation_space, model.action_space = checkpoint.observation_space, checkpoint.action_space
        model.n_envs = checkpoint.n_envs
    model._setup_model()
    model.seed = arguments.get("seed")
    return model


@torch.no_grad()
def _load_parameters(policy: nn.Module, checkpoint: Checkpoint) -> None:
    ours, stored, path = policy_parameters(policy), checkpoint.policy, checkpoint.path
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


def continue_training(model: Any, checkpoint: Checkpoint) -> None:
    """Continue the running episodes of a checkpoint, or else begin new ones, with its random numbers."""
    goes_on = (
        checkpoint.episodes is not None
        and checkpoint.n_envs == model.n_envs
        # The memory's state may be of another form.
        and checkpoint.policy_kwargs.get("cell_kwargs") == model.policy_kwargs.get("cell_kwargs")
        and _restore_episodes(model, checkpoint.episodes)
    )
    if checkpoint.random_state is not None:
        _set_random_state(checkpoint.random_state, model.device)
    if not goes_on and model.seed is not None:
        model.env.seed()  # a seed from NumPy's generator: other episodes than those that training began with


def _restore_episodes(model: Any, episodes: dict[str, Any]) -> bool:
    """Continue these episodes; False, with nothing changed, if they are of another environment or another memory."""
    memory = tuple(part.to(model.device) for part in episodes["memory"])
    observation, starts = episodes["observation"], np.asarray(episodes["starts"], dtype=bool)
    returns = np.array(episodes["discounted_returns"], dtype=np.float64).reshape(-1)
    seen = observation.values() if isinstance(observation, dict) else [observation]
    if any(len(part) != model.n_envs for part in (*memory, *seen, starts, returns)):
        raise ValueError(f"the running episodes are not {model.n_envs}")
    blank = model.policy.initial_state(model.n_envs)
    if [(part.shape, part.dtype) for part in memory] != [(part.shape, part.dtype) for part in blank]:
        warnings.warn("new episodes begin, since the memory's state in the file is of another form", stacklevel=5)
        return False
    model._predict_values(model.policy.obs_to_tensor(observation)[0], memory)  # raises if it does not fit the policy
    if not restore_episodes(model.env, episodes):
        return False
    model._last_obs, model._last_episode_starts, model._last_state = observation, starts, memory
    model._discounted_returns = torch.as_tensor(returns, device=model.device)
    return True


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set the global generators to the state of a checkpoint."""
    name, keys, position, *gauss = state["numpy"]
    if not 0 <= position <= len(keys):  # NumPy itself does not look
        raise ValueError(f"the state of NumPy's generator is at {position} of {len(keys)}")
    version, words, python_gauss = state["python"]
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    np.random.set_state((name, keys, position, *gauss))  # noqa: NPY002
    random.setstate((version, words, python_gauss))
