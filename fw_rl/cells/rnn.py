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

    `recurrent_scale`: W starts as this times the identity. C starts uniform within 1 / sqrt(H), the biases at zero.
    """

    def __init__(self, input_size: int, hidden_size: int, recurrent_scale: float = 0.5) -> None:
        super().__init__(input_size, hidden_size)
        self.core = nn.RNN(input_size, hidden_size, nonlinearity="relu")
        scaled_identity_(self.core.weight_hh_l0, recurrent_scale)
        nn.init.zeros_(self.core.bias_ih_l0)
        nn.init.zeros_(self.core.bias_hh_l0)

    def step(self, x: Tensor, state: State) -> State:
        core = self.core
        return (torch.rnn_relu_cell(x, state[0], core.weight_ih_l0, core.weight_hh_l0, core.bias_ih_l0, core.bias_hh_l0),)
