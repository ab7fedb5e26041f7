"""The associative long short-term memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fw_rl.arguments import require_count
from fw_rl.cells.backends import AcceleratedCell
from fw_rl.cells.base import State, register_cell, reset_rows
from fw_rl.scan import product

__all__ = ["AssociativeLSTMCell"]


@register_cell("associative-lstm")
class AssociativeLSTMCell(AcceleratedCell):
    """LSTM whose cell is a holographic memory: complex values, stored under complex keys, in redundant copies.

    One step (Danihelka et al. 2016, §4), with ⊙ the product and ⊗ the complex product of elements, sums over the heads k, and
    P_s the fixed random permutation of copy s:

        g_f, g_i, g_o           = sigmoid(affine(x(t), h(t-1)))                            one real number for a complex unit
        key_k, value_k, query_k = bound(affine(x(t), h(t-1)))                              complex
        c_s(t) = g_f ⊙ c_s(t-1) + sum_k (P_s key_k) ⊗ (g_i ⊙ value_k)                      s = 1 .. copies
        h(t)   = g_o ⊙ bound(mean_s sum_k (P_s query_k) ⊗ c_s(t))

    with bound(z) = z / max(1, |z|). The `hidden_size` numbers of h are the real parts of its units and then their imaginary
    parts; with an odd `hidden_size` the last unit shows its real part only. The gates are shared by the heads, whose writes and
    reads are summed. The state is h [B, H] and the copies [B, copies, 2, ceil(H / 2)].

    Args:
        input_size: Numbers I of an input.
        hidden_size: Units H, two for each complex one.
        copies: Redundant copies of the memory; Ba16 A.1 has 4.
        heads: Keys, values and queries of a step; Ba16 A.1 has 3.
        forget_bias: Initial bias of the forget gate.

    Raises:
        ValueError: If the number of copies or heads is below 1.
    """

    permutations: Tensor

    def __init__(self, input_size: int, hidden_size: int, copies: int = 4, heads: int = 3, forget_bias: float = 1.0) -> None:
        super().__init__(input_size, hidden_size)
        require_count("copies", copies)
        require_count("heads", heads)
        self.copies, self.heads, self.units = copies, heads, (hidden_size + 1) // 2
        numbers = (3 + 6 * heads) * self.units
        self.input_map = nn.Linear(input_size, numbers)
        self.recurrent_map = nn.Linear(hidden_size, numbers, bias=False)
        with torch.no_grad():
            self.input_map.bias[: self.units] = forget_bias
        self.register_buffer("permutations", torch.stack([torch.randperm(self.units) for _ in range(copies)]))

    def initial_state(self, batch_size: int) -> State:
        like = self.recurrent_map.weight
        return like.new_zeros(batch_size, self.hidden_size), like.new_zeros(batch_size, self.copies, 2, self.units)

    def unroll(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        outputs = []
        for t, driven in enumerate(self.input_map(x)):
            if episode_starts is not None:
                state = reset_rows(state, episode_starts[t])
            state = self._step(driven, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def _step(self, driven: Tensor, state: State) -> State:
        h, cells = state
        summed = driven + self.recurrent_map(h)
        gates, vectors = summed.split([3 * self.units, 6 * self.heads * self.units], dim=1)
        forget_gate, input_gate, output_gate = gates.sigmoid().view(-1, 3, 1, self.units).unbind(1)
        keys, queries, values = _bound(vectors.view(-1, 3, self.heads, 2, self.units)).unbind(1)

        written = product(self._permuted(keys), (input_gate.unsqueeze(1) * values).unsqueeze(2)).sum(1)
        cells = forget_gate.unsqueeze(1) * cells + written  # [B, copies, 2, units]
        # A permutation of the sum over the heads is the sum of their permutations.
        recalled = product(self._permuted(queries.sum(1)), cells).mean(1)
        h = (output_gate * _bound(recalled)).flatten(1)[:, : self.hidden_size]
        return h, cells

    def _permuted(self, z: Tensor) -> Tensor:
        """Complex vectors [..., 2, units] in the order of every copy, [..., copies, 2, units]."""
        ordered = z.index_select(-1, self.permutations.flatten())
        return ordered.unflatten(-1, (self.copies, self.units)).transpose(-3, -2)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, copies={self.copies}, heads={self.heads}"


def _bound(z: Tensor) -> Tensor:
    """Complex numbers [..., 2, units] with moduli above 1 reduced to 1."""
    # The square, since the gradient of the modulus itself is not finite at 0.
    return z * z.square().sum(dim=-2, keepdim=True).clamp(min=1.0).rsqrt()
