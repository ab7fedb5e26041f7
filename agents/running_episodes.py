"""How far the running episodes are: what the environment tells of itself, and what the agent sees and remembers there."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor, VecNormalize, VecTransposeImage

from fw_rl.agents.document import one_line
from fw_rl.envs.previous import VecPreviousStep
from fw_rl.envs.sb3 import VecEnvAdapter

if TYPE_CHECKING:
    from fw_rl.agents.a2c import RecurrentA2C

__all__ = ["describe_episodes", "restore_episodes"]


def describe_episodes(model: RecurrentA2C, in_any_case: bool) -> dict[str, Any] | None:
    """The running episodes of an agent as plain values.

    None if there are none, or, unless `in_any_case`, if the environment tells nothing.
    """
    keeper = None if model.env is None else _keeper(model.env)
    if model._last_obs is None or model._last_state is None:
        return None
    state = None
    if keeper is not None:
        try:
            state = keeper.get_state()
        except Exception as error:
            warnings.warn(f"the checkpoint is without the state of the environment: {one_line(error)}", stacklevel=5)
    if state is None and not in_any_case:
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


def restore_episodes(model: RecurrentA2C, env: VecEnv, episodes: dict[str, Any]) -> bool:
    """Go on in these episodes; False, and nothing is changed, if the environment does not take them.

    Raises an exception for episodes that do not fit the agent.
    """
    keeper = _keeper(env)
    if (keeper is None) != (episodes["env"] is None):
        return False
    memory = tuple(part.to(model.device) for part in episodes["memory"])
    observation, starts = episodes["observation"], np.asarray(episodes["starts"], dtype=bool)
    seen = observation.values() if isinstance(observation, dict) else [observation]
    if any(len(part) != env.num_envs for part in (*memory, *seen, starts)):
        raise ValueError(f"the running episodes are not {env.num_envs}")
    model._predict_values(observation, memory)  # raises if one of them does not fit the policy

    try:
        if keeper is not None:
            keeper.set_state(episodes["env"])
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        warnings.warn(f"new episodes begin, since the environment does not take the stored state ({reason})", stacklevel=5)
        return False
    for monitor in _monitors(env):
        if episodes["returns"] is not None:
            monitor.episode_returns[:], monitor.episode_lengths[:] = episodes["returns"], episodes["lengths"]
    model._last_obs, model._last_episode_starts, model._last_state = observation, starts, memory
    return True


def _keeper(env: VecEnv) -> Any | None:
    """The outermost layer of the environment that can tell and take its state, if all that lie around it have none."""
    layer: Any = env
    while not (hasattr(type(layer), "get_state") and hasattr(type(layer), "set_state")):
        if isinstance(layer, VecMonitor | VecNormalize | VecPreviousStep | VecTransposeImage):
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
