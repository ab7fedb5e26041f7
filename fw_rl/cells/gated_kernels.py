"""What the LSTM and the GRU do between the products with their weights, compiled for the processor.

`gates` [T, B, G, H] is what the input gives to the G sums of a step, in Torch's order, and becomes what they are after their
functions; `added` [T, B, G, H] is what the h before gives to them, `before` [T, B, H] that h, zero where an episode starts, and
`outputs` [T, B, H] the new one. `kept` [T + 1, B, H] holds c of the LSTM, from before the first step on; with the GRU what
`added` was for the candidate, after the first. `starts` [T, B] is true where c is zero before the step, [0, 0] for nowhere.

The way back takes one step. `d_h` [B, H] is the gradient of h, and becomes what of it goes to the h before, not by way of the
weights; `d_c` [B, H] is the same of c. `d_gates` and `d_added` [B, G, H] are found; with the LSTM they are one array.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fw_rl.kernels import Array, helper, in_place, sigmoid, tanh

__all__ = ["gru_back", "gru_forward", "lstm_back", "lstm_forward"]

# Each inner loop writes one array: with more, the compiler would not trust that they lie apart, and take one number at a time.


@in_place
def lstm_forward(gates: Array, added: Array, before: Array, starts: NDArray[np.bool_], kept: Array, outputs: Array) -> None:
    steps, batch, size = outputs.shape
    for t in range(steps):
        for b in range(batch):
            store, keep, candidate, show = gates[t, b, 0], gates[t, b, 1], gates[t, b, 2], gates[t, b, 3]
            c_before, c, h = kept[t, b], kept[t + 1, b], outputs[t, b]
            for gate in range(4):
                _add(gates[t, b, gate], added[t, b, gate])
            sigmoid(added[t, b, 0], store)
            sigmoid(added[t, b, 1], keep)
            tanh(added[t, b, 2], candidate)
            sigmoid(added[t, b, 3], show)
            if len(starts) and starts[t, b]:
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
    starts: NDArray[np.bool_],
    kept: Array,
    d_h: Array,
    d_c: Array,
    d_gates: Array,
    d_added: Array,
) -> None:
    batch, size = d_h.shape
    zero, one = d_h.dtype.type(0), d_h.dtype.type(1)
    for b in range(batch):
        store, keep, candidate, show = gates[0, b, 0], gates[0, b, 1], gates[0, b, 2], gates[0, b, 3]
        c_before, c, d, dc = kept[0, b], kept[1, b], d_h[b], d_c[b]
        d_store, d_keep, d_candidate, d_show = d_gates[b, 0], d_gates[b, 1], d_gates[b, 2], d_gates[b, 3]
        tanh(c, d_keep)  # for now
        for n in range(size):
            dc[n] += d[n] * show[n] * (one - d_keep[n] * d_keep[n])
        for n in range(size):
            d_show[n] = d[n] * d_keep[n] * show[n] * (one - show[n])
        for n in range(size):
            d_store[n] = dc[n] * candidate[n] * store[n] * (one - store[n])
        for n in range(size):
            d_candidate[n] = dc[n] * store[n] * (one - candidate[n] * candidate[n])
        if len(starts) and starts[0, b]:
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


@in_place
def gru_forward(gates: Array, added: Array, before: Array, starts: NDArray[np.bool_], kept: Array, outputs: Array) -> None:
    steps, batch, size = outputs.shape
    one = outputs.dtype.type(1)
    for t in range(steps):
        for b in range(batch):
            reset, keep, candidate = gates[t, b, 0], gates[t, b, 1], gates[t, b, 2]
            recalled, last, h = kept[t + 1, b], before[t, b], outputs[t, b]
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
    starts: NDArray[np.bool_],
    kept: Array,
    d_h: Array,
    d_c: Array,
    d_gates: Array,
    d_added: Array,
) -> None:
    batch, size = d_h.shape
    one = d_h.dtype.type(1)
    for b in range(batch):
        reset, keep, candidate = gates[0, b, 0], gates[0, b, 1], gates[0, b, 2]
        recalled, last, d = kept[1, b], before[0, b], d_h[b]
        d_reset, d_keep, d_candidate = d_gates[b, 0], d_gates[b, 1], d_gates[b, 2]
        for n in range(size):
            d_candidate[n] = d[n] * (one - keep[n]) * (one - candidate[n] * candidate[n])
        for n in range(size):
            d_keep[n] = d[n] * (last[n] - candidate[n]) * keep[n] * (one - keep[n])
        for n in range(size):
            d_reset[n] = d_candidate[n] * recalled[n] * reset[n] * (one - reset[n])
        for gate in range(2):
            for n in range(size):
                d_added[b, gate, n] = d_gates[b, gate, n]
        for n in range(size):
            d_added[b, 2, n] = d_candidate[n] * reset[n]
        for n in range(size):
            d[n] *= keep[n]


@helper
def _add(a: Array, out: Array) -> None:
    for i in range(len(out)):
        out[i] += a[i]
