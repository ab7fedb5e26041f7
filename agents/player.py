"""Who plays with a trained agent, and remembers for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import Env
from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike, NDArray
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.vec_env import VecEnv

from fw_rl.agents.a2c import RecurrentA2C
from fw_rl.agents.policy import rows_of
from fw_rl.cells import State, Stepper

__all__ = ["Player"]


class Player:
    """An agent at play in one environment, or in a batch of them: it remembers for each, and forgets when an episode ends.

    `act` and `observe` take turns. They are `predict` without its bookkeeping, and faster, for the memory stays where it is.

    >>> from fw_rl.agents import RecurrentA2C
    >>> from fw_rl.envs import CatchVectorEnv
    >>> model = RecurrentA2C("RecurrentPolicy", CatchVectorEnv(64, n=16, m=3))
    >>> env, player = model.get_env(), Player(model)
    >>> observation = env.reset()
    >>> for _ in range(15):
    ...     observation, reward, done, info = env.step(player.act(observation))
    ...     player.observe(done)
    >>> returns = player.play(env, n_episodes=100)
    """

    def __init__(self, model: RecurrentA2C) -> None:
        self.policy = model.policy
        self.reset()

    def reset(self) -> None:
        """Forget all: the next observations are the first of episodes, in any number of environments."""
        self._stepper: Stepper | None = None
        self._starts = np.ones(0, dtype=bool)
        self._has_acted = False

    @property
    def state(self) -> State | None:
        """What the memory holds, as the policy's cell takes it; None before the first act."""
        return None if self._stepper is None else self._stepper.state

    def act(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        deterministic: bool = True,
        action_masks: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """The action for an observation, or the actions for a batch of B, as the environment takes them.

        `action_masks`: [B, D] or [D], what is allowed, see `check_masks`.

        Raises ValueError if the number of environments has changed, if nothing was observed since the last act, and for masks
        that don't fit.
        """
        if self._has_acted:
            raise ValueError("say what came of the last action: player.observe(done), or player.reset()")
        self.policy.set_training_mode(False)
        tensor, batched = self.policy.obs_to_tensor(observation)
        n_envs = rows_of(tensor)
        if self._stepper is None:
            self._stepper = self.policy.cell.stepper(self.policy.initial_state(n_envs))
            self._starts = np.ones(n_envs, dtype=bool)
        if n_envs != len(self._starts):
            raise ValueError(
                f"there are {n_envs} observations for a player of {len(self._starts)} environments: reset it first"
            )
        masks = self.policy.mask_tensor(action_masks, n_envs)
        starts = torch.as_tensor(self._starts, device=self.policy.device)
        actions, _ = self.policy.act(tensor, self._stepper, starts, deterministic, masks)
        self._has_acted = True
        in_env = self.policy.to_env_actions(actions)
        return in_env if batched else in_env[0]

    def observe(self, done: ArrayLike) -> None:
        """Take note of what came of the last action: whether the episode ended; [B], or a bool.

        Raises ValueError before the first act, and for another number of environments.
        """
        if not self._has_acted:
            raise ValueError("there is no action to which this could be the answer: call player.act first")
        if np.size(done) != len(self._starts):
            raise ValueError(f"done has {np.size(done)} entries for {len(self._starts)} environments")
        self._starts = np.array(done, dtype=bool).reshape(-1)
        self._has_acted = False

    def play(self, env: VecEnv | VectorEnv | Env, n_episodes: int, deterministic: bool = True) -> NDArray[np.float64]:
        """The returns [n_episodes] of episodes from their start to their end; those of a `Monitor` where there is one.

        `env`: an SB3 `VecEnv`, a Gymnasium `VectorEnv` or an `Env`. Each plays as many as the others, or one fewer,
        so that short episodes do not count more. What an environment forbids by `action_masks` is not done.
        """
        self.reset()
        env = env if isinstance(env, VecEnv) else RecurrentA2C._wrap_env(env)
        masked = is_masking_supported(env)
        left = np.array([(n_episodes + i) // env.num_envs for i in range(env.num_envs)])
        earned, returns = np.zeros(env.num_envs), []
        observation = env.reset()
        while left.any():
            masks = get_action_masks(env) if masked else None
            observation, rewards, dones, infos = env.step(self.act(observation, deterministic, masks))  # type: ignore[arg-type]
            self.observe(dones)
            earned += rewards
            for i in np.flatnonzero(dones & (left > 0)):
                returns.append(infos[i].get("episode", {}).get("r", earned[i]))
                left[i] -= 1
            earned[dones] = 0.0
        return np.array(returns, dtype=np.float64)
