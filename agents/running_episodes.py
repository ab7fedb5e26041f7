"""The progress of an environment's running episodes, as plain values for a checkpoint."""

from __future__ import annotations

import warnings
from typing import Any

from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor, VecNormalize, VecTransposeImage

from fw_rl.agents.environments import WorkerVecEnv
from fw_rl.document import one_line
from fw_rl.envs.previous import VecPreviousStep
from fw_rl.envs.sb3 import VecEnvAdapter


def describe_episodes(model: Any, include_state: bool | None) -> dict[str, Any] | None:
    """The running episodes of an agent as plain values, with what it has seen of them.

    None if there are none or workers have them, if they are not to be included, or, if that is left open, if the environment
    has no state to save.
    """
    env = model.env
    if include_state is False or env is None or model._last_obs is None or model._last_state is None:
        return None
    if isinstance(env, WorkerVecEnv):
        return None
    layer, state = _stateful_layer(env), None
    if layer is not None:
        try:
            state = layer.get_state()
        except Exception as error:
            warnings.warn(f"the checkpoint is without the state of the environment: {one_line(error)}", stacklevel=4)
    if state is None and not include_state:
        return None
    monitors = _monitors(env)
    returns, lengths = (monitors[0].episode_returns, monitors[0].episode_lengths) if monitors else (None, None)
    return dict(
        env=state,
        returns=returns,
        lengths=lengths,
        memory=model._last_state,
        observation=model._last_obs,
        starts=model._last_episode_starts,
        discounted_returns=model._discounted_returns.numpy(force=True),
    )


def restore_episodes(env: VecEnv, episodes: dict[str, Any]) -> bool:
    """Put an environment into episodes; False, with nothing changed, if it does not take them."""
    layer = _stateful_layer(env)
    if (layer is None) != (episodes["env"] is None):
        return False
    try:
        if layer is not None:
            layer.set_state(episodes["env"])
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        warnings.warn(f"new episodes begin, since the environment does not take the stored state ({reason})", stacklevel=6)
        return False
    for monitor in _monitors(env):
        if episodes["returns"] is not None:
            monitor.episode_returns[:], monitor.episode_lengths[:] = episodes["returns"], episodes["lengths"]
    return True


def _stateful_layer(env: VecEnv) -> Any | None:
    """The outermost layer with `get_state` and `set_state`, if no layer around it has a state of its own."""
    layer: Any = env
    while not (hasattr(type(layer), "get_state") and hasattr(type(layer), "set_state")):
        if isinstance(layer, VecMonitor | VecNormalize | VecPreviousStep | VecTransposeImage):
            layer = layer.venv
        elif isinstance(layer, VecEnvAdapter):
            layer = layer.env
        else:
            return None
    return layer


def _monitors(env: VecEnv) -> list[Any]:
    """The monitors that sum up the returns and lengths of the running episodes."""
    layers = [env]
    while isinstance(layers[-1], VecEnvWrapper):
        layers.append(layers[-1].venv)
    return [layer for layer in layers if isinstance(layer, VecMonitor | VecEnvAdapter)]
