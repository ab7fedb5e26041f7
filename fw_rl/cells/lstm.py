"""The long short-term memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fw_rl.cells.base import State, register_cell
from fw_rl.cells.fused import FusedCell

__all__ = ["LSTMCell"]


@register_cell("lstm")
class LSTMCell(FusedCell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), as in `nn.LSTM`; the state is (h, c).

    Args:
        input_size: Numbers I of an input.
        hidden_size: Units H.
        forget_bias: Initial bias of the forget gate; with 1.0 a fresh net remembers (Jozefowicz et al. 2015).
    """

    def __init__(self, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__(input_size, hidden_size)
        self.core = nn.LSTM(input_size, hidden_size)
        *_, input_bias, recurrent_bias = self.weights
        forget = slice(hidden_size, 2 * hidden_size)
        with torch.no_grad():
            input_bias[forget] = forget_bias
            recurrent_bias[forget] = 0.0

    def step(self, x: Tensor, state: State) -> State:
        return torch.lstm_cell(x, state, *self.weights)
