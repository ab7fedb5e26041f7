"""What a policy with a memory returns, step by step: actions, distributions and values, with the state to carry on."""

from __future__ import annotations

import warnings
from copy import copy
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    SquashedDiagGaussianDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from fw_rl.agents.finite import require_finite_observation
from fw_rl.agents.masks import check_masks, mask_logits
from fw_rl.agents.rollout import Observation, map_observation
from fw_rl.agents.spaces import torch_dtype
from fw_rl.cells import Cell, State, Stepper

__all__ = ["RecurrentInference", "add_time", "rows_of"]

AnyState = tuple[np.ndarray | Tensor, ...]
"""The memory's state, as `predict` returns it or as a cell does."""


class RecurrentInference(ActorCriticPolicy):
    """SB3's methods for one step of B environments, each with the memory's state and where episodes start.

    A derived class makes the nets: what `encode` needs, the cell, and SB3's heads.
    """

    cell: Cell
    hidden_size: int
    shared_cell: bool

    @property
    def device(self) -> torch.device:
        """Where the parameters are; SB3's property, which searches all modules, takes a tenth of the time of `predict`."""
        return self.value_net.weight.device

    def initial_state(self, n_envs: int) -> State:
        """The memory's state at the start of an episode.

        Args:
            n_envs: Rows B of the state.
        """
        return self.cell.initial_state(n_envs)

    def encode(self, observations: Observation, actor_only: bool = False) -> Tensor:
        """The cell's inputs, [T, B, I] or [T, B, 2 I], for observations [T, B, ...]."""
        raise NotImplementedError

    def remember(self, observations: Observation, state: State, episode_starts: Tensor) -> tuple[Tensor, State]:
        """Run encoder and cell over a sequence.

        Args:
            observations: [T, B, ...], or a dictionary of such tensors.
            state: The memory's state before them.
            episode_starts: [T, B] bool.

        Returns:
            The cell's outputs [T, B, H], and the state after them.
        """
        return self.cell(self.encode(observations), state, episode_starts)

    def act(
        self,
        observation: Observation,
        stepper: Stepper,
        episode_starts: Tensor,
        deterministic: bool = False,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Actions for one step of B environments, without gradient and without what is needed only for learning.

        Args:
            observation: [B, ...], or a dictionary of such tensors.
            stepper: A stepper of the policy's cell; it keeps the memory's state.
            episode_starts: [B] bool.
            deterministic: Take the likeliest action; else draw one.
            action_masks: The allowed actions, [B, D], see `check_masks`.

        Returns:
            Actions [B, ...], and the cell's outputs [B, H].
        """
        with torch.no_grad():
            latent = stepper.step(self.encode(map_observation(add_time, observation))[0], episode_starts)
            return self._sample_actions(latent, deterministic, action_masks), latent

    def forward(  # type: ignore[override]
        self,
        observation: Observation,
        state: AnyState,
        episode_starts: Tensor | np.ndarray,
        deterministic: bool = False,
        action_masks: ArrayLike | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """One step of B environments, as SB3's `forward`: actions, values [B], log-probabilities [B], and the new state."""
        latent, new_state = self._remember_step(observation, state, episode_starts)
        distribution = self._distribution(latent, self.mask_tensor(action_masks, len(latent)))
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self._value(latent), distribution.log_prob(actions), new_state

    def get_distribution(  # type: ignore[override]
        self,
        observation: Observation,
        state: AnyState,
        episode_starts: Tensor | np.ndarray,
        action_masks: ArrayLike | None = None,
    ) -> tuple[Distribution, State]:
        """The distribution over actions, and the new state.

        Args:
            observation: [B, ...], or a dictionary of such tensors; `obs_to_tensor` makes them.
            state: What `predict` or an earlier call returned, or `initial_state(B)`.
            episode_starts: Where the observation is the first of an episode, [B], bool or 0 and 1.
            action_masks: The allowed actions, [B, D], see `check_masks`.

        Examples:
            >>> from fw_rl import RecurrentPPO
            >>> policy = RecurrentPPO("RecurrentPolicy", "CartPole-v1").policy
            >>> observation, _ = policy.obs_to_tensor(np.zeros((3, 4), dtype=np.float32))
            >>> distribution, state = policy.get_distribution(observation, policy.initial_state(3), np.ones(3))
            >>> distribution.distribution.probs.shape
            torch.Size([3, 2])
        """
        latent, new_state = self._remember_step(observation, state, episode_starts)
        return self._distribution(latent, self.mask_tensor(action_masks, len(latent))), new_state

    def predict_values(  # type: ignore[override]
        self, observation: Observation, state: AnyState, episode_starts: Tensor | np.ndarray
    ) -> Tensor:
        """Values [B], with the arguments of `get_distribution`; the state does not change."""
        return self._value(self._remember_step(observation, state, episode_starts)[0])

    def predict(  # type: ignore[override]
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """The action for an observation, or for a batch of them, as SB3's `predict` gives it.

        It warns if an episode continues without a state, since its past is then forgotten; sb3-contrib's maskable
        `evaluate_policy`, for one, passes no state on.

        Args:
            observation: [B, ...] or [...], or a dictionary of such arrays.
            state: What the last call returned; None begins new episodes.
            episode_start: [B] bool, or one for all, True where the observation is the first of an episode; required with a
                state.
            deterministic: Take the likeliest action; else draw one.
            action_masks: The allowed actions, [B, D] or [D], in the order of sb3-contrib.

        Raises:
            ValueError: For a state without `episode_start` or with another number of rows, for masks that do not fit, and for
                the pair that Gymnasium's `reset` returns.
            FloatingPointError: For an observation that is not finite.
        """
        if isinstance(observation, tuple):
            raise ValueError(
                "observation must be an array or a dict of arrays, got a tuple: "
                "of Gymnasium's `observation, info = env.reset()` pass the observation"
            )
        if state is not None and episode_start is None:
            raise ValueError("episode_start must be the dones of the step before where a state is given, got None")
        if self.training:  # to look through all modules would take longer than to act
            self.set_training_mode(False)
        tensor, batched = self.obs_to_tensor(observation)
        require_finite_observation(tensor)
        n_envs = rows_of(tensor)
        starts = np.array(state is None if episode_start is None else episode_start, dtype=bool)
        starts = np.full(n_envs, starts) if starts.ndim == 0 else starts
        if state is None and not starts.all():
            warnings.warn(
                "episode_start says that an episode goes on, but no state came with it: it is forgotten", stacklevel=3
            )
        memory, episode_starts = self._before_step(n_envs, self.initial_state(n_envs) if state is None else state, starts)
        stepper = self.cell.stepper(memory)
        actions, _ = self.act(tensor, stepper, episode_starts, deterministic, self.mask_tensor(action_masks, n_envs))
        in_env = self.to_env_actions(actions)
        return in_env if batched else in_env.squeeze(axis=0), tuple(part.contiguous().cpu().numpy() for part in stepper.state)

    def _predict(self, *args: Any, **kwargs: Any) -> NoReturn:  # type: ignore[override]
        """Raises NotImplementedError: SB3 calls it without the memory's state."""
        raise NotImplementedError("call predict or forward: _predict of SB3 has no place for the memory's state")

    def mask_tensor(self, action_masks: ArrayLike | Tensor | None, n_envs: int) -> Tensor | None:
        """Checked masks as a tensor [B, D], or None for None.

        Args:
            action_masks: The allowed actions, [B, D] bool, or [D] for one environment.
            n_envs: B.
        """
        if action_masks is None:
            return None
        masks = action_masks.cpu().numpy() if isinstance(action_masks, Tensor) else action_masks
        return torch.as_tensor(check_masks(masks, self.action_space, n_envs), device=self.device)

    def to_env_actions(self, actions: Tensor) -> np.ndarray:
        """Actions as the environment takes them: in the space's shape and type, rounded for integers, clipped for a Box.

        Args:
            actions: As they were sampled, [B, ...].
        """
        return self.fit_actions(actions).numpy(force=True)

    def fit_actions(self, actions: Tensor) -> Tensor:
        """`to_env_actions` for an environment that takes tensors on the policy's device.

        Args:
            actions: As they were sampled, [B, ...].
        """
        space = self.action_space
        actions = actions.reshape(-1, *(space.shape or ()))
        if isinstance(space, spaces.Box):
            low, high = (torch.as_tensor(bound, device=self.device) for bound in self._action_bounds)
            if self.squash_output:
                actions = low + (actions + 1) / 2 * (high - low)  # which may be outside by a rounding
            if np.issubdtype(space.dtype, np.integer):
                actions = actions.round()
            actions = actions.clamp(low, high)
        return actions.to(torch_dtype(space))

    @cached_property
    def _action_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lowest and the highest action in a Box."""
        if not isinstance(self.action_space, spaces.Box):  # whoever looks at every attribute takes this for none
            raise AttributeError(f"only actions in a Box have bounds, got {self.action_space}")
        return self.action_space.low.astype(np.float64), self.action_space.high.astype(np.float64)

    def _sample_actions(self, latent: Tensor, deterministic: bool, masks: Tensor | None = None) -> Tensor:
        if not isinstance(self.action_dist, CategoricalDistribution):
            return self._distribution(latent, masks).get_actions(deterministic=deterministic)
        logits = self._logits(latent, masks)
        if not deterministic:  # the Gumbel-max trick: an SB3 distribution for a sample alone takes longer than the cell
            logits = logits - torch.empty_like(logits).exponential_().log_()
        return logits.argmax(dim=1)

    def _judge_actions(self, latent: Tensor, actions: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies [N] of actions [N, ...], for the cell's outputs [N, H]."""
        if isinstance(self.action_dist, CategoricalDistribution):  # in a third of the time of an SB3 distribution
            log_probs = self._logits(latent, masks).log_softmax(dim=1)
            return log_probs.gather(1, actions.long().unsqueeze(1)).squeeze(1), -(log_probs.exp() * log_probs).sum(dim=1)
        distribution = self._distribution(latent, masks)
        log_prob, entropy = distribution.log_prob(actions), distribution.entropy()
        if isinstance(distribution, SquashedDiagGaussianDistribution):
            entropy = -distribution.log_prob(distribution.sample(), distribution.gaussian_actions)
        assert entropy is not None
        return log_prob, entropy

    def _logits(self, latent: Tensor, masks: Tensor | None) -> Tensor:
        logits: Tensor = self.action_net(self._actor_latent(latent))
        return logits if masks is None else mask_logits(logits, masks, self.action_space)

    def _distribution(self, latent: Tensor, masks: Tensor | None = None) -> Distribution:
        """A separate distribution, which a later one does not change."""
        numbers, distribution = self.action_net(self._actor_latent(latent)), copy(self.action_dist)
        gaussian = isinstance(distribution, DiagGaussianDistribution)
        if not torch.compiler.is_compiling():  # after which Torch's own checks are off in the whole process
            deviations = self.log_std.exp() if gaussian else None
            if not (numbers.isfinite().all() and (deviations is None or (deviations.isfinite() & (deviations > 0)).all())):
                raise FloatingPointError("the distribution over actions is not finite: train with a lower learning rate")
        if gaussian:
            return distribution.proba_distribution(numbers, self.log_std)  # type: ignore[call-arg, arg-type]
        logits = numbers if masks is None else mask_logits(numbers, masks, self.action_space)
        return distribution.proba_distribution(action_logits=logits)  # type: ignore[call-arg]

    def _value(self, latent: Tensor) -> Tensor:
        of_critic = latent if self.shared_cell else latent[..., self.hidden_size :]
        return self.value_net(self.mlp_extractor.forward_critic(of_critic)).squeeze(-1)

    def _actor_latent(self, latent: Tensor) -> Tensor:
        of_actor = latent if self.shared_cell else latent[..., : self.hidden_size]
        return self.mlp_extractor.forward_actor(of_actor)

    def _remember_step(
        self, observation: Observation, state: AnyState, episode_starts: Tensor | np.ndarray
    ) -> tuple[Tensor, State]:
        """The cell's outputs [B, H] for one step, and the new state."""
        memory, starts = self._before_step(rows_of(observation), state, episode_starts)
        latent, new_state = self.remember(map_observation(add_time, observation), memory, starts.unsqueeze(0))
        return latent[0], new_state

    def as_state(self, state: AnyState) -> State:
        """A state from `predict`, or from JSON, as the cell takes it.

        Args:
            state: Arrays or tensors [B, ...].
        """
        device, dtype = self.device, self.value_net.weight.dtype
        parts = (torch.as_tensor(part, device=device) for part in state)
        return tuple(part.to(dtype) if part.dtype != dtype and part.is_floating_point() else part for part in parts)

    def _before_step(self, n_envs: int, state: AnyState, episode_starts: Tensor | np.ndarray) -> tuple[State, Tensor]:
        """State and episode starts [B] (bool) as tensors; ValueError unless they have as many rows as observations."""
        memory = self.as_state(state)
        starts = torch.as_tensor(episode_starts, device=self.device).bool()
        self.cell.check_state(memory)
        if len(memory[0]) != n_envs:
            raise ValueError(f"state must have {n_envs} rows, as many as observations, got {len(memory[0])}")
        if starts.shape != (n_envs,):
            got = len(starts) if starts.dim() == 1 else f"shape {list(starts.shape)}"
            raise ValueError(f"episode_start must have {n_envs} entries, as many as observations, got {got}")
        return memory, starts


def rows_of(observation: Observation) -> int:
    """The B of an observation [B, ...]."""
    return len(next(iter(observation.values())) if isinstance(observation, dict) else observation)


def add_time(part: Tensor) -> Tensor:
    """[B, ...] as a sequence of one step, [1, B, ...]."""
    return part.unsqueeze(0)
