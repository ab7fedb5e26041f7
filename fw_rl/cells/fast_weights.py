"""The recurrent net with fast weights of Ba et al. 2016."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fw_rl import memory
from fw_rl.arguments import require, require_count
from fw_rl.cells.backends import AcceleratedCell
from fw_rl.cells.base import State, register_cell, scaled_identity_
from fw_rl.linear import Linear
from fw_rl.memory import WRITE_RULES, Memory

__all__ = ["ASSOCIATIVE", "BA16", "FastWeightsCell"]

BA16: dict[str, Any] = dict(eta=0.5, decay=0.95, recurrent_scale=0.05, activation="relu")
"""Eta and decay of Ba16 §3.1, W and f of its retrieval task (A.1, whose decay is 0.9); the defaults learn best in agents."""

ASSOCIATIVE: dict[str, Any] = dict(eta=0.01, decay=1.0, recurrent_scale=0.0, learn_recurrent=False)
"""Options with which Hebb's rule alone remembers: an agent then learns to retrieve values by their keys."""

_LONGEST = 64
"""Writes of a sequence beyond the window that are read one by one before they are folded."""

_ROUNDING = 2.0**-53
"""What float64 loses when it is added to 1."""

_NORM_PLACEMENTS = ("sum", "all", "recall")

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


class _Step(NamedTuple):
    """One step: h, what led to it (boundary, last query and what it recalled, memory), and what is left."""

    h: Tensor
    boundary: Tensor
    query: Tensor
    recalled: Tensor
    memory: Memory
    h_after: Tensor
    memory_after: Memory


@register_cell("fast-weights")
class FastWeightsCell(AcceleratedCell):
    """Recurrent net whose fast weights A attend to its recent past (Ba16 Eq. 1 to 5).

    One step, with f the activation, LN layer normalisation and S = `inner_steps`:

        boundary = W h(t-1) + C x(t) + bias
        h_0      = f(boundary)                                       not normalised, as in the text of Eq. 2
        h_{s+1}  = f(LN[boundary + A(t-1) h_s])                      s = 0 .. S-1     (Eq. 5)
        h(t)     = h_S
        A(t)     = decay * A(t-1) + eta * h(t) h(t)^T                                 (Eq. 1)

    Modules: `input_map` (C and bias), `recurrent_map` (W), `norm` (gain and bias of LN). The state is h [B, H], the last K
    writes with their strengths, [B, K, H] and [B, K], and a matrix of those before, [B, H, H], with what decay has left of it,
    [B]. K is `window`, or less, without a matrix, if what came before these K is lost in rounding.

    Args:
        input_size: Numbers I of an input.
        hidden_size: Units H.
        eta: Learning rate of the fast weights; 0.5 in the paper.
        decay: Fraction of the fast weights kept by one step, 0 to 1; 0.95 in the paper.
        inner_steps: Reads S per step.
        layer_norm: False gives Eq. 2 instead of Eq. 5.
        norm_placement: What LN is applied to: "sum" (Eq. 5), "all" (h_0 too), "recall" (A h_s alone).
        method: 1 keeps the boundary during the inner loop; 2 replaces it with the identity added to A (Ba16 Appendix B).
        rule: What a step writes: "hebb", "delta" or "oja", see `fw_rl.memory`.
        learn_eta: Make eta a parameter, which stays positive.
        learn_decay: Make decay a parameter, which stays within (0, 1).
        recurrent_scale: W starts as this times the identity; 0.05 in the paper.
        learn_recurrent: False keeps W as it starts; with `recurrent_scale` 0 only the fast weights remember; see `ASSOCIATIVE`.
        activation: f, "tanh", or "relu" as in the paper.
        window: Writes kept separate before they are folded into the matrix; it changes speed, not numbers.

    Raises:
        ValueError: If an option is outside its range.

    Examples:
        >>> cell = FastWeightsCell(input_size=4, hidden_size=16, inner_steps=2)
        >>> state = cell.initial_state(batch_size=3)
        >>> y, state = cell(torch.randn(7, 3, 4), state)            # a sequence of 7 steps, while learning
        >>> y, state = cell(torch.randn(1, 3, 4), state)            # one step, while acting
    """

    attends = True
    gated = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        eta: float = 0.01,
        decay: float = 0.3,
        inner_steps: int = 1,
        layer_norm: bool = True,
        norm_placement: str = "sum",
        method: int = 1,
        rule: str = "hebb",
        learn_eta: bool = False,
        learn_decay: bool = False,
        recurrent_scale: float = 0.3,
        learn_recurrent: bool = True,
        activation: str = "tanh",
        window: int = 32,
    ) -> None:
        super().__init__(input_size, hidden_size)
        for name, choice, choices in (
            ("rule", rule, WRITE_RULES),
            ("activation", activation, _ACTIVATIONS),
            ("norm_placement", norm_placement, _NORM_PLACEMENTS),
        ):
            require(name, choice, choice in choices, f"one of {', '.join(choices)}")
        require("method", method, method in (1, 2), "1 or 2")
        require_count("inner_steps", inner_steps)
        require_count("window", window, least=0)
        for name, number in (("eta", eta), ("decay", decay), ("recurrent_scale", recurrent_scale)):
            require(name, number, isinstance(number, Real), "a number")
        require("eta", eta, 0 <= eta < math.inf, "at least 0 and finite")
        require("decay", decay, 0 <= decay <= 1, "between 0 and 1")
        require("eta", eta, eta > 0 or not learn_eta, "above 0 to be learned")
        require("decay", decay, 0 < decay < 1 or not learn_decay, "between 0 and 1, and neither of them, to be learned")
        self.inner_steps, self.method, self.rule, self.window = int(inner_steps), int(method), rule, int(window)
        self.activation, self.norm_placement = activation, norm_placement
        self._f, self._write_rule = _ACTIVATIONS[activation], WRITE_RULES[rule]

        self.input_map = Linear(input_size, hidden_size)
        self.recurrent_map = nn.Linear(hidden_size, hidden_size, bias=False)
        self.norm = nn.LayerNorm(hidden_size) if layer_norm else nn.Identity()
        bound = 1 / math.sqrt(hidden_size)
        nn.init.uniform_(self.input_map.weight, -bound, bound)
        nn.init.zeros_(self.input_map.bias)
        scaled_identity_(self.recurrent_map.weight, recurrent_scale).requires_grad_(learn_recurrent)

        self._eta, self._decay = float(eta), float(decay)
        self.log_eta = nn.Parameter(torch.tensor(math.log(eta))) if learn_eta else None
        self.logit_decay = nn.Parameter(torch.tensor(math.log(decay / (1 - decay)))) if learn_decay else None
        lasting = math.inf if learn_decay else _lasting_steps(self._decay)
        self.has_matrix = lasting > window
        self.length = window if self.has_matrix else int(lasting)
        """Writes K that the state keeps separate."""

    @property
    def eta(self) -> Tensor | float:
        """The fast learning rate; a tensor with a gradient where it is learned."""
        return self._eta if self.log_eta is None else self.log_eta.exp()

    @property
    def decay(self) -> Tensor | float:
        """Fraction of the fast weights kept by one step; a tensor with a gradient where it is learned."""
        return self._decay if self.logit_decay is None else self.logit_decay.sigmoid()

    @property
    def has_known_modules(self) -> bool:
        """Whether kernels know W, without a bias, and the norm: none, or layer normalisation with gain and bias."""
        has_norm = isinstance(self.norm, nn.LayerNorm) and self.norm.bias is not None
        return self.recurrent_map.bias is None and (has_norm or isinstance(self.norm, nn.Identity))

    def initial_state(self, batch_size: int) -> State:
        writes = [(self.length, self.hidden_size)] * (1 if self.rule == "hebb" else 2)
        shapes = [(self.hidden_size,), writes[0], (self.length,), *writes[1:]]
        like = self.recurrent_map.weight
        matrix = self._no_matrix(batch_size, like) if self.has_matrix else ()
        return *(like.new_zeros(batch_size, *shape) for shape in shapes), *matrix

    def forward(
        self,
        x: Tensor,
        state: State,
        episode_starts: Tensor | None = None,
        write_gate: Tensor | None = None,
        wipe: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Run the cell over a sequence.

        Args:
            x: Inputs, [T, B, I].
            state: From `initial_state` or an earlier call.
            episode_starts: Where rows start an episode, [T, B] bool, or None.
            write_gate: How much of h(t) is stored, [T, B]: 1, or True, is Eq. 1, 0 only decays A; None is 1.
            wipe: Where h is zeroed after it was output and stored, so the next step starts from A alone (the control signal of
                Ba16 §4.2), [T, B] bool, or None.

        Returns:
            y [T, B, H], which holds every h(t) as it was before a wipe, and the new state.
        """
        if write_gate is not None and write_gate.requires_grad:
            return self.unroll(x, state, episode_starts, write_gate, wipe)
        return self.backend(x, *state).sequence(self, x, state, episode_starts, write_gate=write_gate, wipe=wipe)

    def unroll(
        self,
        x: Tensor,
        state: State,
        episode_starts: Tensor | None = None,
        write_gate: Tensor | None = None,
        wipe: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        steps = list(self._steps(x, state, episode_starts, write_gate, wipe))
        return torch.stack([step.h for step in steps]), self.pack(steps[-1].h_after, steps[-1].memory_after)

    def attention(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> Tensor:
        """How strongly each step attends to each earlier step (Ba16 Eq. 4), [T, B, T]; no gradient.

        ``attention[t, b, j] = eta * decay**(t-1-j) * (h(j) . h_s(t))`` with Hebb's rule, for the query h_s of the last read;
        with the other rules the written key replaces h(j). It is 0 for j >= t and for earlier episodes.

        Args:
            x: Inputs, [T, B, I].
            state: The state before them, which is read as usual, but is not part of the sequence and is left out.
            episode_starts: Where rows start an episode, [T, B] bool, or None.
        """
        steps, batch = x.shape[:2]
        attention = x.new_zeros(steps, batch, steps)
        with torch.no_grad():
            for t, step in enumerate(self._steps(x, state, episode_starts, longest=steps)):
                weights = memory.attend(step.memory, step.query)
                recent = min(t, weights.shape[1])
                attention[t, :, t - recent : t] = weights[:, weights.shape[1] - recent :]
        return attention

    def diagnostics(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> dict[str, float]:
        """What the memory does on a sequence; no gradient.

        `recall_strength`: |A h| over |boundary|, each summed over steps and rows. `attention_age`: how many steps old the
        memories are that a read attends to, averaged with the attention as weights; folded memories are left out, and age 1 is
        h(t-1).
        """
        recall, boundary, age, attention = (0.0,) * 4
        with torch.no_grad():
            for step in self._steps(x, state, episode_starts):
                recall += step.recalled.norm(dim=1).sum().item()
                boundary += step.boundary.norm(dim=1).sum().item()
                weights = memory.attend(step.memory, step.query).abs().sum(0)
                ages = torch.arange(len(weights), 0, -1, dtype=weights.dtype, device=weights.device)
                age += (weights * ages).sum().item()
                attention += weights.sum().item()
        return {"recall_strength": recall / max(boundary, 1e-12), "attention_age": age / max(attention, 1e-12)}

    def pack(self, h: Tensor, fast: Memory) -> State:
        """The state of h and a memory of any size.

        Args:
            h: [B, H].
            fast: The fast weights.
        """
        fast = memory.pad(self._bound(fast), self.length)
        if self.has_matrix and fast.matrix is None:
            rows = h.shape[0]  # len() would make a constant of it in an export
            matrix, faded = self._no_matrix(rows, h)
            fast = fast._replace(matrix=matrix, faded=faded)
        return (h, *(part for part in fast if part is not None))

    def unpack(self, state: State) -> tuple[Tensor, Memory]:
        """h and the memory of a state.

        Args:
            state: What `pack` made.
        """
        h, keys, strengths, *rest = state
        values = None if self.rule == "hebb" else rest.pop(0)
        return h, Memory(keys, strengths, values, *rest)

    def extra_repr(self) -> str:
        with torch.no_grad():
            eta, decay = (torch.as_tensor(rate).item() for rate in (self.eta, self.decay))
        rates = f"eta={eta:g}, decay={decay:g}, inner_steps={self.inner_steps}"
        return f"{super().extra_repr()}, {rates}, method={self.method}, rule={self.rule!r}"

    def _no_matrix(self, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """An empty matrix [B, H, H], which takes the memory of one number, and what is left of it, 0, [B]."""
        return like.new_zeros(1, 1, 1).expand(rows, self.hidden_size, self.hidden_size), like.new_zeros(rows)

    def _blank(self, batch_size: int, like: Tensor) -> Memory:
        return memory.empty(batch_size, self.hidden_size, separate_values=self.rule != "hebb", like=like)

    def _bound(self, fast: Memory) -> Memory:
        """The memory with no more separate writes than a state has."""
        return memory.fold(fast, self.length) if self.has_matrix else memory.recent(fast, self.length)

    def _steps(
        self,
        x: Tensor,
        state: State,
        episode_starts: Tensor | None = None,
        write_gate: Tensor | None = None,
        wipe: Tensor | None = None,
        longest: int = _LONGEST,
    ) -> Iterator[_Step]:
        """The cell in plain Torch, step by step; `longest`: writes beyond the window that are read one by one."""
        driven = self.input_map(x)
        eta, decay = self.eta, self.decay
        full_strength = x.new_full((x.shape[1],), eta) if isinstance(eta, float) else eta.expand(x.shape[1])
        all_starts, any_starts = _start_kinds(episode_starts, len(x))
        h, fast = self.unpack(state)
        for t in range(len(x)):
            if all_starts[t]:
                h, fast = torch.zeros_like(h), self._blank(len(h), h)
            elif any_starts[t]:
                assert episode_starts is not None
                h, fast = h.masked_fill(episode_starts[t, :, None], 0.0), memory.forget(fast, episode_starts[t])

            before, boundary = fast, driven[t] + self.recurrent_map(h)
            h, query, recalled = self._settle(boundary, fast)
            strength = full_strength if write_gate is None else full_strength * write_gate[t]
            fast = memory.write(fast, *self._write_rule(fast, h, decay), strength, decay)
            if fast.keys.shape[1] > self.length + longest:
                fast = self._bound(fast)
            after = h if wipe is None else h.masked_fill(wipe[t, :, None], 0.0)
            yield _Step(h, boundary, query, recalled, before, after, fast)
            h = after

    def _settle(self, boundary: Tensor, fast: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """The inner loop, S reads of A, each from the vector that the previous read led to: h, the last query, its recall."""
        h = query = self._f(self.norm(boundary) if self.norm_placement == "all" else boundary)
        recalled = boundary
        for _ in range(self.inner_steps):
            query = h
            recalled = memory.read(fast, query)
            sustained = boundary if self.method == 1 else query
            if self.norm_placement == "recall":
                h = self._f(sustained + self.norm(recalled))
            else:
                h = self._f(self.norm(sustained + recalled))
        return h, query, recalled


def _lasting_steps(decay: float) -> float:
    """The number of steps after which less is left of a write than rounding; infinite if there is none."""
    if decay in (0.0, 1.0):
        return math.inf if decay else 1
    return math.ceil(math.log(_ROUNDING) / math.log(decay))


def _start_kinds(episode_starts: Tensor | None, steps: int) -> tuple[list[bool], list[bool]]:
    """For each step whether all rows, and whether any row, start an episode: found once for a whole sequence."""
    if episode_starts is None:
        return [False] * steps, [False] * steps
    counts = episode_starts.sum(dim=1).tolist()
    return [count == episode_starts.shape[1] for count in counts], [count > 0 for count in counts]
