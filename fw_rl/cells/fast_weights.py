"""The recurrent net with fast weights of Ba et al. 2016."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fw_rl import memory
from fw_rl.cells.base import Cell, State, Stepper, register_cell, scaled_identity_
from fw_rl.cells.fast_weights_sequence import Constants, Sequence, Weights, Window, episode_begins, write_all
from fw_rl.cells.fast_weights_states import MatrixCell, RecentCell, pack, unpack
from fw_rl.cells.kernels import can_run
from fw_rl.memory import WRITE_RULES, Memory

__all__ = ["FastWeightsCell"]

_PIECE = 64
"""Steps of a sequence that are read one by one before they are folded into a matrix, at least."""

_NORM_PLACEMENTS = ("sum", "all", "recall")

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


class _Settling(NamedTuple):
    """What one step saw on its way to h: the boundary, the query of the last read, what came back, and the memory it read."""

    boundary: Tensor
    query: Tensor
    recalled: Tensor
    memory: Memory


@register_cell("fast-weights")
class FastWeightsCell(Cell):
    """ReLU recurrent net whose fast weights A attend to its recent past (Ba16 Eq. 1 to 5).

    One step, with f the activation, LN layer normalisation and S = `inner_steps`:

        boundary = W h(t-1) + C x(t) + bias
        h_0      = f(boundary)                                       not normalised, as in the text of Eq. 2
        h_{s+1}  = f(LN[boundary + A(t-1) h_s])                      s = 0 .. S-1     (Eq. 5)
        h(t)     = h_S
        A(t)     = decay * A(t-1) + eta * h(t) h(t)^T                                 (Eq. 1)

    Modules: `input_map` (C and bias), `recurrent_map` (W), `norm` (gain and bias of LN).

    `eta`, `decay`: rates of the fast weights; the paper has 0.5 and 0.95. `inner_steps`: S. `layer_norm`: False leaves Eq. 2.
    `norm_placement`: what LN is applied to: "sum" is Eq. 5; for ablations, "all" is h_0 = f(LN[boundary]) besides, and "recall"
    is h_{s+1} = f(boundary + LN[A h_s]).
    `method`: 1 keeps the boundary during the inner loop; 2 replaces it by the identity added to A (Ba16 Appendix B).
    `rule`: "hebb", "delta" or "oja", see `fw_rl.memory`. `learn_eta`, `learn_decay`: make them parameters, positive and within
    (0, 1). `recurrent_scale`: W starts as this times the identity. `activation`: "relu" or "tanh". `window`: how many writes
    are kept apart before they are folded into a matrix; 0 holds the matrix at every step. It changes speed, not numbers.

    State: h [B, H] and the parts of a `fw_rl.memory.Memory`, of bounded size: at most `window` writes and one [H, H] matrix a
    row.

    Raises ValueError for an option outside its range.

    >>> cell = FastWeightsCell(input_size=4, hidden_size=16, inner_steps=2)
    >>> state = cell.initial_state(batch_size=3)
    >>> y, state = cell(torch.randn(7, 3, 4), state)            # a sequence of 7 steps, while learning
    >>> y, state = cell(torch.randn(1, 3, 4), state)            # one step, while acting
    """

    attends = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        eta: float = 0.5,
        decay: float = 0.95,
        inner_steps: int = 1,
        layer_norm: bool = True,
        norm_placement: str = "sum",
        method: int = 1,
        rule: str = "hebb",
        learn_eta: bool = False,
        learn_decay: bool = False,
        recurrent_scale: float = 0.05,
        activation: str = "relu",
        window: int = 32,
    ) -> None:
        super().__init__(input_size, hidden_size)
        _require(rule in WRITE_RULES, f"rule is {rule!r}: choose from {', '.join(WRITE_RULES)}")
        _require(activation in _ACTIVATIONS, f"activation is {activation!r}: choose from {', '.join(_ACTIVATIONS)}")
        placements = ", ".join(_NORM_PLACEMENTS)
        _require(norm_placement in _NORM_PLACEMENTS, f"norm_placement is {norm_placement!r}: choose from {placements}")
        _require(method in (1, 2), f"method is {method}: it must be 1 or 2")
        _require(_whole(inner_steps) and inner_steps >= 1, f"inner_steps is {inner_steps}: it must be a whole number from 1")
        _require(_whole(window) and window >= 0, f"window is {window}: it must be a whole number from 0")
        for name, number in (("eta", eta), ("decay", decay), ("recurrent_scale", recurrent_scale)):
            _require(isinstance(number, int | float), f"{name} is {number!r}: it must be a number")
        _require(0 <= eta < math.inf, f"eta is {eta}: it must be at least 0 and finite")
        _require(0 <= decay <= 1, f"decay is {decay}: it must lie between 0 and 1")
        _require(eta > 0 or not learn_eta, f"eta is {eta}: it must be above 0 to be learned")
        _require(0 < decay < 1 or not learn_decay, f"decay is {decay}: it must lie inside (0, 1) to be learned")
        self.inner_steps, self.method, self.rule, self.window = inner_steps, method, rule, window
        self.activation, self.norm_placement = activation, norm_placement
        self._f, self._write_rule = _ACTIVATIONS[activation], WRITE_RULES[rule]

        self.input_map = nn.Linear(input_size, hidden_size)
        self.recurrent_map = nn.Linear(hidden_size, hidden_size, bias=False)
        self.norm = nn.LayerNorm(hidden_size) if layer_norm else nn.Identity()
        bound = 1 / math.sqrt(hidden_size)
        nn.init.uniform_(self.input_map.weight, -bound, bound)
        nn.init.zeros_(self.input_map.bias)
        scaled_identity_(self.recurrent_map.weight, recurrent_scale)

        self._eta, self._decay = float(eta), float(decay)
        self.log_eta = nn.Parameter(torch.tensor(math.log(eta))) if learn_eta else None
        self.logit_decay = nn.Parameter(torch.tensor(math.log(decay / (1 - decay)))) if learn_decay else None

    @property
    def eta(self) -> Tensor | float:
        """The fast learning rate; a tensor with a gradient where it is learned."""
        return self._eta if self.log_eta is None else self.log_eta.exp()

    @property
    def decay(self) -> Tensor | float:
        """What one step leaves of the fast weights; a tensor with a gradient where it is learned."""
        return self._decay if self.logit_decay is None else self.logit_decay.sigmoid()

    def initial_state(self, batch_size: int) -> State:
        like = self.recurrent_map.weight
        blank = memory.empty(batch_size, self.hidden_size, separate_values=self.rule != "hebb", like=like)
        return pack(like.new_zeros(batch_size, self.hidden_size), blank)

    def forward(
        self,
        x: Tensor,
        state: State,
        episode_starts: Tensor | None = None,
        write_gate: Tensor | None = None,
        wipe: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Run the cell over a sequence.

        `x`: [T, B, I]. `state`: from `initial_state` or an earlier call. `episode_starts`: [T, B] bool, or None.
        `write_gate`: [T, B], how much of h(t) is stored (1, or True, stores it as Eq. 1 does, 0 only decays A).
        `wipe`: [T, B] bool, True zeroes h after it was put out and stored, so that the next step starts from A alone: the
        control signal of Ba16 §4.2. Returns y [T, B, H], which holds every h(t) as it was before a wipe, and the new state.
        """
        gate_is_learned = write_gate is not None and write_gate.requires_grad
        if self._is_compiled and not gate_is_learned and can_run(x):
            return self._run(x, state, episode_starts, write_gate, wipe)
        outputs = []
        for h, _, after in self._unroll(x, state, episode_starts, write_gate, wipe):
            outputs.append(h)
            state = after
        return torch.stack(outputs), state

    def replay(self, x: Tensor, state: State, episode_starts: Tensor | None, outputs: Tensor) -> Tensor:
        if not self._is_compiled:
            return super().replay(x, state, episode_starts, outputs)
        return self._run(x, state, episode_starts, outputs=outputs)[0]

    def stepper(self, state: State) -> Stepper:
        return _WindowStepper(self, state) if self._is_compiled else super().stepper(state)

    def with_fixed_state(self) -> Cell:
        """The cell with the state h [B, H] and A [B, H, H]: every write goes into the matrix at once."""
        return MatrixCell(self)

    def with_compact_state(self) -> Cell:
        """The cell with the last K hidden vectors [B, K, H] as its state, if these are fewer numbers than the matrix has.

        K is so large that decay**K is lost in the rounding of float32: 8 steps for a decay of 0.1, 24 for 0.5.
        """
        length = self._remembered_steps
        return RecentCell(self, length) if self.rule == "hebb" and length <= self.hidden_size else self.with_fixed_state()

    def diagnostics(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> dict[str, float]:
        """What the memory does on a sequence [T, B, I]; no gradient.

        `recall_strength`: |A h| over |boundary|, each summed over steps and rows. `attention_age`: how many steps ago the
        memories lie that a read attends to, their mean weighted by the attention; the writes still in the window count, age 1
        is h(t-1).
        """
        recall, boundary, age, attention = (0.0,) * 4
        with torch.no_grad():
            for _, seen, _ in self._unroll(x, state, episode_starts):
                recall += seen.recalled.norm(dim=1).sum().item()
                boundary += seen.boundary.norm(dim=1).sum().item()
                weights = memory.attend(seen.memory, seen.query).abs().sum(0)
                ages = torch.arange(len(weights), 0, -1, dtype=weights.dtype, device=weights.device)
                age += (weights * ages).sum().item()
                attention += weights.sum().item()
        return {"recall_strength": recall / max(boundary, 1e-12), "attention_age": age / max(attention, 1e-12)}

    def attention(self, x: Tensor, state: State, episode_starts: Tensor | None = None) -> Tensor:
        """How strongly each step of x [T, B, I] attends to each step before it (Ba16 Eq. 4), [T, B, T]; no gradient.

        ``attention[t, b, j] = eta * decay**(t-1-j) * (h(j) . h_s(t))`` with Hebb's rule, for the query h_s of the last read;
        with the others the key that was written takes the place of h(j). It is 0 for j >= t and for earlier episodes. What
        `state` holds is read as ever, but has no place in the sequence and is left out.
        """
        steps, batch = x.shape[:2]
        attention = x.new_zeros(steps, batch, steps)
        with torch.no_grad():
            unrolled = self._unroll(x, state, episode_starts, window=steps + state[2].shape[1])
            for t, (_, seen, _) in enumerate(unrolled):
                pending = memory.attend(seen.memory, seen.query)
                recent = min(t, pending.shape[1])
                attention[t, :, t - recent : t] = pending[:, pending.shape[1] - recent :]
        return attention

    def extra_repr(self) -> str:
        with torch.no_grad():
            eta, decay = (torch.as_tensor(rate).item() for rate in (self.eta, self.decay))
        rates = f"eta={eta:g}, decay={decay:g}, inner_steps={self.inner_steps}"
        return f"{super().extra_repr()}, {rates}, method={self.method}, rule={self.rule!r}"

    @property
    def _remembered_steps(self) -> float:
        """After how many steps decay has left less of a write than float32 can tell from nothing; infinite if it is learned."""
        if self.logit_decay is not None or self._decay == 1:
            return math.inf
        return math.ceil(math.log(2**-24) / math.log(self._decay)) if self._decay else 1

    @property
    def _is_compiled(self) -> bool:
        """Whether there are kernels for these options, and they can run here."""
        learned = self.log_eta is not None or self.logit_decay is not None
        as_published = self.rule == "hebb" and self.method == 1 and self.norm_placement == "sum"
        return as_published and not learned and can_run(self.recurrent_map.weight)

    def _run(
        self,
        x: Tensor,
        state: State,
        episode_starts: Tensor | None = None,
        write_gate: Tensor | None = None,
        wipe: Tensor | None = None,
        outputs: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """The compiled form of `forward`, in pieces between which the memory is folded; `outputs` if they are known already."""
        driven = self.input_map(x)
        write = driven.new_full(driven.shape[:2], self._eta)
        if write_gate is not None:
            write = write * write_gate
        h, fast = unpack(state)
        room = max(self.window, _PIECE)
        if fast.keys.shape[1] >= room:
            fast = memory.fold(fast, self._decay)
        lengths = _piece_lengths(len(x), room, fast.keys.shape[1])
        script = (write, episode_starts, wipe, outputs, self._constants, lengths)
        y, folded = Sequence.apply(driven, *self._weights, h, *fast[:3], *script)
        if outputs is not None:  # who knows them does not ask for the state
            return y, state

        if folded is not None:
            fast = Memory(folded, fast.keys[:, :0], fast.strengths[:, :0])
        last = slice(len(x) - lengths[-1], None)
        fast = self._after(fast, y[last], write[last], None if episode_starts is None else episode_starts[last])
        h = y[-1].clone() if wipe is None else y[-1].masked_fill(wipe[-1, :, None], 0.0)
        return y, pack(h, fast)

    def _after(self, fast: Memory, outputs: Tensor, write: Tensor, starts: Tensor | None) -> Memory:
        """The memory after the last steps of a sequence, which shares no numbers with their outputs."""
        begins = episode_begins(starts, *write.shape)[-1]
        if (begins >= 0).all():  # nothing of it is left
            fast = memory.empty(len(begins), self.hidden_size, like=outputs)
        fast = write_all(fast, outputs, write, begins, self._decay)
        if fast.keys.shape[1] > self.window:
            return memory.fold(fast, self._decay)
        return fast._replace(keys=fast.keys.clone(memory_format=torch.contiguous_format))

    @property
    def _weights(self) -> Weights:
        weight, norm = self.recurrent_map.weight, self.norm
        none = weight.new_empty(0)
        return Weights(weight, norm.weight, norm.bias) if isinstance(norm, nn.LayerNorm) else Weights(weight, none, none)

    @property
    def _constants(self) -> Constants:
        eps = self.norm.eps if isinstance(self.norm, nn.LayerNorm) else 0.0
        return Constants(eps, self._decay, self.inner_steps, self.activation == "tanh")

    def _unroll(
        self,
        x: Tensor,
        state: State,
        episode_starts: Tensor | None = None,
        write_gate: Tensor | None = None,
        wipe: Tensor | None = None,
        window: int | None = None,
    ) -> Iterator[tuple[Tensor, _Settling, State]]:
        """Step by step: h(t), how it came about, and the state after it; `window` in place of the cell's own."""
        window = self.window if window is None else window
        driven = self.input_map(x)
        eta, decay = self.eta, self.decay
        full_strength = x.new_full((x.shape[1],), eta) if isinstance(eta, float) else eta.expand(x.shape[1])
        all_starts, any_starts = _start_kinds(episode_starts, len(x))
        for t in range(len(x)):
            if all_starts[t]:
                state = self.initial_state(x.shape[1])
            h, fast = unpack(state)
            if any_starts[t] and not all_starts[t]:
                assert episode_starts is not None
                h, fast = h.masked_fill(episode_starts[t, :, None], 0.0), memory.forget(fast, episode_starts[t])

            boundary = driven[t] + self.recurrent_map(h)
            h, seen = self._settle(boundary, fast, decay)
            strength = full_strength if write_gate is None else full_strength * write_gate[t]
            fast = memory.write(fast, *self._write_rule(fast, h, decay), strength, decay)
            if fast.keys.shape[1] > window:
                fast = memory.fold(fast, decay)
            state = pack(h if wipe is None else h.masked_fill(wipe[t, :, None], 0.0), fast)
            yield h, seen, state

    def _settle(self, boundary: Tensor, fast: Memory, decay: Tensor | float) -> tuple[Tensor, _Settling]:
        """The inner loop: S reads of A, each from the vector that the read before it led to."""
        h = query = self._f(self.norm(boundary) if self.norm_placement == "all" else boundary)
        recalled = boundary
        for _ in range(self.inner_steps):
            query = h
            recalled = memory.read(fast, query, decay)
            sustained = boundary if self.method == 1 else query
            if self.norm_placement == "recall":
                h = self._f(sustained + self.norm(recalled))
            else:
                h = self._f(self.norm(sustained + recalled))
        return h, _Settling(boundary, query, recalled, fast)


class _WindowStepper(Stepper):
    """Acts on a memory that is written in place."""

    cell: FastWeightsCell

    @torch.no_grad()
    def __init__(self, cell: FastWeightsCell, state: State) -> None:
        self.cell = cell
        self._window = Window(*unpack(state), cell.window + 1, cell._weights, cell._constants)

    @property
    def state(self) -> State:
        return pack(self._window.h, self._window.memory)

    @torch.no_grad()
    def step(self, x: Tensor, episode_starts: Tensor) -> Tensor:
        self._window.weights = Weights(*(part.detach() for part in self.cell._weights))
        write = np.full(len(x), self.cell._eta, dtype=self._window.h.numpy().dtype)
        return self._window.step(self.cell.input_map(x), write, episode_starts)


def _piece_lengths(steps: int, room: int, pending: int) -> list[int]:
    """A sequence in pieces: the first fills what the pending writes leave of the room, the others take all of it."""
    first = min(steps, room - pending if pending < room else room)
    whole, rest = divmod(steps - first, room)
    return [first, *[room] * whole, *[rest] * (rest > 0)]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _start_kinds(episode_starts: Tensor | None, steps: int) -> tuple[list[bool], list[bool]]:
    """For each step whether all rows, and whether any row, starts an episode: asked once for a whole sequence."""
    if episode_starts is None:
        return [False] * steps, [False] * steps
    counts = episode_starts.sum(dim=1).tolist()
    return [count == episode_starts.shape[1] for count in counts], [count > 0 for count in counts]
