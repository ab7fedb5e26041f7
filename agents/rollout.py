"""One chunk of experience from a batch of environments, and the advantages computed on it."""

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

__all__ = ["Observation", "Piece", "RecurrentRollout", "generalized_advantages", "map_observation"]

Observation = Tensor | dict[str, Tensor]
"""A tensor, or one for each key of a Dict space."""
NumpyObservation = NDArray[Any] | dict[str, NDArray[Any]]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_observation(function: Callable[[_In], _Out], observation: _In | dict[str, _In]) -> _Out | dict[str, _Out]:
    """Apply a function to an observation, or to each part of a Dict observation."""
    if isinstance(observation, dict):
        return {key: function(part) for key, part in observation.items()}
    return function(observation)


class Piece(NamedTuple):
    """L steps of a chunk through which a gradient flows, as `evaluate_actions` of the policy takes them.

    `observations`, `actions`: [L, B, ...]. `state`: the memory before them. `episode_starts`: [L, B] bool. `outputs`: what the
    cell put out while acting, [L, B, H]; None if the parameters have changed since. `action_masks`: what was allowed,
    [L, B, D]; None if everything was.
    """

    observations: Observation
    actions: Tensor
    state: State
    episode_starts: Tensor
    outputs: Tensor | None
    action_masks: Tensor | None = None

    def of(self, rows: Tensor) -> Piece:
        """The same steps of some of the environments, for parameters that may have changed."""
        observations = map_observation(lambda part: part[:, rows], self.observations)
        state = tuple(part[rows] for part in self.state)
        masks = None if self.action_masks is None else self.action_masks[:, rows]
        return Piece(observations, self.actions[:, rows], state, self.episode_starts[:, rows], None, masks)


class RecurrentRollout:
    """`n_steps` steps of `n_envs` environments in [T, B, ...] arrays, with the memory's state at a few of them.

    `bptt_length`: the state is kept at the start of each piece of so many steps (the last one may be shorter), from which
    `pieces` go; None keeps that of the chunk's start only. The states in between are not kept: whoever needs them runs the cell
    over the chunk from `state`. It takes the place of SB3's `RolloutBuffer` and is constructed like it.
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
        self.bptt_length = n_steps if bptt_length is None else bptt_length
        self.n_steps, self.n_envs, self.gamma, self.gae_lambda = n_steps, n_envs, gamma, gae_lambda
        self.device = device
        self._observations = _map_space(
            lambda space: np.zeros((n_steps, n_envs, *_shape(space)), dtype=space.dtype), observation_space
        )
        self._actions = np.zeros((n_steps, n_envs, *_shape(action_space)), dtype=action_space.dtype)
        self._episode_starts = np.zeros((n_steps, n_envs), dtype=bool)
        self.rewards = np.zeros((n_steps, n_envs), dtype=np.float32)
        self._outputs: list[Tensor] = []
        self._stacked: Tensor | None = None
        self._action_masks: NDArray[np.bool_] | None = None
        self.last_dones = np.zeros(n_envs, dtype=bool)
        self.last_values = np.zeros(n_envs, dtype=np.float32)
        self.reset(())

    def reset(self, state: State) -> None:
        """Begin to fill the chunk anew, from this state of the memory."""
        self._states = [state]
        self.position = 0
        self._outputs, self._stacked = [], None
        self._action_masks = None

    @property
    def state(self) -> State:
        """What the memory held at the chunk's start."""
        return self._states[0]

    @property
    def wants_state(self) -> bool:
        """Whether a piece begins at this step, so that the memory's state is to be kept by `keep_state`."""
        return self.position == len(self._states) * self.bptt_length

    def keep_state(self, state: State) -> None:
        """Begin a piece with this state of the memory."""
        self._states.append(state)

    def pieces(self) -> Iterator[Piece]:
        """The chunk in pieces of `bptt_length` steps."""
        observations, actions, starts, outputs = self.observations, self.actions, self.episode_starts, self.outputs
        masks = self.action_masks
        for i, state in enumerate(self._states):
            steps = slice(i * self.bptt_length, (i + 1) * self.bptt_length)
            seen = map_observation(itemgetter(steps), observations)
            allowed = None if masks is None else masks[steps]
            yield Piece(seen, actions[steps], state, starts[steps], outputs[steps], allowed)

    def see(self, observation: NumpyObservation, episode_starts: NDArray[np.bool_]) -> tuple[Observation, Tensor]:
        """Keep what the B environments show at this step and whether an episode begins there; returns both as tensors."""
        _write(self._observations, self.position, observation)
        self._episode_starts[self.position] = episode_starts
        at_step = map_observation(lambda part: part[self.position], self._observations)
        return self._tensors(at_step), self._tensor(self._episode_starts[self.position])

    def allow(self, masks: NDArray[np.bool_]) -> Tensor:
        """Keep which actions are allowed at this step, [B, D]; returns them as a tensor."""
        if self._action_masks is None:
            self._action_masks = np.ones((self.n_steps, *masks.shape), dtype=bool)
        self._action_masks[self.position] = masks
        return self._tensor(self._action_masks[self.position])

    def act(self, actions: Tensor, rewards: NDArray[np.float32], output: Tensor) -> None:
        """Keep what was done at this step, what it earned and what the cell put out [B, H], and go on to the next."""
        self._outputs.append(output)
        self._actions[self.position] = actions.cpu().numpy().reshape(self._actions.shape[1:])
        self.rewards[self.position] = rewards
        self.position += 1

    def end(self, dones: NDArray[np.bool_], values: NDArray[np.float32]) -> None:
        """Close the chunk: which episodes ended with it, and the value of what the others show next."""
        self.last_dones, self.last_values = dones, values

    @property
    def observations(self) -> Observation:
        """[T, B, ...]."""
        return self._tensors(self._observations)

    @property
    def actions(self) -> Tensor:
        """[T, B, ...]."""
        return self._tensor(self._actions)

    @property
    def action_masks(self) -> Tensor | None:
        """What was allowed, [T, B, D]; None if everything was."""
        return None if self._action_masks is None else self._tensor(self._action_masks)

    @property
    def outputs(self) -> Tensor:
        """What the cell put out while acting, [T, B, H]."""
        if self._stacked is None or len(self._stacked) < len(self._outputs):
            self._stacked = torch.stack(self._outputs)
        return self._stacked

    @property
    def episode_starts(self) -> Tensor:
        """[T, B] bool."""
        return self._tensor(self._episode_starts)

    def advantages(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Advantages [T, B] under value estimates [T, B]."""
        ends = np.vstack([self._episode_starts[1:], self.last_dones])
        return generalized_advantages(self.rewards, values, ends, self.last_values, self.gamma, self.gae_lambda)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.as_tensor(array, device=self.device)

    def _tensors(self, observation: NumpyObservation) -> Observation:
        return map_observation(self._tensor, observation)


def generalized_advantages(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    ends: NDArray[np.bool_],
    last_values: NDArray[np.float32],
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float32]:
    """Generalised advantage estimates (Schulman et al. 2016, Eq. 16), which are truncated where an episode or the chunk ends.

        delta(t) = r(t) + gamma V(t+1) - V(t),    A(t) = delta(t) + gamma lambda A(t+1)

    `rewards`, `values`: [T, B]. `ends`: [T, B], the episode ends with step t. `last_values`: [B], V after the chunk. Returns
    [T, B].
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


def _map_space(function: Callable[[spaces.Space], NDArray[Any]], space: spaces.Space) -> NumpyObservation:
    if isinstance(space, spaces.Dict):
        return {key: function(part) for key, part in space.spaces.items()}
    return function(space)


def _shape(space: spaces.Space) -> tuple[int, ...]:
    if space.shape is None:
        raise ValueError(f"{space} has no shape: observations and actions are arrays, or a Dict of arrays")
    return space.shape


def _write(storage: NumpyObservation, step: int, observation: NumpyObservation) -> None:
    if isinstance(storage, dict):
        for key, part in storage.items():
            part[step] = observation[key]
    else:
        storage[step] = observation
