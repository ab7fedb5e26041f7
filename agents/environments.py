"""The environments that an agent learns from, as SB3 `VecEnv`s, and those that each worker makes for itself."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import gymnasium as gym
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TransformObservation
from stable_baselines3.common.base_class import BaseAlgorithm, maybe_make_env
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from fw_rl.arguments import require
from fw_rl.envs.sb3 import VecEnvAdapter, check_spaces
from fw_rl.envs.sb3_tensors import NumPyVecEnv, TensorVecEnvAdapter, device_of

__all__ = ["MakeEnv", "WorkerVecEnv", "wrap_env", "wrap_evaluation_env"]

MakeEnv = Callable[[], GymEnv | VectorEnv]


def wrap_env(env: GymEnv | VectorEnv | str, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
    """An SB3 `VecEnv` from an environment of any kind.

    Observations of a single environment are copied: it may return the same array at every step, and SB3 keeps an episode's last
    one.
    """
    if isinstance(env, VectorEnv):
        adapter = VecEnvAdapter if device_of(env) is None else TensorVecEnvAdapter
        env = adapter(env, monitor=monitor_wrapper)
    env = maybe_make_env(env, verbose)
    known = "a Gymnasium environment, or a vector of them, of SB3 or of Gymnasium, or an id"
    require("env", env, hasattr(env, "observation_space"), known)
    if isinstance(env, gym.Env):
        env = TransformObservation(env, deepcopy, None)
    check_spaces(env.observation_space, env.action_space)
    wrapped = BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)
    if wrapped is not wrapped.unwrapped and isinstance(wrapped.unwrapped, TensorVecEnvAdapter):
        raise ValueError(f"env must be without {type(wrapped).__name__}, which takes NumPy, got one of tensors")
    return wrapped


def wrap_evaluation_env(env: VecEnv | VectorEnv | GymEnv) -> VecEnv:
    """An SB3 `VecEnv` with NumPy arrays, from an environment of any kind."""
    env = env if isinstance(env, VecEnv) else wrap_env(env)
    return NumPyVecEnv(env) if isinstance(env, TensorVecEnvAdapter) else env


class WorkerVecEnv(VecEnvWrapper):
    """The environments of one worker in the main process, which needs their spaces and may evaluate in them."""

    def __init__(self, make: MakeEnv | str, monitor_wrapper: bool = True) -> None:
        if isinstance(make, str):
            make = partial(gym.make, make)
        if not callable(make):
            raise ValueError(f"env must be a function or an id, since every worker makes its own, got {make}")
        self.make = make
        super().__init__(wrap_env(make(), monitor_wrapper=monitor_wrapper))
        if unwrap_vec_normalize(self.venv) is not None:
            raise ValueError("env must be without VecNormalize, whose statistics workers cannot share, got one that has it")
        if self.venv.has_attr("results_writer") and any(self.venv.get_attr("results_writer")):
            raise ValueError("env must be without the file of a Monitor, which all workers would write, got one that has it")

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        return self.venv.step_wait()
