"""Stable Hadamard Memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fw_rl.arguments import require_count
from fw_rl.cells.base import Cell, State, register_cell
from fw_rl.kernels import Kernel
from fw_rl.linear import Linear
from fw_rl.scan import scan, scan_kernels

__all__ = ["SHMCell"]


@register_cell("shm")
class SHMCell(Cell):
    """Matrix whose every element is calibrated at each step, before a value is written under a key.

    One step (Le et al. 2025, §3), with ⊙ the product of elements, x̂ = layer_norm(x(t)) and
    share(a) = relu(a) / (sum(relu(a)) + 1e-5):

        query, key, value = share(W_q x̂), share(W_k x̂), W_v x̂
        C(t) = sigmoid(θ(t) (W_c x̂)^T + b 1^T)                              calibration, 0 to 1
        C(t) = 1 + tanh(θ(t) (W_c x̂)^T)                                     0 to 2, unless `fades`
        M(t) = C(t) ⊙ M(t-1) + sigmoid(w_s x̂) value key^T
        y(t) = W_o M(t) query + affine(x(t))

    θ(t) is one of L learned vectors. The paper draws it at random at every step; here they take turns in an episode, so a
    sequence can be run again. With the paper's C an element rises about as often as it falls: old content stays, and in a long
    episode some elements grow without bound. By default they only fade. b is learned; at the start it lets the first row of M
    fade within three steps, the last within a thousand.

    Modules: `norm`, `input_map` (W_q, W_k, W_v, W_c), `strength_map` (w_s), `output_map` (W_o), `skip_map`. The state is
    M [B, m, m], and which θ is next, [B, 1].

    Args:
        input_size: Numbers I of an input.
        hidden_size: Numbers H of an output.
        memory_size: Rows and columns m of the matrix.
        calibrations: Vectors L that θ is one of.
        fades: Let the elements of M only fade. False is the cell of the paper, where they may also rise.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(
        self, input_size: int, hidden_size: int, memory_size: int = 24, calibrations: int = 128, fades: bool = True
    ) -> None:
        super().__init__(input_size, hidden_size)
        require_count("memory_size", memory_size)
        require_count("calibrations", calibrations)
        self.memory_size, self.calibrations = memory_size, calibrations
        self.norm = nn.LayerNorm(input_size)
        self.input_map = Linear(input_size, 4 * memory_size, bias=False)
        self.strength_map = Linear(input_size, 1, bias=False)
        self.theta = nn.Parameter(nn.init.xavier_uniform_(torch.empty(calibrations, memory_size)))
        rates = torch.logspace(-0.5, -3, memory_size)
        self.bias = nn.Parameter(torch.logit(torch.exp(-rates))) if fades else None
        self.output_map = Linear(memory_size, hidden_size, bias=False)
        self.skip_map = Linear(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> State:
        return self.theta.new_zeros(batch_size, self.memory_size, self.memory_size), self.theta.new_zeros(batch_size, 1)

    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        matrix, turn = state
        seen, size = self.norm(x), (self.memory_size, self.memory_size)
        queries, keys, values, causes = self.input_map(seen).unflatten(2, (4, -1)).unbind(2)
        ones = torch.ones_like(x[..., :1], dtype=torch.promote_types(x.dtype, torch.float32))  # which can be counted
        turns = scan(ones[0, 0], ones, turn.to(ones.dtype), episode_starts)
        theta = self.theta[(turns.squeeze(2) - 1).round().long() % self.calibrations]
        change = _outer(theta, causes)
        calibration = 1 + change.tanh() if self.bias is None else (change + self.bias.unsqueeze(1)).sigmoid()
        written = _outer(self.strength_map(seen).sigmoid() * values, _share(keys))
        M = scan(calibration.flatten(2), written.flatten(2), matrix.flatten(1), episode_starts).unflatten(2, size)
        reads = (M @ _share(queries).unsqueeze(3)).squeeze(3)
        return self.output_map(reads) + self.skip_map(x), (M[-1].clone(), (turns[-1] % self.calibrations).to(turn.dtype))

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        return scan_kernels(is_complex=False)

    def extra_repr(self) -> str:
        sizes = f"memory_size={self.memory_size}, calibrations={self.calibrations}"
        return f"{super().extra_repr()}, {sizes}, fades={self.bias is not None}"


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """The outer products of vectors, [..., n, m]."""
    return a.unsqueeze(-1) * b.unsqueeze(-2)


def _share(a: Tensor) -> Tensor:
    """Positive parts, as shares of their sum."""
    positive = a.relu()
    return positive / (positive.sum(dim=-1, keepdim=True) + 1e-5)
