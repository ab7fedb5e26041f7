"""A Gymnasium vector environment where Stable-Baselines3 expects one of its own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, SupportsIndex

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import DictInfoToList
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from fw_rl.envs.vector import call_each, check_partial_reset, has_fixed_size, reset_some

__all__ = ["VecEnvAdapter", "row_of"]


class VecEnvAdapter(VecEnv):
    """A Gymnasium `VectorEnv` as an SB3 `VecEnv`, for any SB3 algorithm.

    It steps as SB3's `DummyVecEnv` does: rewards [num_envs] are float32, and the step that ends an episode gives the first
    observation of the next one, with the last one in `infos[i]["terminal_observation"]`. There,
    `infos[i]["TimeLimit.truncated"]` says that the episode was cut, not finished, and `reset_infos[i]` is the info of the
    reset. `seed(s)` seeds environment i with s + i, or, if a vector environment has only one generator, that one with s.

    With `AutoresetMode.SAME_STEP` the environment begins the next episodes itself. In the modes `NEXT_STEP` and `DISABLED` the
    adapter does, by `reset(options={"reset_mask": ...})`; that may return only the rows of the new episodes, as EnvPool does.
    An environment that returns the same array at every step needs one of these modes: in `SAME_STEP` Gymnasium's
    `SyncVectorEnv` and `AsyncVectorEnv` lose its last observation.

    Attributes and methods are those of the single environments. A vector environment that is one object has one attribute for
    all; what its method returns is split among them if it is a tuple, list or array of `num_envs`. The wrappers of the
    environments in an `AsyncVectorEnv` or `ParallelVectorEnv` cannot be seen: `env_is_wrapped` is False there. An attribute
    that is new in some of their environments is None in the others.

    Args:
        env: The vector environment.
        monitor: Whether `infos[i]["episode"]` has return, length and time of an ended episode, as in SB3's `VecMonitor`.

    Raises:
        ValueError: For a space that SB3 does not support, an unknown autoreset mode, a Gymnasium wrapper that does not work in
            this mode, and an environment that is known to do more than its mode says (`AsyncVectorEnv` without shared memory,
            `CartPoleVectorEnv`); at a reset for options that differ between environments, and at the first one for any
            environment of the last two modes that ignores the mask.

    Examples:
        >>> from fw_rl.envs import CatchVectorEnv, VecEnvAdapter
        >>> env = VecEnvAdapter(CatchVectorEnv(num_envs=64))
        >>> env.reset().shape
        (64, 256)
    """

    def __init__(self, env: VectorEnv, monitor: bool = False) -> None:
        check_spaces(env.single_observation_space, env.single_action_space)
        if isinstance(env, DictInfoToList):
            raise ValueError(f"env must be without DictInfoToList, got {env}: infos are a list already")
        self.env = env
        self.monitor = monitor
        self.episode_returns = np.zeros(env.num_envs)
        self.episode_lengths = np.zeros(env.num_envs, dtype=np.int64)
        self._start_time = time.time()
        self._autoreset = _autoreset_mode(env)
        if self._autoreset != AutoresetMode.SAME_STEP:
            check_partial_reset(env)
        self._reuses_memory = not getattr(env.unwrapped, "copy", True)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.metadata = dict(env.metadata)

    def reset(self) -> VecEnvObs:
        if any(options != self._options[0] for options in self._options):
            raise ValueError(f"options must be the same for all environments of a VectorEnv, got {self._options}")
        seed, options = self._seeds[0], self._options[0] or None
        if self._autoreset == AutoresetMode.SAME_STEP:
            observations, infos = self.env.reset(seed=seed, options=options)
        else:  # with a mask, so that one that is ignored is noticed before the first episode ends
            observations, infos = reset_some(self.env, np.ones(self.num_envs, dtype=bool), None, seed, options)
        self._check_observations(observations)
        self.reset_infos = _rows(infos, self.num_envs)
        self.episode_returns[:] = 0.0
        self.episode_lengths[:] = 0
        self._reset_seeds()
        self._reset_options()
        return deepcopy(observations) if self._reuses_memory else observations

    def _check_observations(self, observations: Any) -> None:
        for part in observations.values() if isinstance(observations, dict) else [observations]:
            if not isinstance(part, np.ndarray) or len(part) != self.num_envs:
                shown = f"the shape {part.shape}" if isinstance(part, np.ndarray) else type(part).__name__
                raise ValueError(f"observations must be arrays of {self.num_envs} rows, got {shown} from {self.env}")

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminations, truncations, vector_infos = self.env.step(self._actions)
        dones = np.logical_or(terminations, truncations)
        self.episode_returns += rewards
        self.episode_lengths += 1
        if not dones.any():
            infos = _rows(vector_infos, self.num_envs)
        else:
            ended = np.flatnonzero(dones).tolist()
            if self._autoreset == AutoresetMode.SAME_STEP:
                last, infos = self._end_in_same_step(ended, vector_infos)
            else:
                last, infos = [row_of(observations, i) for i in ended], _rows(vector_infos, self.num_envs)
                observations, begun_infos = reset_some(self.env, dones.copy(), observations)
                begun = _rows(begun_infos, self.num_envs)
                for i in ended:
                    self.reset_infos[i] = begun[i]
            truncated = (dones & ~np.asarray(terminations, dtype=bool)).tolist()
            for i, observation in zip(ended, last, strict=True):
                infos[i]["terminal_observation"] = observation
                infos[i]["TimeLimit.truncated"] = truncated[i]
            self._end_monitored(ended, infos)
        if self._reuses_memory:
            observations = deepcopy(observations)
        return observations, np.array(rewards, dtype=np.float32), dones, infos

    def _end_in_same_step(self, ended: list[int], vector_infos: dict[str, Any]) -> tuple[list[Any], list[dict[str, Any]]]:
        """The last observation of each ended episode, and the infos of all; those of new episodes are kept separately."""
        if "final_obs" not in vector_infos:
            raise ValueError(
                f"infos['final_obs'] must be there when an episode ends in the same step, got none from {self.env}"
            )
        beside = {key: value for key, value in vector_infos.items() if key.removeprefix("_") not in ("final_obs", "final_info")}
        infos, final_infos = _rows(beside, self.num_envs), _rows(vector_infos.get("final_info", {}), self.num_envs)
        for i in ended:
            self.reset_infos[i], infos[i] = infos[i], final_infos[i]
            if "episode" in self.reset_infos[i]:  # Gymnasium's RecordEpisodeStatistics tells it of the ended one
                infos[i]["episode"] = self.reset_infos[i].pop("episode")
        return [row_of(vector_infos["final_obs"], i) for i in ended], infos

    def _end_monitored(self, ended: list[int], infos: list[dict[str, Any]]) -> None:
        if self.monitor:
            seconds = round(time.time() - self._start_time, 6)
            for i in ended:
                infos[i]["episode"] = dict(r=float(self.episode_returns[i]), l=int(self.episode_lengths[i]), t=seconds)
        self.episode_returns[ended] = 0.0
        self.episode_lengths[ended] = 0

    def close(self) -> None:
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        if self.render_mode != "rgb_array":
            warnings.warn(f"there are no images: the render mode is {self.render_mode!r}, not 'rgb_array'", stacklevel=2)
            return [None] * self.num_envs
        images = self.env.render()
        assert images is not None
        return [np.asarray(image) for image in images]

    def has_attr(self, attr_name: str) -> bool:
        # To ask for what is not there would end the process of an AsyncVectorEnv.
        return all(call_each(self.env, "has_wrapper_attr", attr_name))

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        inner = self.env.unwrapped
        if hasattr(inner, "envs"):
            return [inner.envs[i].get_wrapper_attr(attr_name) for i in self._get_indices(indices)]
        self._require(attr_name)
        values = call_each(self.env, "get_wrapper_attr", attr_name)
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        inner = self.env.unwrapped
        if hasattr(inner, "envs"):
            for i in self._get_indices(indices):
                inner.envs[i].set_wrapper_attr(attr_name, value)
        elif hasattr(inner, "set_attr"):
            known = indices is not None and self.has_attr(attr_name)
            values = self.get_attr(attr_name) if known else [None] * self.num_envs
            for i in self._get_indices(indices):
                values[i] = value
            inner.set_attr(attr_name, values)
        elif indices is None:
            setattr(inner, attr_name, value)
        else:
            raise ValueError(f"indices must be None for {inner}, which is one object, got {indices}")

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        inner = self.env.unwrapped
        self._require(method_name)
        if hasattr(inner, "envs"):
            envs = [inner.envs[i] for i in self._get_indices(indices)]
            return [env.get_wrapper_attr(method_name)(*method_args, **method_kwargs) for env in envs]
        if indices is not None:
            raise ValueError(f"indices must be None for {inner}, which runs methods in all environments, got {indices}")
        return list(call_each(self.env, method_name, *method_args, **method_kwargs))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        if self.monitor and wrapper_class is Monitor:
            return [True for _ in self._get_indices(indices)]
        envs = getattr(self.env.unwrapped, "envs", None)
        return [envs is not None and is_wrapped(envs[i], wrapper_class) for i in self._get_indices(indices)]

    def _require(self, name: str) -> None:
        if not self.has_attr(name):
            raise AttributeError(f"{self.env.unwrapped} has no attribute {name!r}")


def check_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Raise ValueError for spaces that no agent supports, the same for environments of every kind."""
    parts = observation_space.spaces.values() if isinstance(observation_space, spaces.Dict) else [observation_space]
    if not all(_is_observed(part) for part in parts):
        advice = ": wrap each environment in gymnasium.wrappers.FlattenObservation" if has_fixed_size(observation_space) else ""
        raise ValueError(
            "observation_space must be Box or MultiBinary with a dimension, Discrete or flat MultiDiscrete from 0 on, or a "
            f"Dict of these, got {_in_one_line(observation_space)}{advice}"
        )
    if not _is_acted_in(action_space):
        raise ValueError(
            "action_space must be a Box with finite bounds, Discrete or flat MultiDiscrete from 0 on, or flat MultiBinary, "
            f"got {_in_one_line(action_space)}: leave ClipAction out, since agents clip actions, or take TransformAction"
        )


def _in_one_line(space: spaces.Space) -> str:
    return " ".join(str(space).split())


def _is_observed(space: spaces.Space) -> bool:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return _is_flat_from_zero(space)
    return isinstance(space, spaces.Box | spaces.MultiBinary) and len(space.shape) > 0


def _is_acted_in(space: spaces.Space) -> bool:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return _is_flat_from_zero(space)
    if isinstance(space, spaces.Box):
        return bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
    return isinstance(space, spaces.MultiBinary) and len(space.shape) == 1


def _is_flat_from_zero(space: spaces.Discrete | spaces.MultiDiscrete) -> bool:
    return np.ndim(space.start) <= 1 and not np.any(space.start)


def _autoreset_mode(env: VectorEnv) -> AutoresetMode:
    told = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)  # as Gymnasium's wrappers take it
    try:
        mode = AutoresetMode(told)
    except ValueError:
        modes = ", ".join(mode.value for mode in AutoresetMode)
        raise ValueError(f"autoreset_mode must be one of {modes}, got {told!r} in the metadata of {env}") from None
    inner = env.unwrapped
    if mode == AutoresetMode.NEXT_STEP and isinstance(inner, AsyncVectorEnv) and not inner.shared_memory:
        # Its processes do not take note of a reset between the end and the next step (Gymnasium 1.1 to 1.4).
        raise ValueError(
            f"env must begin ended episodes once, got {env} without shared memory, which begins them twice: "
            "make it with autoreset_mode=AutoresetMode.SAME_STEP"
        )
    return mode


def _rows(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Gymnasium's one dictionary of arrays as a dictionary for each environment."""
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for key, value in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        if isinstance(value, dict):
            values: Any = _rows(value, num_envs)
        else:  # Python's numbers, as the single environments tell them
            values = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != num_envs:
            raise ValueError(f"infos[{key!r}] must have an entry for each of {num_envs} environments, got {value!r}")
        for i in np.flatnonzero(infos.get(f"_{key}", np.ones(num_envs, dtype=bool))).tolist():
            rows[i][key] = values[i]
    return rows


def row_of(observations: Any, i: SupportsIndex) -> Any:
    """A copy of the observation of environment i; the object itself if each observation is an object."""
    if isinstance(observations, dict):
        return {key: row_of(part, i) for key, part in observations.items()}
    one = observations[i]
    return one if observations.dtype == object else np.array(one)
