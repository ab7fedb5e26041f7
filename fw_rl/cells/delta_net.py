"""The fast weight programmer with the delta rule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from fw_rl import memory
from fw_rl.arguments import require, require_count
from fw_rl.cells.backends import AcceleratedCell
from fw_rl.cells.base import State, register_cell, reset_rows
from fw_rl.linear import Linear

__all__ = ["TINY", "DeltaNetCell"]

TINY = 1e-6
"""Added to the square of a length, so that the gradient is finite at 0."""

Remember = Callable[..., tuple[Tensor, Tensor]]
"""`DeltaNetCell.remember`, or a function that computes the same."""

_CHOICES = {"rule": ("delta", "sum"), "keys": ("input", "output")}


@register_cell("delta-net")
class DeltaNetCell(AcceleratedCell):
    """Net that programs fast weights: it writes values under keys of its own, and reads them by queries (Schlag et al. 2021).

    One step, in each of N heads with d = H / N units (rounded up), unit(a) = a / sqrt(|a|^2 + 1e-6), ⊙ the product of elements:

        z = x(t) + m ⊙ (x(t-1) - x(t))                                                         z = x(t) unless `shift`
        query, key = unit(silu(W_q z)), unit(silu(W_k z))
        value, strength, decay = W_v z, sigmoid(w_s z), sigmoid(w_d z)                         decay = 1 unless `gated`
        A(t) = decay A(t-1) + strength (value - decay A(t-1) key) key^T                        rule "delta"
        A(t) = decay A(t-1) + strength value key^T                                             rule "sum"
        read = A(t) query

    and y(t) = W_o (norm(read) * silu(W_g z)) + W_x x(t), with a root mean square norm in each head (Yang et al. 2024). Every
    map but W_o also adds a bias. With `keys` = "output" all maps but W_x also see tanh(y(t-1)) (Irie et al. 2021, recurrent
    delta net).

    Modules: `input_map` (W_q, W_k, W_g, W_v), `rate_map` (w_s, w_d), `norm`, `output_map` (W_o), `skip_map` (W_x); `mix` is m.
    The state is A [B, N, d, d], before it y(t-1) [B, H] where keys come from the output, and before these x(t-1) [B, I] with
    `shift`.

    Args:
        input_size: Numbers I of an input.
        hidden_size: Units H.
        heads: Heads N.
        rule: "delta", which replaces what was under a key, or "sum", which adds to it.
        gated: Let the input control the decay of the memory (Yang et al. 2025); at the start a step keeps 99.3 % of it. Without
            it and `shift` this is the delta rule of Schlag et al. 2021 in the layer of Yang et al. 2024.
        keys: "input", with which a sequence can be run in chunks, or "output".
        shift: Let the maps see a blend of this input and the last (the token shift of Peng et al. 2023). Each number of the
            input has a share of its own, which is learned; at the start they go from 0 to a half.

    Raises:
        ValueError: If an option is outside its range.

    Examples:
        >>> cell = DeltaNetCell(input_size=4, hidden_size=16, heads=2)
        >>> y, (last_x, A) = cell(torch.randn(7, 3, 4), cell.initial_state(batch_size=3))
        >>> A.shape
        torch.Size([3, 2, 8, 8])
    """

    attends = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        heads: int = 4,
        rule: str = "delta",
        gated: bool = True,
        keys: str = "input",
        shift: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size)
        require_count("heads", heads)
        for name, choice in (("rule", rule), ("keys", keys)):
            require(name, choice, choice in _CHOICES[name], f"one of {', '.join(_CHOICES[name])}")
        self.heads, self.rule, self.corrects, self.has_decay, self.keys = heads, rule, rule == "delta", gated, keys
        self.units = -(-hidden_size // heads)
        seen, width = input_size + hidden_size * (keys == "output"), heads * self.units
        self.input_map = Linear(seen, 4 * width)
        self.rate_map = Linear(seen, heads * (2 if gated else 1))
        self.norm = nn.RMSNorm(self.units, eps=1e-5)
        self.output_map = Linear(width, hidden_size, bias=False)
        self.skip_map = Linear(input_size, hidden_size)
        self.mix = nn.Parameter(torch.linspace(0, 0.5, input_size)) if shift else None
        with torch.no_grad():
            self.rate_map.bias[heads:] = 5.0  # sigmoid(5) = 0.993

    def initial_state(self, batch_size: int) -> State:
        like = self.output_map.weight
        sizes = [self.input_size] * (self.mix is not None) + [self.hidden_size] * (self.keys == "output")
        matrix = like.new_zeros(batch_size, self.heads, self.units, self.units)
        return *(like.new_zeros(batch_size, size) for size in sizes), matrix

    def unroll(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> tuple[Tensor, State]:
        return self.run(self.remember, x, state, episode_starts)

    def run(self, remember: Remember, x: Tensor, state: State, episode_starts: Tensor | None) -> tuple[Tensor, State]:
        """`forward` with a function that computes the same as the method `remember`.

        Args:
            remember: Called as the method is.
            x: Inputs, [T, B, I].
            state: The state before them.
            episode_starts: Where rows start an episode, [T, B] bool, or None.
        """
        seen, last, state = self._blend(x, state, episode_starts)
        if self.keys == "input":
            shown, matrix = remember(state[0], *self._programme(seen), episode_starts)
            return self._show(shown, x), (*last, matrix)
        outputs = []
        for t in range(len(x)):
            starts = None if episode_starts is None else episode_starts[t : t + 1]
            h, matrix = state if starts is None else reset_rows(state, starts[0])
            shown, matrix = remember(matrix, *self._programme(torch.cat([seen[t], h.tanh()], dim=1).unsqueeze(0)), starts)
            outputs.append(self._show(shown, x[t : t + 1])[0])
            state = outputs[-1].clone(), matrix
        return torch.stack(outputs), (*last, *state)

    def _blend(self, x: Tensor, state: State, episode_starts: Tensor | None) -> tuple[Tensor, State, State]:
        """What the maps see of the inputs [T, B, I], what the next state keeps of them, and the rest of this state."""
        if self.mix is None:
            return x, (), state
        last, *rest = state
        before = torch.cat([last.unsqueeze(0), x[:-1]])
        if episode_starts is not None:
            before = before.masked_fill(episode_starts.unsqueeze(2), 0.0)
        return x + self.mix * (before - x), (x[-1].clone(),), tuple(rest)

    def _programme(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Queries, keys, gates and values as the map gives them [T, B, 4, N, d], and strengths and decays [T, B, 1 or 2, N]."""
        mapped = self.input_map(seen).unflatten(2, (4, self.heads, self.units))
        return mapped, self.rate_map(seen).sigmoid().unflatten(2, (-1, self.heads))

    def remember(
        self,
        matrix: Tensor,
        mapped: Tensor,
        rates: Tensor,
        episode_starts: Tensor | None = None,
        write_and_read: Callable[..., tuple[Tensor, Tensor]] = memory.write_and_read,
    ) -> tuple[Tensor, Tensor]:
        """The reads with norm and gate, [T, B, N, d], and the matrix after them, in plain Torch.

        Args:
            matrix: A before the sequence, [B, N, d, d].
            mapped: Queries, keys, gates and values as `input_map` gives them, [T, B, 4, N, d].
            rates: Strengths and decays, [T, B, 1 or 2, N].
            episode_starts: Where rows start an episode, [T, B] bool, or None.
            write_and_read: `memory.write_and_read`, or a function that computes the same.
        """
        queries, keys, strengths, decays = self._addresses(mapped, rates)
        values = mapped[:, :, 3]
        reads, matrix = write_and_read(matrix, queries, keys, values, strengths, decays, episode_starts, corrects=self.corrects)
        return self.norm(reads) * silu(mapped[:, :, 2]), matrix

    def _addresses(self, mapped: Tensor, rates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries and keys of unit length [T, B, N, d], and strengths and decays [T, B, N], of what `_programme` gives."""
        raw = silu(mapped[:, :, :2])
        queries, keys = (raw * torch.rsqrt(raw.square().sum(dim=-1, keepdim=True) + TINY)).unbind(2)
        return queries, keys, rates[:, :, 0], rates[:, :, 1] if self.has_decay else None

    def _show(self, shown: Tensor, x: Tensor) -> Tensor:
        """The outputs [T, B, H] of what `remember` gives."""
        return self.output_map(shown.flatten(2)) + self.skip_map(x)

    def attention(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> Tensor:
        """How much of each earlier step's value is in what a step reads, [T, B, T]; no gradient.

        It is the mean over the heads of the absolute weights, less what later writes have removed; 0 for j >= t. With `shift` a
        value may be written in the step after the one that showed it.

        Args:
            x: Inputs, [T, B, I].
            state: The state before them, which is not part of the sequence and is left out.
            episode_starts: Where rows start an episode, [T, B] bool, or None.
        """
        programmes = []

        def note(matrix: Tensor, mapped: Tensor, rates: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
            programmes.append((mapped, rates))
            return self.remember(matrix, mapped, rates, starts)

        with torch.no_grad():
            self.run(note, x, state, episode_starts)
            mapped, rates = (torch.cat(parts) for parts in zip(*programmes, strict=True))
            weights = memory.recall_weights(*self._addresses(mapped, rates), episode_starts, corrects=self.corrects)
            earlier = torch.ones(len(x), len(x), dtype=torch.bool, device=x.device).tril(-1)
            return weights.abs().mean(2) * earlier.unsqueeze(1)

    def extra_repr(self) -> str:
        options = f"heads={self.heads}, rule={self.rule!r}, gated={self.has_decay}, keys={self.keys!r}"
        return f"{super().extra_repr()}, {options}, shift={self.mix is not None}"
