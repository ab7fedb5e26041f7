"""A rollout: what a batch of environments did between two updates, and the advantages computed on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from fw_rl.cells import State

__all__ = [
    "Observation",
    "RecurrentRollout",
    "RolloutSequences",
    "generalized_advantages",
    "map_observation",
]

Observation = Tensor | dict[str, Tensor]
"""A tensor, or one for each key of a Dict space."""
Evaluate = Callable[["RolloutSequences"], tuple[Tensor, Tensor]]
"""What gives values and log-probabilities of sequences, each [L, S]."""
NumpyObservation = NDArray[Any] | dict[str, NDArray[Any]]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_observation(function: Callable[[_In], _Out], observation: _In | dict[str, _In]) -> _Out | dict[str, _Out]:
    """The function of an observation, or of each part of a Dict observation."""
    if isinstance(observation, dict):
        return {key: function(part) for key, part in observation.items()}
    return function(observation)


class RolloutSequences(NamedTuple):
    """S sequences of L steps through which a gradient flows, as the policy's `evaluate_actions` takes them.

    Tensors are [L, S, ...], but for the memory's state before the first step, [S, ...]. `outputs` are the cell's while acting,
    None if the parameters have changed since.
    """

    observations: Observation
    actions: Tensor
    state: State
    episode_starts: Tensor
    outputs: Tensor | None
    action_masks: Tensor | None = None


class RecurrentRollout:
    """`n_steps` steps of `n_envs` environments in [T, B, ...] arrays, with the memory's state where a sequence begins.

    The states in between are not kept: the cell finds them again from `state`. It takes the place of SB3's `RolloutBuffer` and
    is constructed like it; a sequence has `bptt_length` steps, the last one what is left of `n_steps`.
    """

    def __init__(
        self,
        n_steps: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "cpu",
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        n_envs: int = 1,
        bptt_length: int | None = None,
    ) -> None:
        def zeros(space: spaces.Space) -> NDArray[Any]:
            if space.shape is None:
                raise ValueError(f"spaces must be of arrays, or a Dict of arrays, got {space}, which has no shape")
            return np.zeros((n_steps, n_envs, *space.shape), dtype=space.dtype)

        self.n_steps, self.n_envs, self.gamma, self.gae_lambda = n_steps, n_envs, gamma, gae_lambda
        self.bptt_length = bptt_length or n_steps
        self.device = device
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else observation_space
        self._observations = map_observation(zeros, parts)
        self._episode_starts = np.zeros((n_steps, n_envs), dtype=bool)
        self.rewards = np.zeros((n_steps, n_envs), dtype=np.float32)
        self._evaluate: Evaluate | None = None
        self.last_dones = np.zeros(n_envs, dtype=bool)
        self.last_values = np.zeros(n_envs, dtype=np.float32)
        self.reset()

    def reset(self) -> None:
        """Begin a new rollout."""
        self.pos = 0
        self.states: list[State] = []
        self._actions: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._stacked: Tensor | None = None
        self._action_masks: NDArray[np.bool_] | None = None
        self._evaluated: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    @property
    def starts_sequence(self) -> bool:
        """Whether a sequence begins at this step, so that it needs the memory's state."""
        return self.pos == len(self.states) * self.bptt_length

    def add_state(self, state: State) -> None:
        """Begin a sequence with the memory's state before this step."""
        self.states.append(state)

    def add_observation(self, observation: NumpyObservation, episode_starts: NDArray[np.bool_]) -> tuple[Observation, Tensor]:
        """Keep observation [B, ...] and episode starts [B] of this step, and return them as tensors."""
        if isinstance(self._observations, dict):
            for key, part in self._observations.items():
                part[self.pos] = observation[key]
        else:
            self._observations[self.pos] = observation
        self._episode_starts[self.pos] = episode_starts
        seen = map_observation(lambda part: self._tensor(part[self.pos]), self._observations)
        return seen, self._tensor(self._episode_starts[self.pos])

    def add_action_masks(self, masks: NDArray[np.bool_]) -> Tensor:
        """Keep the allowed actions [B, D] of this step, and return them as a tensor."""
        if self._action_masks is None:
            self._action_masks = np.ones((self.n_steps, *masks.shape), dtype=bool)
        self._action_masks[self.pos] = masks
        return self._tensor(self._action_masks[self.pos])

    def add(self, actions: Tensor, rewards: NDArray[np.float32], outputs: Tensor) -> None:
        """Keep sampled actions [B, ...], rewards [B] and the cell's outputs [B, H] of this step, and go on to the next."""
        self._actions.append(actions)
        self._outputs.append(outputs)
        self.rewards[self.pos] = rewards
        self.pos += 1

    def finish(self, last_dones: NDArray[np.bool_], last_values: NDArray[np.float32], evaluate: Evaluate | None = None) -> None:
        """End the rollout with the last dones [B] and the values [B] of the observations after it, 0 where it is done.

        `evaluate` gives `values` and `log_probs` of the sequences, by the policy that acted, if they are read.
        """
        self.last_dones, self.last_values, self._evaluate = last_dones, last_values, evaluate

    def add_evaluation(self, values: Tensor, log_probs: Tensor) -> None:
        """Keep values and log-probabilities [T, B] of the policy that acted, before learning changes it."""
        self._evaluated = values.cpu().numpy(), log_probs.cpu().numpy()

    def sequences(self) -> Iterator[RolloutSequences]:
        """The sequences of all B environments over `bptt_length` steps, one time window after another."""
        observations, actions, starts, outputs = self.observations, self.actions, self.episode_starts, self.outputs
        masks = self.action_masks
        for i, state in enumerate(self.states):
            steps = slice(i * self.bptt_length, (i + 1) * self.bptt_length)
            seen = map_observation(itemgetter(steps), observations)
            allowed = None if masks is None else masks[steps]
            yield RolloutSequences(seen, actions[steps], state, starts[steps], outputs[steps], allowed)

    @property
    def observations(self) -> Observation:
        """[T, B, ...], or a dictionary of such tensors."""
        return map_observation(self._tensor, self._observations)

    @property
    def actions(self) -> Tensor:
        """As they were sampled, not rounded or clipped as for the environment, [T, B, ...]."""
        return torch.stack(self._actions)

    @property
    def action_masks(self) -> Tensor | None:
        """The allowed actions, [T, B, D]; None if all are."""
        return None if self._action_masks is None else self._tensor(self._action_masks)

    @property
    def outputs(self) -> Tensor:
        """The cell's outputs while acting, [T, B, H]."""
        if self._stacked is None or len(self._stacked) < len(self._outputs):
            self._stacked = torch.stack(self._outputs)
        return self._stacked

    @property
    def episode_starts(self) -> Tensor:
        """[T, B] bool."""
        return self._tensor(self._episode_starts)

    @property
    def values(self) -> NDArray[np.float32]:
        """Of the observations, [T, B], by the policy that acted; computed where nobody asked for them before."""
        return self._evaluation[0]

    @property
    def log_probs(self) -> NDArray[np.float32]:
        """Of the actions, [T, B], as `values`."""
        return self._evaluation[1]

    @property
    def advantages(self) -> NDArray[np.float32]:
        """Generalised advantages [T, B]."""
        ends = np.vstack([self._episode_starts[1:], self.last_dones])
        return generalized_advantages(self.rewards, self.values, ends, self.last_values, self.gamma, self.gae_lambda)

    @property
    def returns(self) -> NDArray[np.float32]:
        """What the values should have been, [T, B]: advantages and values."""
        return self.advantages + self.values

    @property
    def buffer_size(self) -> int:
        """T, as SB3 calls it."""
        return self.n_steps

    @property
    def full(self) -> bool:
        """Whether all T steps are there."""
        return self.pos == self.n_steps

    def size(self) -> int:
        """The steps that are there."""
        return self.pos

    @property
    def _evaluation(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self._evaluated is None:
            if self._evaluate is None:
                raise ValueError("values must be read after the rollout's end, got a rollout that goes on")
            with torch.no_grad():
                evaluated = [self._evaluate(sequences) for sequences in self.sequences()]
            self.add_evaluation(*(torch.cat(parts) for parts in zip(*evaluated, strict=True)))
        assert self._evaluated is not None
        return self._evaluated

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.as_tensor(array, device=self.device)


def generalized_advantages(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    ends: NDArray[np.bool_],
    last_values: NDArray[np.float32],
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float32]:
    """Generalised advantage estimates (Schulman et al. 2016, Eq. 16), cut off where an episode or the rollout ends.

        delta(t) = r(t) + gamma V(t+1) - V(t),    A(t) = delta(t) + gamma lambda A(t+1)

    `ends` [T, B] says where an episode ends with step t; `last_values` [B] are V after the rollout.
    """
    advantages = np.empty_like(rewards)
    advantage = np.zeros_like(last_values)
    next_values = last_values
    discount = gamma * ~ends
    for t in reversed(range(len(rewards))):
        error = rewards[t] + discount[t] * next_values - values[t]
        advantage = error + gae_lambda * discount[t] * advantage
        advantages[t] = advantage
        next_values = values[t]
    return advantages
