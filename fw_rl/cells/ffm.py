"""Fast and Forgetful Memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fw_rl.arguments import require_count
from fw_rl.cells.base import Cell, State, register_cell
from fw_rl.kernels import Kernel
from fw_rl.linear import Linear
from fw_rl.scan import scan, scan_kernels

__all__ = ["FFMCell"]


@register_cell("ffm")
class FFMCell(Cell):
    """Fading sums of the past, each in several rhythms, between an input gate and an output gate.

    One step (Morad et al. 2023, §3), with ⊙ the product of elements; S has m traces, each with c contexts:

        S(t)_jk = exp(-|α_j| + i ω_k) S(t-1)_jk + (affine(x(t)) ⊙ sigmoid(affine(x(t))))_j         complex
        g(t)    = sigmoid(affine(x(t)))
        y(t)    = g(t) ⊙ layer_norm(affine(Re S(t), Im S(t))) + (1 - g(t)) ⊙ affine(x(t))

    where the norm has no parameters. At the start the |α| are evenly spaced between 0 and 1/2, and the periods 2 pi / ω between
    1 and `max_period` steps. The state is (S,) as real and imaginary parts, [B, 2, m c].

    Args:
        input_size: Numbers I of an input.
        hidden_size: Numbers H of an output.
        traces: Rates m at which the past fades.
        contexts: Rhythms c of each trace.
        max_period: Longest period at the start, in steps.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, input_size: int, hidden_size: int, traces: int = 32, contexts: int = 4, max_period: float = 1024.0
    ) -> None:
        super().__init__(input_size, hidden_size)
        require_count("traces", traces)
        require_count("contexts", contexts)
        if not 1 < max_period < math.inf:
            raise ValueError(f"max_period must be above 1, got {max_period}")
        self.traces, self.contexts = traces, contexts
        self.rate = nn.Parameter(torch.linspace(1e-6, 0.5, traces))
        self.frequency = nn.Parameter(2 * math.pi / torch.linspace(1, max_period, contexts))
        self.input_map = Linear(input_size, traces)
        self.input_gate = Linear(input_size, traces)
        self.output_map = Linear(2 * traces * contexts, hidden_size)
        self.output_gate = Linear(input_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.skip = Linear(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> State:
        return (self.rate.new_zeros(batch_size, 2, self.traces * self.contexts),)

    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        fading, rhythm = torch.exp(-self.rate.abs()), torch.stack([self.frequency.cos(), self.frequency.sin()])
        decay = (fading.unsqueeze(1) * rhythm.unsqueeze(1)).flatten(1)  # [2, m c]
        driven = self.input_map(x) * self.input_gate(x).sigmoid()
        S = scan(decay, driven.repeat_interleave(self.contexts, dim=-1), state[0], episode_starts)
        gate = self.output_gate(x).sigmoid()
        return torch.lerp(self.skip(x), self.norm(self.output_map(S.flatten(-2))), gate), (S[-1].clone(),)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        return scan_kernels(is_complex=True)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, traces={self.traces}, contexts={self.contexts}"
