"""Play with a trained agent, keeping its memory's state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Env
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from fw_rl.agents.environments import wrap_evaluation_env
from fw_rl.agents.finite import require_finite_observation
from fw_rl.agents.inference import rows_of
from fw_rl.agents.masks import has_masks, masks_of
from fw_rl.agents.normalization import frozen_statistics, warn_of_missing_normalizer
from fw_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from fw_rl.arguments import require
from fw_rl.cells import State, Stepper

__all__ = ["Player"]


class PlayedEpisode(NamedTuple):
    """The return of an episode, its length in steps, and whether a time limit cut it off."""

    total: float
    length: int
    truncated: bool


class Player:
    """An agent that plays in one environment, or in a batch of them; its memory's state is reset at each episode.

    `act` and `observe` take turns. They are `predict` without its bookkeeping, and faster, since the state stays in place.

    Args:
        model: A trained agent.

    Examples:
        >>> from fw_rl import RecurrentA2C
        >>> from fw_rl.envs import CatchVectorEnv
        >>> model = RecurrentA2C("RecurrentPolicy", CatchVectorEnv(64, n=16, m=3))
        >>> env, player = model.get_env(), Player(model)
        >>> observation = env.reset()
        >>> for _ in range(15):
        ...     observation, reward, done, info = env.step(player.act(observation))
        ...     player.observe(done)
        >>> returns = player.play(env, n_episodes=100)
    """

    def __init__(self, model: RecurrentOnPolicyAlgorithm) -> None:
        self.policy, self._normalizer = model.policy, model.get_vec_normalize_env()
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next observations are the first of episodes, in any number of environments."""
        self._stepper: Stepper | None = None
        self._starts = np.ones(0, dtype=bool)
        self._has_acted = False

    @property
    def state(self) -> State | None:
        """The memory's state, as the policy's cell takes it; None before the first act."""
        return None if self._stepper is None else self._stepper.state

    def act(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        deterministic: bool = True,
        action_masks: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """The action for an observation, or the actions for a batch of B, as the environment takes them.

        Args:
            observation: [B, ...] or [...], or a dictionary of such arrays.
            deterministic: Take the likeliest action; else draw one.
            action_masks: The allowed actions, [B, D] or [D], see `check_masks`.

        Raises:
            ValueError: If the number of environments has changed, if `observe` was not called since the last act, or if masks
                do not fit.
            FloatingPointError: For an observation that is not finite.
        """
        if self._has_acted:
            raise ValueError("act must come after player.observe(done) or player.reset(), got a second act")
        self.policy.set_training_mode(False)
        tensor, batched = self.policy.obs_to_tensor(observation)
        require_finite_observation(tensor)
        n_envs = rows_of(tensor)
        if self._stepper is None:
            self._stepper = self.policy.cell.stepper(self.policy.initial_state(n_envs))
            self._starts = np.ones(n_envs, dtype=bool)
        if n_envs != len(self._starts):
            raise ValueError(f"observation must have {len(self._starts)} rows until player.reset(), got {n_envs}")
        masks = self.policy.mask_tensor(action_masks, n_envs)
        starts = torch.as_tensor(self._starts, device=self.policy.device)
        actions, _ = self.policy.act(tensor, self._stepper, starts, deterministic, masks)
        self._has_acted = True
        in_env = self.policy.to_env_actions(actions)
        return in_env if batched else in_env[0]

    def observe(self, done: ArrayLike) -> None:
        """Record whether the episode ended with the last action.

        Args:
            done: [B], or a bool.

        Raises:
            ValueError: Before the first act, or for another number of environments.
        """
        if not self._has_acted:
            raise ValueError("observe must come after player.act(observation), got no act before it")
        if np.size(done) != len(self._starts):
            raise ValueError(f"done must have {len(self._starts)} entries, got {np.size(done)}")
        self._starts = np.array(done, dtype=bool).reshape(-1)
        self._has_acted = False

    def play(self, env: VecEnv | VectorEnv | Env, n_episodes: int, deterministic: bool = True) -> NDArray[np.float64]:
        """The returns [n_episodes] of complete episodes.

        They are those of a `Monitor` or a `RecordEpisodeStatistics` if each environment has one: what ends without its report,
        such as a life in an Atari game, is not a complete episode.

        Each environment plays as many episodes as the others, or one fewer, so that short episodes do not count more. No action
        is taken that an environment forbids by `action_masks`. A `VecNormalize` keeps its statistics as they are.

        Args:
            env: An SB3 `VecEnv`, a Gymnasium `VectorEnv` or an `Env`.
            n_episodes: Episodes over all environments.
            deterministic: Take the likeliest action; else draw one.

        Raises:
            ValueError: For a negative number of episodes.
        """
        return np.array([episode.total for episode in self.episodes(env, n_episodes, deterministic)], dtype=np.float64)

    def episodes(self, env: VecEnv | VectorEnv | Env, n_episodes: int, deterministic: bool = True) -> Iterator[PlayedEpisode]:
        """The episodes whose returns `play` gives, each when it has ended.

        Args:
            env: As in `play`.
            n_episodes: As in `play`.
            deterministic: As in `play`.
        """
        require("n_episodes", n_episodes, n_episodes >= 0, "at least 0")
        self.reset()
        env = wrap_evaluation_env(env)
        warn_of_missing_normalizer(self._normalizer, env)
        with frozen_statistics(env):
            yield from self._episodes(env, n_episodes, deterministic)

    def _episodes(self, env: VecEnv, n_episodes: int, deterministic: bool) -> Iterator[PlayedEpisode]:
        masked = has_masks(env)
        reported = any(all(env.env_is_wrapped(wrapper)) for wrapper in (Monitor, RecordEpisodeStatistics))
        left = np.array([(n_episodes + i) // env.num_envs for i in range(env.num_envs)])
        earned, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=int)
        observation = env.reset()
        while left.any():
            masks = masks_of(env) if masked else None
            observation, rewards, dones, infos = env.step(self.act(observation, deterministic, masks))  # type: ignore[arg-type]
            dones = np.asarray(dones, dtype=bool)
            self.observe(dones)
            earned += rewards
            lengths += 1
            for i in np.flatnonzero(dones & (left > 0)):
                if "episode" in infos[i] or not reported:
                    own = dict(r=earned[i], l=lengths[i]) | infos[i].get("episode", {})
                    yield PlayedEpisode(float(own["r"]), int(own["l"]), bool(infos[i].get("TimeLimit.truncated", False)))
                    left[i] -= 1
            earned[dones], lengths[dones] = 0.0, 0
