"""The steps of the LSTM, the GRU and the ReLU net, compiled for the processor.

`gates` [T, B, G, H] is what the input adds to the G sums of a step, in Torch's order, and becomes their values after the
activations (with the ReLU net, G = 1, before it); `added` [T, B, G, H] is what the previous h adds to them, `before` [T, B, H]
that h, zero where an episode starts, and `outputs` [T, B, H] the new one. `kept` [T + 1, B, H] holds c of the LSTM, from before
the first step on; with the GRU what `added` was for the candidate, after the first. `starts` [T, B] is true where an episode
starts, [0, 0] for nowhere.

`recurrent` [G, H, H] and `bias` [G, H] are the recurrent weights. With them the kernel computes `added`, and `before` after its
first step. With [0, 0, 0] these products are Torch's: `added` and `before` are given for all steps.

The backward pass goes from the last step to the first. `d_h` [B, H], the gradient of the h after the last step, becomes that of
the h before the first, and `d_c` [B, H] the same of c; `d_outputs` [T, B, H] is added on the way. `d_gates` and `d_added`
[T, B, G, H] are computed; they are one array, except with the GRU. `transposed` [G, H, H] are the recurrent weights from unit
to gate. With [0, 0, 0] there must be one step, and Torch adds to `d_h` what comes through them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fw_rl.kernels import Array, add_product, helper, in_place, sigmoid, tanh

__all__ = ["gru_back", "gru_forward", "lstm_back", "lstm_forward", "rnn_back", "rnn_forward"]

# Each inner loop writes one array: with more, the compiler would not trust that they lie apart, and take one number at a time.


@in_place
def lstm_forward(
    gates: Array,
    added: Array,
    before: Array,
    starts: NDArray[np.bool_],
    recurrent: Array,
    bias: Array,
    kept: Array,
    outputs: Array,
) -> None:
    steps, batch, size = outputs.shape
    for t in range(steps):
        for b in range(batch):
            store, keep, candidate, show = gates[t, b, 0], gates[t, b, 1], gates[t, b, 2], gates[t, b, 3]
            c_before, c, h = kept[t, b], kept[t + 1, b], outputs[t, b]
            is_start = len(starts) and starts[t, b]
            if len(recurrent):
                _recall(t, b, is_start, outputs, before, recurrent, bias, added)
            for gate in range(4):
                _add(gates[t, b, gate], added[t, b, gate])
            sigmoid(added[t, b, 0], store)
            sigmoid(added[t, b, 1], keep)
            tanh(added[t, b, 2], candidate)
            sigmoid(added[t, b, 3], show)
            if is_start:
                for n in range(size):
                    c[n] = store[n] * candidate[n]
            else:
                for n in range(size):
                    c[n] = store[n] * candidate[n] + keep[n] * c_before[n]
            tanh(c, h)
            for n in range(size):
                h[n] *= show[n]


@in_place
def lstm_back(
    gates: Array,
    before: Array,
    kept: Array,
    starts: NDArray[np.bool_],
    transposed: Array,
    d_outputs: Array,
    d_h: Array,
    d_c: Array,
    d_gates: Array,
    d_added: Array,
) -> None:
    steps, batch, size = d_outputs.shape
    zero, one = d_h.dtype.type(0), d_h.dtype.type(1)
    for t in range(steps - 1, -1, -1):
        for b in range(batch):
            store, keep, candidate, show = gates[t, b, 0], gates[t, b, 1], gates[t, b, 2], gates[t, b, 3]
            c_before, c, d, dc = kept[t, b], kept[t + 1, b], d_h[b], d_c[b]
            d_store, d_keep, d_candidate, d_show = d_gates[t, b, 0], d_gates[t, b, 1], d_gates[t, b, 2], d_gates[t, b, 3]
            is_start = len(starts) and starts[t, b]
            _add(d_outputs[t, b], d)
            tanh(c, d_keep)  # for now
            for n in range(size):
                dc[n] += d[n] * show[n] * (one - d_keep[n] * d_keep[n])
            for n in range(size):
                d_show[n] = d[n] * d_keep[n] * show[n] * (one - show[n])
            for n in range(size):
                d_store[n] = dc[n] * candidate[n] * store[n] * (one - store[n])
            for n in range(size):
                d_candidate[n] = dc[n] * store[n] * (one - candidate[n] * candidate[n])
            if is_start:
                for n in range(size):
                    d_keep[n] = zero
                for n in range(size):
                    dc[n] = zero
            else:
                for n in range(size):
                    d_keep[n] = dc[n] * c_before[n] * keep[n] * (one - keep[n])
                for n in range(size):
                    dc[n] *= keep[n]
            for n in range(size):
                d[n] = zero
            _recall_back(is_start, transposed, d_added[t, b], d)


@in_place
def gru_forward(
    gates: Array,
    added: Array,
    before: Array,
    starts: NDArray[np.bool_],
    recurrent: Array,
    bias: Array,
    kept: Array,
    outputs: Array,
) -> None:
    steps, batch, size = outputs.shape
    one = outputs.dtype.type(1)
    for t in range(steps):
        for b in range(batch):
            reset, keep, candidate = gates[t, b, 0], gates[t, b, 1], gates[t, b, 2]
            recalled, last, h = kept[t + 1, b], before[t, b], outputs[t, b]
            if len(recurrent):
                _recall(t, b, len(starts) and starts[t, b], outputs, before, recurrent, bias, added)
            for n in range(size):
                recalled[n] = added[t, b, 2, n]
            for gate in range(2):
                _add(gates[t, b, gate], added[t, b, gate])
            sigmoid(added[t, b, 0], reset)
            sigmoid(added[t, b, 1], keep)
            for n in range(size):
                h[n] = candidate[n] + reset[n] * recalled[n]
            tanh(h, candidate)
            for n in range(size):
                h[n] = (one - keep[n]) * candidate[n] + keep[n] * last[n]


@in_place
def gru_back(
    gates: Array,
    before: Array,
    kept: Array,
    starts: NDArray[np.bool_],
    transposed: Array,
    d_outputs: Array,
    d_h: Array,
    d_c: Array,
    d_gates: Array,
    d_added: Array,
) -> None:
    steps, batch, size = d_outputs.shape
    one = d_h.dtype.type(1)
    for t in range(steps - 1, -1, -1):
        for b in range(batch):
            reset, keep, candidate = gates[t, b, 0], gates[t, b, 1], gates[t, b, 2]
            recalled, last, d = kept[t + 1, b], before[t, b], d_h[b]
            d_reset, d_keep, d_candidate = d_gates[t, b, 0], d_gates[t, b, 1], d_gates[t, b, 2]
            _add(d_outputs[t, b], d)
            for n in range(size):
                d_candidate[n] = d[n] * (one - keep[n]) * (one - candidate[n] * candidate[n])
            for n in range(size):
                d_keep[n] = d[n] * (last[n] - candidate[n]) * keep[n] * (one - keep[n])
            for n in range(size):
                d_reset[n] = d_candidate[n] * recalled[n] * reset[n] * (one - reset[n])
            for gate in range(2):
                for n in range(size):
                    d_added[t, b, gate, n] = d_gates[t, b, gate, n]
            for n in range(size):
                d_added[t, b, 2, n] = d_candidate[n] * reset[n]
            for n in range(size):
                d[n] *= keep[n]
            _recall_back(len(starts) and starts[t, b], transposed, d_added[t, b], d)


@in_place
def rnn_forward(
    gates: Array,
    added: Array,
    before: Array,
    starts: NDArray[np.bool_],
    recurrent: Array,
    bias: Array,
    kept: Array,
    outputs: Array,
    bound: float,
) -> None:
    steps, batch, size = outputs.shape
    zero, most = outputs.dtype.type(0), outputs.dtype.type(bound)
    for t in range(steps):
        for b in range(batch):
            total, h = gates[t, b, 0], outputs[t, b]
            if len(recurrent):
                _recall(t, b, len(starts) and starts[t, b], outputs, before, recurrent, bias, added)
            _add(added[t, b, 0], total)
            for n in range(size):
                h[n] = zero if total[n] < zero else (most if total[n] > most else total[n])  # what is not a number goes through


@in_place
def rnn_back(
    gates: Array,
    before: Array,
    kept: Array,
    starts: NDArray[np.bool_],
    transposed: Array,
    d_outputs: Array,
    d_h: Array,
    d_c: Array,
    d_gates: Array,
    d_added: Array,
    bound: float,
) -> None:
    steps, batch, size = d_outputs.shape
    zero, most = d_h.dtype.type(0), d_h.dtype.type(bound)
    for t in range(steps - 1, -1, -1):
        for b in range(batch):
            total, d_total, d = gates[t, b, 0], d_gates[t, b, 0], d_h[b]
            _add(d_outputs[t, b], d)
            for n in range(size):
                d_total[n] = d[n] if zero < total[n] <= most else zero
            for n in range(size):
                d[n] = zero
            _recall_back(len(starts) and starts[t, b], transposed, d_added[t, b], d)


@helper
def _recall(t: int, b: int, is_start: bool, outputs: Array, before: Array, recurrent: Array, bias: Array, added: Array) -> None:
    """The h before a step, and what it gives to the gates."""
    h, zero, one = before[t, b], before.dtype.type(0), before.dtype.type(1)
    if is_start:
        for n in range(len(h)):
            h[n] = zero
    elif t:
        for n in range(len(h)):
            h[n] = outputs[t - 1, b, n]
    for gate in range(len(recurrent)):
        for n in range(len(h)):
            added[t, b, gate, n] = bias[gate, n]
        add_product(one, recurrent[gate], h, added[t, b, gate])


@helper
def _recall_back(is_start: bool, transposed: Array, d_added: Array, d: Array) -> None:
    """Add to the gradient of the h before a step what comes through the gates."""
    for gate in range(len(transposed)):
        add_product(d.dtype.type(1), transposed[gate], d_added[gate], d)
    if is_start:
        for n in range(len(d)):
            d[n] = d.dtype.type(0)


@helper
def _add(a: Array, out: Array) -> None:
    for i in range(len(out)):
        out[i] += a[i]
