"""Observations that also show the last action and its reward, for agents that have to remember what they did."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

__all__ = ["PreviousStep", "VecPreviousStep"]

ACTION, REWARD = "previous_action", "previous_reward"


class _Extension:
    """How observations are extended: a Dict with `previous_action` and `previous_reward`, if wanted."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, action: bool, reward: bool) -> None:
        if not (action or reward):
            raise ValueError("action or reward must be True, got False for both")
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else dict(observation=observation_space)
        if taken := {ACTION, REWARD} & set(parts):
            raise ValueError(f"observation_space must have no part of the name that is added, got {', '.join(sorted(taken))}")
        self.action_space = action_space
        added: dict[str, spaces.Space] = {}
        if action:
            size = _encode(action_space, np.asarray(action_space.sample())[None]).shape[1]
            low, high = (0.0, 1.0) if not isinstance(action_space, spaces.Box) else (-np.inf, np.inf)
            added[ACTION] = spaces.Box(low, high, (size,), np.float32)
        if reward:
            added[REWARD] = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.added = added
        self.observation_space = spaces.Dict({**parts, **added})

    def first(self, observation: Any, n_envs: int) -> dict[str, Any]:
        """The observation of B environments before the first action."""
        blank = {name: np.zeros((n_envs, *(space.shape or ())), np.float32) for name, space in self.added.items()}
        return _parts(observation) | blank

    def after(self, observation: Any, actions: NDArray[Any], rewards: NDArray[Any]) -> dict[str, Any]:
        """The observation of B environments after these actions and rewards [B]."""
        # Copies, which the next episode may blank.
        told = {ACTION: _encode(self.action_space, actions), REWARD: np.array(rewards, dtype=np.float32).reshape(-1, 1)}
        return _parts(observation) | {name: told[name] for name in self.added}


class PreviousStep(gym.Wrapper[Any, Any, Any, Any]):
    """A Gymnasium environment whose observations also show the previous action and reward.

    The observation becomes a Dict: what was observed as `observation` (or by its own keys if it is a Dict), `previous_action`
    [A], one-hot where it is a choice, and `previous_reward` [1]. Both are 0 at the first step of an episode.

    Args:
        env: The environment.
        action: Whether the previous action is shown.
        reward: Whether the previous reward is shown.

    Raises:
        ValueError: If neither is shown, or if observations are a Dict that already has such a key.

    Examples:
        >>> from stable_baselines3.common.env_util import make_vec_env
        >>> env = make_vec_env("CartPole-v1", n_envs=8, wrapper_class=PreviousStep)
        >>> sorted(env.reset())
        ['observation', 'previous_action', 'previous_reward']
    """

    def __init__(self, env: gym.Env[Any, Any], action: bool = True, reward: bool = True) -> None:
        super().__init__(env)
        self._extension = _Extension(env.observation_space, env.action_space, action, reward)
        self.observation_space = self._extension.observation_space

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        return self._one(self._extension.first(observation, 1)), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        extended = self._extension.after(observation, np.asarray(action)[None], np.array([reward]))
        return self._one(extended), reward, terminated, truncated, info

    def _one(self, observation: dict[str, Any]) -> dict[str, Any]:
        return observation | {name: observation[name][0] for name in self._extension.added}


class VecPreviousStep(VecEnvWrapper):
    """An SB3 `VecEnv` whose observations also show the previous action and reward, as `PreviousStep` does for one environment.

    Args:
        venv: The environments.
        action: Whether the previous action is shown.
        reward: Whether the previous reward is shown.

    Raises:
        ValueError: If neither is shown, or if observations are a Dict that already has such a key.

    Examples:
        >>> from fw_rl.envs import CatchVectorEnv, VecEnvAdapter
        >>> env = VecPreviousStep(VecEnvAdapter(CatchVectorEnv(64, n=16, m=3), monitor=True))
        >>> env.reset()["previous_action"].shape
        (64, 3)
    """

    def __init__(self, venv: VecEnv, action: bool = True, reward: bool = True) -> None:
        self._extension = _Extension(venv.observation_space, venv.action_space, action, reward)
        super().__init__(venv, observation_space=self._extension.observation_space)

    def reset(self) -> VecEnvObs:
        return self._extension.first(self.venv.reset(), self.num_envs)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        observation, rewards, dones, infos = self.venv.step_wait()
        extended = self._extension.after(observation, self._actions, rewards)
        ended = np.flatnonzero(dones)
        for i in ended:
            added = {name: extended[name][i].copy() for name in self._extension.added}
            infos[i]["terminal_observation"] = _parts(infos[i]["terminal_observation"]) | added
        for name in self._extension.added:
            extended[name][ended] = 0.0
        return extended, rewards, dones, infos


def _parts(observation: Any) -> dict[str, Any]:
    return dict(observation) if isinstance(observation, dict) else dict(observation=observation)


def _encode(space: spaces.Space, actions: NDArray[Any]) -> NDArray[np.float32]:
    """Actions [B, ...] as numbers [B, A]: choices one-hot, all others as they are."""
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[actions.reshape(-1) - int(space.start)]
    flat = actions.reshape(len(actions), -1)
    if isinstance(space, spaces.MultiDiscrete):
        chosen = zip(space.nvec.flatten(), (flat - space.start.flatten()).T, strict=True)
        return np.concatenate([np.eye(n, dtype=np.float32)[column] for n, column in chosen], axis=1)
    return flat.astype(np.float32)
