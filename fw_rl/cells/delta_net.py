"""The fast weight programmer with the delta rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from fw_rl import memory
from fw_rl.cells.backends import AcceleratedCell
from fw_rl.cells.base import State, register_cell, reset_rows

__all__ = ["DeltaNetCell"]

_OPTIONS = {"rule": ("delta", "sum"), "keys": ("input", "output")}


class Programme(NamedTuple):
    """What the net has the memory do: queries, keys and values [T, B, N, d], strengths and decays [T, B, N]."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    strengths: Tensor
    decays: Tensor | None


WriteAndRead = Callable[..., tuple[Tensor, Tensor]]
"""`fw_rl.memory.write_and_read`, or what computes the same."""


@register_cell("delta-net")
class DeltaNetCell(AcceleratedCell):
    """Net that programs fast weights: it writes values under keys of its own, and reads them by queries (Schlag et al. 2021).

    One step, in each of N heads with d = H / N units (rounded up), unit(a) = a / |a|:

        key, query = unit(silu(W_k x(t))), unit(silu(W_q x(t)))
        value, strength, decay = W_v x(t), sigmoid(w_s x(t)), sigmoid(w_d x(t))                decay = 1 unless `gated`
        A(t) = decay A(t-1) + strength (value - decay A(t-1) key) key^T                        rule "delta"
        A(t) = decay A(t-1) + strength value key^T                                             rule "sum"
        read = A(t) query

    and y(t) = W_o (norm(read) * silu(W_g x(t))) + W_x x(t), with a root mean square norm in each head (Yang et al. 2024).
    With `keys` = "output" all but W_g and W_x also see tanh(y(t-1)) (Irie et al. 2021, recurrent delta net). All affine maps
    of x are one module, `input_map`. The state is A [B, N, d, d], and before it y(t-1) [B, H] where keys come from it.

    Args:
        input_size: Numbers I of an input.
        hidden_size: Units H.
        heads: Heads N.
        rule: "delta", which replaces what was under a key, or "sum", which adds to it.
        gated: Let the memory decay by as much as the input says (Yang et al. 2025); at the start it keeps 99.3 % a step.
        keys: "input", so that a sequence can be run by chunks, or "output".

    Raises:
        ValueError: If an option is outside its range.

    Examples:
        >>> cell = DeltaNetCell(input_size=4, hidden_size=16, heads=2)
        >>> y, (A,) = cell(torch.randn(7, 3, 4), cell.initial_state(batch_size=3))
        >>> A.shape
        torch.Size([3, 2, 8, 8])
    """

    attends: ClassVar[bool] = True

    def __init__(
        self, input_size: int, hidden_size: int, heads: int = 4, rule: str = "delta", gated: bool = False, keys: str = "input"
    ) -> None:
        super().__init__(input_size, hidden_size)
        if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1:
            raise ValueError(f"heads must be a whole number from 1, got {heads!r}")
        for name, value in (("rule", rule), ("keys", keys)):
            if value not in _OPTIONS[name]:
                raise ValueError(f"{name} must be one of {', '.join(_OPTIONS[name])}, got {value!r}")
        self.heads, self.rule, self.has_decay, self.keys = heads, rule, gated, keys
        self.units = -(-hidden_size // heads)
        width = heads * self.units
        self._sizes = [2 * width, width, heads, heads * gated, width, hidden_size]
        programme = sum(self._sizes[:4])
        self.input_map = nn.Linear(input_size, sum(self._sizes))
        self.recurrent_map = nn.Linear(hidden_size, programme, bias=False) if keys == "output" else None
        self.norm = nn.RMSNorm(self.units, eps=1e-5)
        self.output_map = nn.Linear(width, hidden_size, bias=False)
        with torch.no_grad():
            self.input_map.bias[programme - heads * gated : programme] = 5.0  # sigmoid(5) = 0.993

    def initial_state(self, batch_size: int) -> State:
        like = self.output_map.weight
        matrix = like.new_zeros(batch_size, self.heads, self.units, self.units)
        return (matrix,) if self.recurrent_map is None else (like.new_zeros(batch_size, self.hidden_size), matrix)

    def unroll(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        return self.run(memory.write_and_read, x, state, episode_starts)

    def run(self, write_and_read: WriteAndRead, x: Tensor, state: State, episode_starts: Tensor | None) -> tuple[Tensor, State]:
        """`forward` with a memory that computes what `fw_rl.memory.write_and_read` says."""
        programmed, shown = self._split(self.input_map(x))
        if self.recurrent_map is None:
            reads, A = write_and_read(state[0], *self.programme(programmed), episode_starts, rule=self.rule)
            return self._show(reads, *shown), (A,)
        outputs = []
        for t in range(len(x)):
            starts = None if episode_starts is None else episode_starts[t : t + 1]
            h, A = state if starts is None else reset_rows(state, starts[0])
            steps = slice(t, t + 1)
            programme = self.programme(programmed[steps] + self.recurrent_map(h.tanh()))
            reads, A = write_and_read(A, *programme, starts, rule=self.rule)
            outputs.append(self._show(reads, *(part[steps] for part in shown))[0])
            state = outputs[-1], A
        return torch.stack(outputs), state

    def attention(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> Tensor:
        """How much of the value of each step before is in what a step reads, [T, B, T]; no gradient.

        It is the mean over the heads of the absolute weights, less what later writes have taken away; 0 for j >= t.

        Args:
            x: Inputs, [T, B, I].
            state: The state before them, which has no place in the sequence and is left out.
            episode_starts: Where rows start an episode, [T, B] bool, or None.
        """
        programmes: list[Programme] = []

        def note(matrix: Tensor, *programme: Tensor, **options: str) -> tuple[Tensor, Tensor]:
            programmes.append(Programme(*programme[:5]))
            return memory.write_and_read(matrix, *programme, **options)

        with torch.no_grad():
            self.run(note, x, state, episode_starts)
            queries, keys, _, strengths, decays = (
                None if parts[0] is None else torch.cat(parts) for parts in zip(*programmes, strict=True)
            )
            weights = memory.recall_weights(queries, keys, strengths, decays, episode_starts, rule=self.rule)
            earlier = torch.ones(len(x), len(x), dtype=torch.bool, device=x.device).tril(-1)
            return weights.abs().mean(2) * earlier.unsqueeze(1)

    def _split(self, mapped: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the input map gives: the part for the programme, and for the output the gate and what skips the memory."""
        programmed, gate, skipped = mapped.split([sum(self._sizes[:4]), *self._sizes[4:]], dim=-1)
        return programmed, [gate, skipped]

    def programme(self, programmed: Tensor) -> Programme:
        """Queries, keys, values, strengths and decays from the maps' numbers [T, B, 3 N d + N], or with decays + 2 N."""
        addresses, values, strengths, decays = programmed.split(self._sizes[:4], dim=-1)
        queries, keys = _unit(silu(addresses).unflatten(-1, (2, self.heads, self.units))).unbind(2)
        values = values.unflatten(-1, (self.heads, self.units))
        return Programme(queries, keys, values, strengths.sigmoid(), decays.sigmoid() if self.has_decay else None)

    def _show(self, reads: Tensor, gate: Tensor, skipped: Tensor) -> Tensor:
        return self.output_map(self.norm(reads).flatten(2) * silu(gate)) + skipped

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, heads={self.heads}, rule={self.rule!r}, gated={self.has_decay}, keys={self.keys!r}"


def _unit(a: Tensor) -> Tensor:
    """Vectors over their lengths, with a finite gradient at 0."""
    return a * torch.rsqrt(a.square().sum(dim=-1, keepdim=True) + 1e-6)
