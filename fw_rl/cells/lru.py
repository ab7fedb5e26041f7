"""The linear recurrent unit."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fw_rl.cells.base import Cell, State, register_cell
from fw_rl.scan import scan

__all__ = ["LRUCell"]


@register_cell("lru")
class LRUCell(Cell):
    """Complex oscillators that fade, each at its own rate and frequency; their sum at some phases is an input of long ago.

    One step (Orvieto et al. 2023, §3), with ⊙ the product of elements and B and C complex matrices:

        λ    = exp(-exp(ν) + i exp(θ))                              the same at every step, |λ| < 1
        h(t) = λ ⊙ h(t-1) + sqrt(1 - |λ|²) ⊙ B x(t)                 the root keeps h at the size of the input
        u(t) = layer_norm(gelu(Re(C h(t))))
        y(t) = u(t) ⊙ sigmoid(affine(u(t))) + affine(x(t))          a gated linear unit, and a skip connection

    At the start |λ| is between `r_min` and `r_max`, such that λ is uniform on that ring, and the phases are between 0 and
    `max_phase`. The state is (h,) as real and imaginary parts, [B, 2, N].

    Args:
        input_size: Numbers I of an input.
        hidden_size: Numbers H of an output.
        states: Complex numbers N of the state; None is `hidden_size`.
        r_min: Smallest |λ| at the start.
        r_max: Largest |λ| at the start; 0.999 fades to a third in 1,000 steps.
        max_phase: Largest phase of λ at the start.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        states: int | None = None,
        r_min: float = 0.9,
        r_max: float = 0.999,
        max_phase: float = 2 * math.pi,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.states = hidden_size if states is None else states
        if isinstance(self.states, bool) or not isinstance(self.states, int) or self.states < 1:
            raise ValueError(f"states must be a whole number from 1, got {states!r}")
        if not 0 <= r_min < r_max < 1:
            raise ValueError(f"r_min and r_max must be 0 <= r_min < r_max < 1, got {r_min} and {r_max}")
        if not 0 < max_phase <= 2 * math.pi:
            raise ValueError(f"max_phase must be above 0 and at most 2 pi, got {max_phase}")
        squared_modulus = torch.empty(self.states).uniform_(r_min**2, r_max**2)
        self.log_rate = nn.Parameter(torch.log(-0.5 * torch.log(squared_modulus)))
        self.log_phase = nn.Parameter(torch.log(torch.empty(self.states).uniform_(0, max_phase)))
        self.input_map = nn.Linear(input_size, 2 * self.states, bias=False)
        self.output_map = nn.Linear(2 * self.states, hidden_size, bias=False)
        self.norm = nn.LayerNorm(hidden_size)
        self.gate = nn.Linear(hidden_size, hidden_size)
        self.skip = nn.Linear(input_size, hidden_size)
        nn.init.normal_(self.input_map.weight, std=(2 * input_size) ** -0.5)
        nn.init.normal_(self.output_map.weight, std=self.states**-0.5)

    def initial_state(self, batch_size: int) -> State:
        return (self.skip.weight.new_zeros(batch_size, 2, self.states),)

    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        rate, phase = self.log_rate.exp(), self.log_phase.exp()
        decay = torch.exp(-rate) * torch.stack([phase.cos(), phase.sin()])
        size = torch.sqrt(-torch.expm1(-2 * rate))
        driven = F.linear(x, size.repeat(2).unsqueeze(1) * self.input_map.weight)
        h = scan(decay, driven.unflatten(-1, (2, self.states)), state[0], episode_starts)
        u = self.norm(F.gelu(self.output_map(h.flatten(-2))))
        return u * self.gate(u).sigmoid() + self.skip(x), (h[-1].clone(),)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, states={self.states}"
