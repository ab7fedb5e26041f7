"""The gated recurrent unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fw_rl.cells.base import State, register_cell
from fw_rl.cells.fused import FusedCell

__all__ = ["GRUCell"]


@register_cell("gru")
class GRUCell(FusedCell):
    """Gated recurrent unit (Cho et al. 2014), as in `nn.GRU`; the state is (h,).

    Args:
        input_size: Numbers I of an input.
        hidden_size: Units H.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.core = nn.GRU(input_size, hidden_size)

    def step(self, x: Tensor, state: State) -> State:
        return (torch.gru_cell(x, state[0], *self.weights),)
