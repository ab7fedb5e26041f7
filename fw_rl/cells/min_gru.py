"""The minimal gated recurrent unit."""

from __future__ import annotations

from torch import Tensor

from fw_rl.cells.backends import AcceleratedCell
from fw_rl.cells.base import State, register_cell
from fw_rl.linear import Linear
from fw_rl.scan import scan

__all__ = ["MinGRUCell"]


@register_cell("min-gru")
class MinGRUCell(AcceleratedCell):
    """Gated recurrent unit whose gate and candidate see only the input, so a sequence is one scan.

    One step (Feng et al. 2024, §3.1), with ⊙ the product of elements:

        z(t) = sigmoid(affine(x(t)))
        h(t) = (1 - z(t)) ⊙ h(t-1) + z(t) ⊙ affine(x(t))

    The state is (h,), [B, H].

    Args:
        input_size: Numbers I of an input.
        hidden_size: Units H.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.gate = Linear(input_size, hidden_size)
        self.candidate = Linear(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> State:
        return (self.gate.weight.new_zeros(batch_size, self.hidden_size),)

    def unroll(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        z = self.gate(x).sigmoid()
        h = scan(1 - z, z * self.candidate(x), state[0], episode_starts)
        return h, (h[-1].clone(),)
