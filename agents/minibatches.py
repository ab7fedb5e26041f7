"""The minibatches of PPO: sequences of a rollout, drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fw_rl.agents.rollout import RecurrentRollout, RolloutSequences, map_observation

__all__ = ["Minibatch", "SequenceSampler"]


class Minibatch(NamedTuple):
    """S sequences of L steps, the learning targets, and values and log-probabilities of the policy that acted."""

    sequences: RolloutSequences
    advantages: Tensor
    returns: Tensor
    values: Tensor
    log_prob: Tensor


class SequenceSampler:
    """The sequences of a rollout in random minibatches of `batch_size` steps; each iteration draws all of them once.

    All sequences of a minibatch have the same length, so no step is padded: if L does not divide T, the shorter last sequences
    of the environments are drawn among themselves.
    """

    def __init__(self, rollout: RecurrentRollout, batch_size: int) -> None:
        self.batch_size, self.device = batch_size, rollout.device
        length, n_envs = rollout.bptt_length, rollout.n_envs
        windows = rollout.n_steps // length
        places = torch.arange(rollout.n_steps * n_envs, device=self.device).view(-1, n_envs)
        whole, rest = places[: windows * length], places[windows * length :]
        self._places = [whole.view(windows, length, n_envs).transpose(0, 1).flatten(1), *([rest] if len(rest) else [])]
        self._observations = map_observation(lambda part: part.flatten(0, 1), rollout.observations)
        self._actions, self._starts = rollout.actions.flatten(0, 1), rollout.episode_starts.flatten()
        self._masks = None if rollout.action_masks is None else rollout.action_masks.flatten(0, 1)
        several = len(rollout.states) > 1
        self._state = tuple(map(torch.cat, zip(*rollout.states, strict=True))) if several else rollout.states[0]

    def __iter__(self) -> Iterator[tuple[RolloutSequences, Tensor]]:
        """Minibatches in a random order, each with the places [L, S] of its steps among the T * B of the rollout."""
        drawn: list[tuple[Tensor, Tensor]] = []
        first = 0
        for places in self._places:  # of sequences of one length, [L, N]
            length, count = places.shape
            parts = torch.randperm(count).to(self.device).split(self.batch_size // length)
            drawn += [(places[:, part], first + part) for part in parts]
            first += count
        for i in torch.randperm(len(drawn)).tolist():
            yield self._minibatch(*drawn[i])

    def _minibatch(self, steps: Tensor, sequences: Tensor) -> tuple[RolloutSequences, Tensor]:
        observations = map_observation(lambda part: _rows(part, steps), self._observations)
        state = tuple(part.index_select(0, sequences) for part in self._state)
        masks = None if self._masks is None else _rows(self._masks, steps)
        return RolloutSequences(
            observations, _rows(self._actions, steps), state, _rows(self._starts, steps), None, masks
        ), steps


def _rows(part: Tensor, places: Tensor) -> Tensor:
    """The rows [L, S, ...] at the places [L, S]; faster than a two-dimensional index."""
    return part.index_select(0, places.flatten()).unflatten(0, places.shape)
