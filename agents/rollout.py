"""A rollout: what a batch of environments did between two updates, and the advantages computed on it.

All of it is in Torch on the policy's device. SB3's callbacks get NumPy arrays where they read them, from `rewards` to
`returns`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from fw_rl.agents.returns import generalized_advantages
from fw_rl.agents.storage import StepStorage
from fw_rl.cells import State

__all__ = [
    "Observation",
    "RecurrentRollout",
    "RolloutSequences",
    "map_observation",
]

Observation = Tensor | dict[str, Tensor]
"""A tensor, or one for each key of a Dict space."""
Evaluate = Callable[["RolloutSequences"], tuple[Tensor, Tensor]]
"""A function from sequences to values and log-probabilities, each [L, S]."""
Scale = Callable[[Tensor, Tensor], Tensor]
"""A function from the environments' rewards and the episode starts, [T, B] each, to the rewards to learn from."""
NumpyObservation = NDArray[Any] | dict[str, NDArray[Any]]
Flags = NDArray[np.bool_] | Tensor

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_observation(function: Callable[[_In], _Out], observation: _In | dict[str, _In]) -> _Out | dict[str, _Out]:
    """The function of an observation, or of each part of a Dict observation."""
    if isinstance(observation, dict):
        return {key: function(part) for key, part in observation.items()}
    return function(observation)


class RolloutSequences(NamedTuple):
    """S sequences of L steps through which a gradient flows, as the policy's `evaluate_actions` takes them.

    Tensors are [L, S, ...], except for the memory's state before the first step, [S, ...]. `outputs` are the cell's while
    acting, None if the parameters have changed since.
    """

    observations: Observation
    actions: Tensor
    state: State
    episode_starts: Tensor
    outputs: Tensor | None
    action_masks: Tensor | None = None


class Targets(NamedTuple):
    """The learning targets of a rollout, [T, B] each; values and log-probabilities are those of the policy that acted."""

    advantages: Tensor
    returns: Tensor
    values: Tensor
    log_probs: Tensor


class RecurrentRollout:
    """`n_steps` steps of `n_envs` environments in [T, B, ...] tensors, with the memory's state where a sequence begins.

    The states in between are not kept: the cell computes them again from `state`. The class replaces SB3's `RolloutBuffer` and
    is constructed like it; a sequence has `bptt_length` steps, the last one the remainder of `n_steps`.
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
        def storage(space: spaces.Space) -> StepStorage:
            if space.shape is None:
                raise ValueError(f"spaces must be of arrays, or a Dict of arrays, got {space}, which has no shape")
            return StepStorage(n_steps, n_envs, space.shape, space.dtype, device)

        self.n_steps, self.n_envs, self.gamma, self.gae_lambda = n_steps, n_envs, gamma, gae_lambda
        self.bptt_length = bptt_length or n_steps
        self.device = torch.device(device)
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else observation_space
        self._observations = map_observation(storage, parts)
        self._episode_starts = StepStorage(n_steps, n_envs, (), bool, device)
        self._rewards = StepStorage(n_steps, n_envs, (), np.float32, device)
        self.last_dones = torch.zeros(n_envs, dtype=torch.bool, device=device)
        self.last_values = torch.zeros(n_envs, device=device)
        self.reset()

    def reset(self) -> None:
        """Begin a new rollout."""
        self.pos = 0
        self.states: list[State] = []
        self._actions: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._stacked: Tensor | None = None
        self._action_masks: StepStorage | None = None
        self._bootstraps: list[tuple[int, Tensor]] = []
        self._evaluate: Evaluate | None = None
        self._evaluated: tuple[Tensor, Tensor] | None = None

    @property
    def starts_sequence(self) -> bool:
        """Whether a sequence begins at this step and needs the memory's state."""
        return self.pos == len(self.states) * self.bptt_length

    def add_state(self, state: State) -> None:
        """Begin a sequence with the memory's state before this step."""
        self.states.append(state)

    def add_observation(self, observation: NumpyObservation | Observation, starts: Flags) -> tuple[Observation, Tensor]:
        """Keep observation [B, ...] and episode starts [B] of this step, and return them as tensors on the device."""
        if isinstance(self._observations, dict):
            parts: Any = observation
            seen: Observation = {key: part.write(self.pos, parts[key]) for key, part in self._observations.items()}
        else:
            seen = self._observations.write(self.pos, observation)  # type: ignore[arg-type]
        return seen, self._episode_starts.write(self.pos, starts)

    def add_action_masks(self, masks: NDArray[np.bool_]) -> Tensor:
        """Keep the allowed actions [B, D] of this step, and return them as a tensor on the device."""
        if self._action_masks is None:
            self._action_masks = StepStorage(self.n_steps, len(masks), masks.shape[1:], bool, self.device)
            self._action_masks.tensor.fill_(True)
        return self._action_masks.write(self.pos, masks)

    def add(self, actions: Tensor, rewards: NDArray[np.float32] | Tensor, outputs: Tensor) -> None:
        """Keep sampled actions [B, ...], rewards [B] and the cell's outputs [B, H] of this step, and move on to the next."""
        self._actions.append(actions)
        self._outputs.append(outputs)
        self._rewards.write(self.pos, rewards)
        self.pos += 1

    def add_bootstrap(self, values: Tensor) -> None:
        """Keep what the rewards of the last step lack where a time limit cut the episode: values [B], 0 elsewhere."""
        self._bootstraps.append((self.pos - 1, values))

    def finish(
        self, last_dones: Tensor, last_values: Tensor, evaluate: Evaluate | None = None, scale: Scale | None = None
    ) -> None:
        """End the rollout with the last dones [B] and the values [B] of the observations after it, 0 where it is done.

        `evaluate` computes `values` and `log_probs` of the sequences, by the policy that acted, when they are read. `scale`
        returns the rewards to learn from; the bootstrap values, which are of scaled rewards, are added afterwards.
        """
        self.last_dones, self.last_values, self._evaluate = last_dones, last_values, evaluate
        rewards = self._rewards.tensor
        if scale is not None:
            rewards.copy_(scale(rewards, self.episode_starts))
        for step, values in self._bootstraps:
            rewards[step] += self.gamma * values

    def add_evaluation(self, values: Tensor, log_probs: Tensor) -> None:
        """Keep values and log-probabilities [T, B] of the policy that acted, before learning changes it."""
        self._evaluated = values, log_probs

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
        return map_observation(attrgetter("tensor"), self._observations)

    @property
    def actions(self) -> Tensor:
        """As they were sampled, not rounded or clipped as for the environment, [T, B, ...]."""
        return torch.stack(self._actions)

    @property
    def action_masks(self) -> Tensor | None:
        """The allowed actions, [T, B, D]; None if all are."""
        return None if self._action_masks is None else self._action_masks.tensor

    @property
    def outputs(self) -> Tensor:
        """The cell's outputs while acting, [T, B, H]."""
        if self._stacked is None or len(self._stacked) < len(self._outputs):
            self._stacked = torch.stack(self._outputs)
        return self._stacked

    @property
    def episode_starts(self) -> Tensor:
        """[T, B] bool."""
        return self._episode_starts.tensor

    @property
    def targets(self) -> Targets:
        """The learning targets; values and log-probabilities are computed unless they were before."""
        values, log_probs = self._evaluation
        ends = torch.cat([self.episode_starts[1:], self.last_dones[None]])
        experience = self._rewards.tensor, values, ends, self.last_values
        advantages = generalized_advantages(*experience, self.gamma, self.gae_lambda)
        return Targets(advantages, advantages + values, values, log_probs)

    @property
    def rewards(self) -> NDArray[np.float32]:
        """[T, B]: as the environments return them; from the end of the rollout, as used for learning."""
        return cast(NDArray[np.float32], self._rewards.numpy())

    @property
    def has_finite_rewards(self) -> Tensor:
        """Whether all rewards are finite, as a tensor of one bool."""
        return self._rewards.tensor.isfinite().all()

    @property
    def values(self) -> NDArray[np.float32]:
        """Of the observations, [T, B], by the policy that acted."""
        return cast(NDArray[np.float32], self._evaluation[0].numpy(force=True))

    @property
    def log_probs(self) -> NDArray[np.float32]:
        """Of the actions, [T, B], as `values`."""
        return cast(NDArray[np.float32], self._evaluation[1].numpy(force=True))

    @property
    def advantages(self) -> NDArray[np.float32]:
        """Generalised advantages [T, B]."""
        return cast(NDArray[np.float32], self.targets.advantages.numpy(force=True))

    @property
    def returns(self) -> NDArray[np.float32]:
        """What the values should have been, [T, B]: advantages and values."""
        return cast(NDArray[np.float32], self.targets.returns.numpy(force=True))

    @property
    def buffer_size(self) -> int:
        """T, as SB3 calls it."""
        return self.n_steps

    @property
    def full(self) -> bool:
        """Whether all T steps have been added."""
        return self.pos == self.n_steps

    def size(self) -> int:
        """The number of steps added."""
        return self.pos

    @property
    def _evaluation(self) -> tuple[Tensor, Tensor]:
        if self._evaluated is None:
            if self._evaluate is None:
                raise ValueError("values must be read after the rollout's end, got a rollout that goes on")
            with torch.no_grad():
                evaluated = [self._evaluate(sequences) for sequences in self.sequences()]
            self.add_evaluation(*(torch.cat(parts) for parts in zip(*evaluated, strict=True)))
        assert self._evaluated is not None
        return self._evaluated
