"""The linear recurrent unit."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fw_rl.arguments import require, require_count
from fw_rl.cells.base import Cell, State, register_cell
from fw_rl.kernels import Kernel
from fw_rl.linear import Linear, linear
from fw_rl.scan import scan, scan_kernels

__all__ = ["LRUCell"]


@register_cell("lru")
class LRUCell(Cell):
    """Fading oscillators, each with its own rate and frequency: their sums at suitable phases recall inputs some steps back.

    One step (Orvieto et al. 2023, §3), with ⊙ the product of elements, B a real and C a complex matrix:

        λ    = exp(-exp(ν) + i exp(θ))                              the same at every step
        h(t) = λ ⊙ h(t-1) + sqrt(1 - |λ|²) ⊙ B x(t)                 complex; the root keeps h at the size of x
        u(t) = layer_norm(gelu(Re(C h(t)) + bias))
        y(t) = u(t) + x(t)                                          or an affine map of x(t), if I is not H

    and with `glu` u(t) ⊙ sigmoid(affine(u(t))) instead of u(t). In the paper B is complex too, for which C makes up here, and
    phases are drawn from the whole range. Here one is drawn from each of N equal parts, which leaves no gap between the
    frequencies. The moduli |λ| are drawn so that λ can lie anywhere on a ring. The state is (h,) as real and imaginary parts,
    [B, 2, N].

    Args:
        input_size: Numbers I of an input.
        hidden_size: Numbers H of an output.
        states: Complex numbers N of the state; None is `hidden_size`.
        r_min: Smallest |λ| at the start; 0.96 fades to a third in 27 steps.
        r_max: Largest |λ| at the start; 0.999 fades to a third in 1,100 steps.
        max_phase: Largest phase of λ at the start; phases above pi are useless, since inputs are real.
        glu: Whether a gated linear unit follows the norm.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        states: int | None = None,
        r_min: float = 0.96,
        r_max: float = 0.999,
        max_phase: float = math.pi,
        glu: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.states = hidden_size if states is None else states
        require_count("states", self.states)
        require("r_max", r_max, 0 < r_max < 1, "above 0 and below 1")
        require("r_min", r_min, 0 <= r_min <= r_max, f"from 0 to r_max, which is {r_max}")
        require("max_phase", max_phase, 0 < max_phase <= 2 * math.pi, "above 0 and at most 2 pi")
        squared_modulus = torch.empty(self.states).uniform_(r_min**2, r_max**2)
        phase = max_phase * (torch.arange(self.states) + torch.rand(self.states)) / self.states
        self.log_rate = nn.Parameter(torch.log(-0.5 * torch.log(squared_modulus)))
        self.log_phase = nn.Parameter(torch.log(phase))
        self.input_map = Linear(input_size, self.states, bias=False)
        self.output_map = Linear(2 * self.states, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.gate = Linear(hidden_size, hidden_size) if glu else None
        self.skip = nn.Identity() if input_size == hidden_size else Linear(input_size, hidden_size)
        nn.init.normal_(self.input_map.weight, std=input_size**-0.5)
        nn.init.normal_(self.output_map.weight, std=self.states**-0.5)

    def initial_state(self, batch_size: int) -> State:
        return (self.log_rate.new_zeros(batch_size, 2, self.states),)

    def forward(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        rate, phase = self.log_rate.exp(), self.log_phase.exp()
        decay = torch.exp(-rate) * torch.stack([phase.cos(), phase.sin()])
        scale = torch.sqrt(-torch.expm1(-2 * rate))
        h = scan(decay, linear(x, scale.unsqueeze(1) * self.input_map.weight), state[0], episode_starts)
        u = self.norm(F.gelu(self.output_map(h.flatten(-2))))
        if self.gate is not None:
            u = u * self.gate(u).sigmoid()
        return u + self.skip(x), (h[-1].clone(),)

    def kernels(self, replays: bool) -> tuple[Kernel, ...]:
        return scan_kernels(is_complex=True)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, states={self.states}"
