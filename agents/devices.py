"""The device that an agent learns on."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.torch_layers import NatureCNN

from fw_rl.agents.features import channels_first, standard_extractor
from fw_rl.envs.sb3_tensors import TensorVecEnvAdapter, device_of

__all__ = ["choose_device", "require_device"]

LARGE = 512
"""Units from which `auto` takes a GPU. It is a guess: smaller products take less time than launching their kernels."""


def choose_device(device: torch.device | str, env: Any, hidden_size: int, verbose: int = 0) -> torch.device | str:
    """The requested device, or for "auto" that of the environment's tensors, or else the faster one.

    That is a GPU for images and for cells of `LARGE` units, and the processor for all others, whose sequential steps do not
    fill a GPU. If there is a choice, it is printed with `verbose`.

    Raises:
        ValueError: For a device other than that of the environment's tensors.
    """
    if device != "auto":
        require_device(device, env)
        if torch.device(device).type == "cuda" and not torch.cuda.is_available():  # SB3 would not tell
            warnings.warn(f"PyTorch finds no CUDA device: the agent is on the processor, and not on {device}", stacklevel=2)
        return device
    if (given := _device_of_tensors(env)) is not None:
        return given
    if not torch.cuda.is_available():
        return "cpu"
    space = getattr(env, "single_observation_space", None) or getattr(env, "observation_space", None)
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    if any(standard_extractor(channels_first(part)) is NatureCNN for part in parts if isinstance(part, spaces.Box)):
        chosen, reason = "cuda", "observations are images"
    elif hidden_size >= LARGE:
        chosen, reason = "cuda", f"the cell has {LARGE} units or more"
    else:
        chosen, reason = "cpu", f"a cell of fewer than {LARGE} units without images is faster there"
    if verbose:
        print(f"device='auto' takes {chosen}: {reason}")
    return chosen


def require_device(device: torch.device | str, env: Any) -> None:
    """Raise ValueError if an environment has tensors on another device."""
    given, wanted = _device_of_tensors(env), torch.device(device)
    if given is None:
        return
    if given.type != wanted.type or (None not in (given.index, wanted.index) and given.index != wanted.index):
        raise ValueError(f"device must be {given}, where env has its tensors, or 'auto', got {device}")


def _device_of_tensors(env: Any) -> torch.device | None:
    if isinstance(env, TensorVecEnvAdapter):
        return env.device
    return device_of(env) if isinstance(env, VectorEnv) else None
