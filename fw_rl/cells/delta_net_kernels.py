"""What the delta net does between its maps, compiled for the processor: a sequence both ways, and a step in place.

The rows b come one after the other, so that their matrices stay in the cache. With s the strength, a the decay, and
e(t) = v(t) - a(t) A(t-1) k(t), what is written is u = s e. With do = d loss / d read and D = d loss / d A(t), the way back of
the memory goes from the last step to the first by

    D += do q^T        dq = A(t)^T do        du = D k        de = dv = s du        ds = du . e
    dk = D^T u - a A(t-1)^T de               D -= de k^T     da = <D, A(t-1)>      D *= a

It needs every A(t-1): the forward pass keeps one in `every` steps, and those between are written anew, from the errors e.
Each way, what a step does to A or D is done when the next one reads it, so that a number is fetched once for both.

In both kernels a head has w numbers, `units` and then zeros up to a multiple of `LANES`: `mapped` [T, B, 4, N, w] are queries,
keys, gates and values as `input_map` gives them, and `sigmoids` [T, B, 3, N, w] those of the first three; `rates`
[T, B, 1 or 2, N] are the strengths, and the decays if there are any; `gain` [w] and `eps` are of the norm, `tiny` is added to
the square of a length; `starts` [T, B] is true where A is zero before the step, [0, 0] for nowhere; with `corrects` the rule is
"delta", else "sum".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fw_rl.kernels import Array, Real, expanded, in_place
from fw_rl.simd import LANES, filled, load, store, total

__all__ = ["run_back", "run_forward"]


@in_place
def run_forward(
    mapped: Array,
    sigmoids: Array,
    rates: Array,
    gain: Array,
    units: int,
    eps: float,
    tiny: float,
    starts: NDArray[np.bool_],
    corrects: bool,
    every: int,
    transposed: Array,
    shown: Array,
    errors: Array,
    reads: Array,
    kept: Array,
    later: Array,
    vectors: Array,
) -> None:
    """What is shown to the output map, `shown` [T, B, N, w]; `transposed` [B, N, w, w] is A^T, and is written in place.

    What `run_back` needs is left in `errors` and `reads` [T, B, N, w], and in `kept` [ceil(T / every), B, N, w, w], unless that
    is empty.
    """
    steps, batch, _, heads, _ = mapped.shape
    zero, one = gain.dtype.type(0), gain.dtype.type(1)
    queries, keys, given_back = vectors[0], vectors[1], vectors[2, 0]
    for b in range(batch):
        for n in range(heads):
            _clear(later[n])
        for begin in range(0, steps, every):
            stop = min(steps, begin + every)
            for n in range(heads):
                # What waits for the memory alone is apart, so that the processor can fetch several steps at a time.
                for t in range(begin, stop):
                    _unit(mapped[t, b, 0, n], sigmoids[t, b, 0, n], tiny, queries[t - begin])
                    _unit(mapped[t, b, 1, n], sigmoids[t, b, 1, n], tiny, keys[t - begin])
                # The write of the step before has yet to be done.
                A, last_written, last_key = transposed[b, n], later[n, 0], later[n, 1]
                for t in range(begin, stop):
                    query, key, error, read = queries[t - begin], keys[t - begin], errors[t, b, n], reads[t, b, n]
                    strength, decay = rates[t, b, 0, n], _decay(rates, t, b, n)
                    last_decay = _decay(rates, t - 1, b, n) if t else one
                    if len(starts) and starts[t, b]:
                        last_decay = one
                        _clear(A)
                        _clear(later[n])
                    _write_and_combine(A, last_decay, last_key, last_written, query, key, read, given_back)
                    if len(kept) and t == begin:
                        _copy(A, kept[t // every, b, n])
                    along, back = strength * _dot(key, query), decay if corrects else zero
                    for i in range(0, len(key), LANES):
                        e = load(mapped[t, b, 3, n], i) - back * load(given_back, i)
                        store(e, error, i)
                        store(decay * load(read, i) + along * e, read, i)
                        store(strength * e, last_written, i)
                        store(load(key, i), last_key, i)
                for t in range(begin, stop):
                    read = reads[t, b, n]
                    scale = _scale(_dot(read, read), units, eps)
                    for i in range(0, len(read), LANES):
                        gate = load(mapped[t, b, 2, n], i) * load(sigmoids[t, b, 2, n], i)
                        store(scale * load(gain, i) * load(read, i) * gate, shown[t, b, n], i)
        for n in range(heads):
            A = transposed[b, n]
            _write(A, _decay(rates, steps - 1, b, n), later[n, 1], later[n, 0], A)


@in_place
def run_back(
    mapped: Array,
    sigmoids: Array,
    rates: Array,
    gain: Array,
    units: int,
    eps: float,
    tiny: float,
    starts: NDArray[np.bool_],
    corrects: bool,
    every: int,
    errors: Array,
    reads: Array,
    kept: Array,
    d_shown: Array,
    d_matrix: Array,
    d_mapped: Array,
    d_rates: Array,
    d_gain: Array,
    before: Array,
    vectors: Array,
    scales: Array,
    later: Array,
    room: Array,
) -> None:
    """The way back through `run_forward`: `d_matrix` [B, N, w, w], of A after the sequence, becomes that of A before it."""
    steps, batch, _, heads, _ = mapped.shape
    zero, one = gain.dtype.type(0), gain.dtype.type(1)
    queries, keys, written, d_reads = vectors[0], vectors[1], vectors[2], vectors[3]
    d_written, from_read, from_error, d_query, d_key = room[0], room[1], room[2], room[3], room[4]
    for b in range(batch):
        for n in range(heads):
            _clear(later[n])
        for c in range(len(kept) - 1, -1, -1):
            begin, stop = c * every, min(steps, (c + 1) * every)
            for n in range(heads):
                # First what waits for the memory alone, so that the processor can fetch several steps at a time.
                for t in range(begin, stop):
                    s = t - begin
                    scales[0, s] = _unit(mapped[t, b, 0, n], sigmoids[t, b, 0, n], tiny, queries[s])
                    scales[1, s] = _unit(mapped[t, b, 1, n], sigmoids[t, b, 1, n], tiny, keys[s])
                    _back_through_gate(
                        mapped[t, b, 2, n],
                        sigmoids[t, b, 2, n],
                        gain,
                        units,
                        eps,
                        reads[t, b, n],
                        d_shown[t, b, n],
                        d_reads[s],
                        d_mapped[t, b, 2, n],
                        d_gain,
                    )
                    _multiply(rates[t, b, 0, n], errors[t, b, n], written[s])
                _transpose(kept[c, b, n], before[0])
                for t in range(begin + 1, stop):
                    if len(starts) and starts[t, b]:
                        _clear(before[t - begin])
                    else:
                        s = t - 1 - begin
                        _write(before[s], _decay(rates, t - 1, b, n), written[s], keys[s], before[s + 1])

                # What the step after this one does to D, which has yet to be done.
                D, later_read, later_query, later_error, later_key = (
                    d_matrix[b, n],
                    later[n, 0],
                    later[n, 1],
                    later[n, 2],
                    later[n, 3],
                )
                for t in range(stop - 1, begin - 1, -1):
                    s = t - begin
                    A, query, key, d_read = before[s], queries[s], keys[s], d_reads[s]
                    strength, decay = rates[t, b, 0, n], _decay(rates, t, b, n)
                    later_decay = _decay(rates, t + 1, b, n) if t + 1 < steps else one
                    if t + 1 < steps and len(starts) and starts[t + 1, b]:
                        later_decay = one
                        _clear(D)
                        _clear(later[n])
                    _add_and_combine(D, later_decay, later_read, later_query, later_error, later_key, written[s], d_key)
                    _rows_times(D, key, d_written)
                    shared, along, slopes = _dot(query, key), _dot(written[s], d_read), filled(zero)
                    for i in range(0, len(key), LANES):
                        d = load(d_written, i) + shared * load(d_read, i)
                        slopes = slopes + d * load(errors[t, b, n], i)
                        store(strength * d, d_mapped[t, b, 3, n], i)
                        store((strength if corrects else zero) * d, later_error, i)
                    d_rates[t, b, 0, n] = total(slopes)
                    _combine_twice(A, d_read, later_error, from_read, from_error)
                    if rates.shape[2] > 1:
                        d_decay = _dot(from_read, query) - _dot(from_error, key)
                        d_rates[t, b, 1, n] = d_decay + _product(D, A)
                    for i in range(0, len(key), LANES):
                        q, k, d = load(query, i), load(key, i), load(d_read, i)
                        store(decay * load(from_read, i) + along * k, d_query, i)
                        store(load(d_key, i) + along * q - decay * load(from_error, i), d_key, i)
                        store(q, later_query, i)
                        store(k, later_key, i)
                        store(d, later_read, i)
                    s_query, s_key = sigmoids[t, b, 0, n], sigmoids[t, b, 1, n]
                    _back_through_unit(mapped[t, b, 0, n], s_query, scales[0, s], query, d_query, d_mapped[t, b, 0, n])
                    _back_through_unit(mapped[t, b, 1, n], s_key, scales[1, s], key, d_key, d_mapped[t, b, 1, n])
        for n in range(heads):
            if len(starts) and starts[0, b]:
                _clear(d_matrix[b, n])
            else:
                _add(d_matrix[b, n], _decay(rates, 0, b, n), later[n, 0], later[n, 1], later[n, 2], later[n, 3])


@expanded
def _decay(rates: Array, t: int, b: int, n: int) -> Real:
    return rates[t, b, 1, n] if rates.shape[2] > 1 else rates.dtype.type(1)


@expanded
def _scale(squares: Real, units: int, eps: float) -> Real:
    return 1 / math.sqrt(squares / units + eps)


@expanded
def _unit(raw: Array, sigmoids: Array, tiny: float, out: Array) -> Real:
    """SiLU, brought to unit length; returns what it was multiplied with."""
    squares = filled(raw.dtype.type(0))
    for i in range(0, len(out), LANES):
        x = load(raw, i) * load(sigmoids, i)
        squares = squares + x * x
        store(x, out, i)
    scale = raw.dtype.type(1 / math.sqrt(total(squares) + tiny))
    _multiply(scale, out, out)
    return scale


@expanded
def _back_through_unit(raw: Array, sigmoids: Array, scale: Real, unit: Array, d: Array, d_raw: Array) -> None:
    along, one = _dot(unit, d), filled(raw.dtype.type(1))
    for i in range(0, len(d), LANES):
        s = load(sigmoids, i)
        slope = s * (one + load(raw, i) * (one - s))
        store(slope * (scale * (load(d, i) - along * load(unit, i))), d_raw, i)


@expanded
def _back_through_gate(
    raw: Array,
    sigmoids: Array,
    gain: Array,
    units: int,
    eps: float,
    read: Array,
    d_shown: Array,
    d_read: Array,
    d_raw: Array,
    d_gain: Array,
) -> None:
    """From the gradient of what is shown to that of what was read, of its gate and, added, of the gain."""
    scale, one = _scale(_dot(read, read), units, eps), filled(raw.dtype.type(1))
    products = filled(raw.dtype.type(0))
    for i in range(0, len(read), LANES):
        x, s, g, d, normed = load(raw, i), load(sigmoids, i), load(gain, i), load(d_shown, i), scale * load(read, i)
        store(d * normed * g * (s * (one + x * (one - s))), d_raw, i)
        d = d * (x * s)
        store(load(d_gain, i) + d * normed, d_gain, i)
        d = d * g
        products = products + d * normed
        store(d, d_read, i)
    along = scale * (total(products) / raw.dtype.type(units))
    for i in range(0, len(read), LANES):
        store(scale * (load(d_read, i) - along * load(read, i)), d_read, i)


@expanded
def _write_and_combine(
    matrix: Array, decay: Real, rows: Array, columns: Array, weights: Array, others: Array, out: Array, other_out: Array
) -> None:
    """One write, matrix <- decay matrix + rows columns^T, and then the sums of its rows with weights and with others."""
    zero = filled(matrix.dtype.type(0))
    for i in range(0, len(columns), LANES):
        written, a, b = load(columns, i), zero, zero
        for j in range(len(matrix)):
            row = decay * load(matrix[j], i) + rows[j] * written
            store(row, matrix[j], i)
            a = a + weights[j] * row
            b = b + others[j] * row
        store(a, out, i)
        store(b, other_out, i)


@expanded
def _write(matrix: Array, decay: Real, rows: Array, columns: Array, out: Array) -> None:
    """One write, out <- decay matrix + rows columns^T."""
    for i in range(0, len(columns), LANES):
        written = load(columns, i)
        for j in range(len(matrix)):
            store(decay * load(matrix[j], i) + rows[j] * written, out[j], i)


@expanded
def _add(D: Array, decay: Real, d_read: Array, query: Array, d_error: Array, key: Array) -> None:
    """D <- decay (D + d_read query^T - d_error key^T)."""
    for i in range(0, len(query), LANES):
        q, k = decay * load(query, i), decay * load(key, i)
        for j in range(len(D)):
            store(decay * load(D[j], i) + d_read[j] * q - d_error[j] * k, D[j], i)


@expanded
def _add_and_combine(
    D: Array, decay: Real, d_read: Array, query: Array, d_error: Array, key: Array, weights: Array, out: Array
) -> None:
    """`_add`, and then the sum of the rows with weights."""
    zero = filled(D.dtype.type(0))
    for i in range(0, len(query), LANES):
        q, k, a = decay * load(query, i), decay * load(key, i), zero
        for j in range(len(D)):
            row = decay * load(D[j], i) + d_read[j] * q - d_error[j] * k
            store(row, D[j], i)
            a = a + weights[j] * row
        store(a, out, i)


@expanded
def _combine_twice(matrix: Array, weights: Array, others: Array, out: Array, other_out: Array) -> None:
    zero = filled(matrix.dtype.type(0))
    for i in range(0, len(out), LANES):
        a, b = zero, zero
        for j in range(len(matrix)):
            row = load(matrix[j], i)
            a = a + weights[j] * row
            b = b + others[j] * row
        store(a, out, i)
        store(b, other_out, i)


@expanded
def _rows_times(matrix: Array, vector: Array, out: Array) -> None:
    """Matrix times vector."""
    for j in range(len(matrix)):
        out[j] = _dot(matrix[j], vector)


@expanded
def _product(D: Array, A: Array) -> Real:
    """The inner product <D, A>."""
    products = filled(D.dtype.type(0))
    for j in range(len(D)):
        for i in range(0, len(D), LANES):
            products = products + load(D[j], i) * load(A[j], i)
    return total(products)


@expanded
def _multiply(number: Real, vector: Array, out: Array) -> None:
    for i in range(0, len(out), LANES):
        store(number * load(vector, i), out, i)


@expanded
def _dot(a: Array, b: Array) -> Real:
    products = filled(a.dtype.type(0))
    for i in range(0, len(a), LANES):
        products = products + load(a, i) * load(b, i)
    return total(products)


@expanded
def _copy(matrix: Array, out: Array) -> None:
    for j in range(len(matrix)):
        for i in range(0, len(matrix), LANES):
            store(load(matrix[j], i), out[j], i)


@expanded
def _transpose(matrix: Array, out: Array) -> None:
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            out[i, j] = matrix[j, i]


@expanded
def _clear(rows: Array) -> None:
    zero = filled(rows.dtype.type(0))
    for j in range(len(rows)):
        for i in range(0, rows.shape[1], LANES):
            store(zero, rows[j], i)
