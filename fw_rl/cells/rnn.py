"""The ReLU recurrent net that starts near the identity (IRNN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fw_rl.cells.base import State, register_cell, scaled_identity_
from fw_rl.cells.fused import FusedCell

__all__ = ["RNNCell"]


@register_cell("rnn")
class RNNCell(FusedCell):
    """ReLU recurrent net, ``h(t) = max(0, W h(t-1) + C x(t) + bias)``, with W starting as a scaled identity (Ba16 A.1, "IRNN").

    C starts uniform within 1 / sqrt(H), the biases at zero.

    Args:
        input_size: Numbers I of an input.
        hidden_size: Units H.
        recurrent_scale: W starts as this times the identity.
    """

    def __init__(self, input_size: int, hidden_size: int, recurrent_scale: float = 0.5) -> None:
        super().__init__(input_size, hidden_size)
        self.core = nn.RNN(input_size, hidden_size, nonlinearity="relu")
        _, recurrent_weight, *biases = self.weights
        scaled_identity_(recurrent_weight, recurrent_scale)
        for bias in biases:
            nn.init.zeros_(bias)

    def step(self, x: Tensor, state: State) -> State:
        return (torch.rnn_relu_cell(x, state[0], *self.weights),)
