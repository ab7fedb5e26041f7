"""The ReLU recurrent net that starts near the identity (IRNN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fw_rl.cells.backends import is_plain
from fw_rl.cells.base import State, register_cell, scaled_identity_
from fw_rl.cells.fused import FusedCell
from fw_rl.kernels import is_traced

__all__ = ["RNNCell"]


@register_cell("rnn")
class RNNCell(FusedCell):
    """ReLU recurrent net with W starting as a scaled identity (Ba16 A.1, "IRNN").

    ``h(t) = min(bound, max(0, W h(t-1) + C x(t) + bias))``. C starts uniform within 1 / sqrt(H), the biases at zero. No unit
    exceeds `bound`, as in Hannun et al. 2014: once learning lets W stretch a state, it would grow exponentially during an
    episode, beyond the few steps that a gradient sees.

    Args:
        input_size: Numbers I of an input.
        hidden_size: Units H.
        recurrent_scale: W starts as this times the identity.
        bound: The largest output of a unit; infinity for none.
    """

    def __init__(self, input_size: int, hidden_size: int, recurrent_scale: float = 0.5, bound: float = 20.0) -> None:
        super().__init__(input_size, hidden_size)
        if not bound > 0:
            raise ValueError(f"bound must be above 0, got {bound}")
        self.bound = bound
        self.core = nn.RNN(input_size, hidden_size, nonlinearity="relu")
        _, recurrent_weight, *biases = self.weights
        scaled_identity_(recurrent_weight, recurrent_scale)
        for bias in biases:
            nn.init.zeros_(bias)

    def step(self, x: Tensor, state: State) -> State:
        return (torch.rnn_relu_cell(x, state[0], *self.weights).clamp(max=self.bound),)

    def _run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if not is_traced():
            y, last = super()._run(x, state)
            is_bounded = len(x) == 1 and is_plain(self.core)  # as a step is; else Torch's kernel may have needed no bound
            if is_bounded or (y <= self.bound).all():
                return y, last
        outputs = []
        for each in x:
            state = self.step(each, state)
            outputs.append(state[0])
        return torch.stack(outputs), state
