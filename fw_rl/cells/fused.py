"""Torch's fused recurrent kernels behind the cell protocol, with episodes that start inside a sequence."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from fw_rl.cells.backends import AcceleratedCell, is_plain
from fw_rl.cells.base import State, Stepper, check_rows, reset_rows

__all__ = ["FusedCell", "episode_length"]


class FusedCell(AcceleratedCell):
    """A cell around a one-layer `nn.RNN`, `nn.LSTM` or `nn.GRU`.

    A sequence is cut only where some row starts an episode, and the kernel runs over each stretch as a whole, or over all at
    once if all rows have episodes of the same length. (One call with a `PackedSequence` of the episodes took two to three times
    as long on a processor, where all three have kernels of ours.)
    """

    core: nn.RNNBase

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The core's weights, parametrized or not, in the order in which Torch's single-step functions take them."""
        input_weight, recurrent_weight, input_bias, recurrent_bias = self.core.all_weights[0]
        return input_weight, recurrent_weight, input_bias, recurrent_bias

    @abstractmethod
    def step(self, x: Tensor, state: State) -> State:
        """The state after one step for x [B, I]; its first tensor is the output."""

    def initial_state(self, batch_size: int) -> State:
        parts = 2 if isinstance(self.core, nn.LSTM) else 1
        return tuple(self.weights[0].new_zeros(batch_size, self.hidden_size) for _ in range(parts))

    def unroll(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        if episode_starts is None:
            return self._run(x, state)
        # In one step nobody needs to know where rows start, for which the host would wait for a GPU.
        start_steps = _steps_with_starts(episode_starts) if len(x) > 1 else []
        if length := _length_of_all(start_steps, episode_starts):
            return self.run_episodes(x, length, self._run)
        start_steps = sorted({0, *start_steps})
        outputs = []
        for begin, end in pairwise([*start_steps, len(x)]):
            y, state = self._run(x[begin:end], reset_rows(state, episode_starts[begin]))
            outputs.append(y)
        return torch.cat(outputs), state

    def stepper(self, state: State) -> Stepper:
        self.check_state(state)
        return _FusedStepper(self, state) if is_plain(self.core) else Stepper(self, state)

    def run_episodes(
        self, x: Tensor, length: int, run: Callable[[Tensor, State], tuple[Tensor, State]]
    ) -> tuple[Tensor, State]:
        """Whole episodes of the same length in all rows, side by side: [T, B] as [length, T / length * B]."""
        episodes, batch = len(x) // length, x.shape[1]
        side_by_side = x.unflatten(0, (episodes, length)).transpose(0, 1).flatten(1, 2)
        y, state = run(side_by_side, self.initial_state(episodes * batch))
        return y.unflatten(1, (episodes, batch)).transpose(0, 1).flatten(0, 1), tuple(part[-batch:] for part in state)

    def _run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Steps in which no episode starts."""
        if len(x) == 1 and is_plain(self.core):
            state = self.step(x[0], state)
            return torch.stack([state[0]]), state
        hidden = tuple(part.unsqueeze(0) for part in state)
        y, last = self.core(x, hidden if isinstance(self.core, nn.LSTM) else hidden[0])
        return y, tuple(part.squeeze(0) for part in (last if isinstance(last, tuple) else (last,)))


class _FusedStepper(Stepper):
    """Calls Torch's function for a single step directly."""

    cell: FusedCell

    @torch.no_grad()
    def step(self, x: Tensor, episode_starts: Tensor) -> Tensor:
        check_rows(x.shape[:1], self._state, episode_starts)
        goes_on = episode_starts.is_cpu and not episode_starts.any()  # which a GPU would have to be waited for
        before = self._state if goes_on else reset_rows(self._state, episode_starts)
        self._state = self.cell.step(x, before)
        return self._state[0]


def episode_length(episode_starts: Tensor | None) -> int:
    """The length of the episodes if all rows have whole ones of the same length, else 0."""
    return 0 if episode_starts is None else _length_of_all(_steps_with_starts(episode_starts), episode_starts)


def _length_of_all(start_steps: list[int], episode_starts: Tensor) -> int:
    length = len(episode_starts) // max(len(start_steps), 1)
    is_regular = bool(start_steps) and start_steps == list(range(0, len(episode_starts), length))
    return length if is_regular and episode_starts[start_steps].all() else 0


def _steps_with_starts(episode_starts: Tensor) -> list[int]:
    return episode_starts.any(dim=1).nonzero().flatten().tolist()  # type: ignore[no-any-return]
