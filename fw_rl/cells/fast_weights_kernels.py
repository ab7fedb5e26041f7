"""The inner loops of the fast-weight net, compiled for the processor: a step forward, and a step of the way back.

Both are for Hebb's rule and method 1 (see `FastWeightsCell`), and work on one row b after another, so that what it remembers
stays in the cache. With q the query of a read, dr = d loss / d (A q) and weight(t', t) = eta * decay**(t' - 1 - t), the way
back goes from the last step to the first by

    d q(t)  =  A(t-1) dr(t)                                                     A is symmetric
    d h(t)  =  W^T d boundary(t+1)  +  sum_{t' > t} weight(t', t) [ (h(t) . q(t')) dr(t')  +  (h(t) . dr(t')) q(t') ]

Products with A are attention reads (Ba16 Eq. 4) of the writes since the sequence began, and of one matrix for what lies before.
Nothing but the h(t) is kept from the forward pass: to read again costs less than to fetch what was read.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["step_back", "step_forward"]

# Sums may be taken in any order; not a number stays not a number.
_compiled = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")
_Array = NDArray[np.floating]


@_compiled
def step_forward(
    boundary: _Array,
    matrix: _Array,
    faded: _Array,
    keys: _Array,
    strengths: _Array,
    count: int,
    write: _Array,
    decay: float,
    inner_steps: int,
    tanh: bool,
    gain: _Array,
    bias: _Array,
    eps: float,
    h: _Array,
) -> None:
    """One step of all rows from their boundary [B, H]: `h` [B, H] is found, and written to the memory.

    The memory: `faded` [B] times `matrix` ([B, H, H] or [B, 0, 0]), and the first `count` of `keys` [B, K, H] with their
    `strengths` [B, K]. `write`: [B], the strength of the new key. `gain`, `bias`: [H], or [0] for no layer normalisation.
    """
    rows, size = boundary.shape
    rate = boundary.dtype.type(decay)
    query, summed = np.empty_like(boundary[0]), np.empty_like(boundary[0])
    for b in range(rows):
        _activate(boundary[b], tanh, query)
        for _ in range(inner_steps):
            summed[:] = boundary[b]
            for j in range(count):
                if strengths[b, j] != 0.0:
                    _add(strengths[b, j] * _dot(keys[b, j], query), keys[b, j], summed)
            if len(matrix[b]) and faded[b] != 0.0:
                _add_product(faded[b], matrix[b], query, summed)
            if len(gain):
                _normalise(summed, eps, summed)
                for i in range(size):
                    summed[i] = summed[i] * gain[i] + bias[i]
            _activate(summed, tanh, query)
        h[b] = query
        keys[b, count] = query
        for j in range(count):
            strengths[b, j] *= rate
        strengths[b, count] = write[b]


@_compiled
def step_back(
    t: int,
    rows: tuple[int, int],
    boundary: _Array,
    keys: _Array,
    older: _Array,
    matrix: _Array,
    write: _Array,
    begins: NDArray[np.integer],
    ends: NDArray[np.integer],
    decay: float,
    inner_steps: int,
    tanh: bool,
    gain: _Array,
    bias: _Array,
    eps: float,
    d_h: _Array,
    sources: _Array,
    d_boundary: _Array,
    d_gain: _Array,
    d_bias: _Array,
) -> None:
    """One step of the way back of some rows: from `d_h` [R, H] to `d_boundary` [T, B, H], and to what earlier steps will need.

    `rows`: which, from the first to before the last, R of them. `boundary`: [T, B, H]. `keys`: [R, P + T, H], P
    writes from before the sequence and one h(t) a step. `older`: [B, P], what is left of the former as the sequence begins, and
    `matrix` of what lies before these. `write`: [B, T], the strength of each write. `begins`: [B], the first step of this
    step's episode, or -1 if it began before the sequence. `ends`: [B], the first step of the next episode, or T. `sources`: [R,
    T, S, 2, H], the pairs (dr, q) of every read; those of step t are added. `d_gain`, `d_bias`: [H], summed up.
    """
    begin, end = rows
    boundary, d_boundary = boundary[t], d_boundary[t]
    size, pending = boundary.shape[1], older.shape[1]
    d = np.empty_like(boundary[0])
    total = np.empty_like(boundary[0])
    queries = np.empty((inner_steps + 1, size), boundary.dtype)
    normed = np.empty((inner_steps, size), boundary.dtype)
    scales = np.empty(inner_steps, boundary.dtype)
    weights = np.zeros(pending + t, boundary.dtype)
    # Numbers of the arrays' own type: with Python's, the loops would run in double precision.
    zero, one, rate = boundary.dtype.type(0), boundary.dtype.type(1), boundary.dtype.type(decay)
    for b in range(begin, end):
        own, kept = sources[b - begin], keys[b - begin]
        first = pending + max(begins[b], 0)
        fading = one
        for j in range(pending + t - 1, first - 1, -1):
            weights[j] = write[b, j - pending] * fading
            fading *= rate
        if begins[b] < 0:
            first = 0
            for j in range(pending):
                weights[j] = older[b, j] * fading
        faded = fading * rate**pending if begins[b] < 0 else zero

        # What was read: the queries, and the normalised sums with their scale.
        _activate(boundary[b], tanh, queries[0])
        for s in range(inner_steps):
            total[:] = boundary[b]
            _recall(kept, weights, first, pending + t, matrix[b], faded, queries[s], total)
            if len(gain):
                scales[s] = _normalise(total, eps, normed[s])
                for i in range(size):
                    total[i] = normed[s, i] * gain[i] + bias[i]
            _activate(total, tanh, queries[s + 1])

        # What later reads send back to h(t).
        d[:] = d_h[b - begin]
        h = kept[pending + t]
        fading = write[b, t]
        for later in range(t + 1, ends[b]):
            for s in range(inner_steps):
                d_read, query = own[later, s, 0], own[later, s, 1]
                to_query, to_read = fading * _dot(h, d_read), fading * _dot(h, query)
                for i in range(size):
                    d[i] += to_query * query[i] + to_read * d_read[i]
            fading *= rate

        total[:] = 0.0
        for s in range(inner_steps - 1, -1, -1):
            _slope(queries[s + 1], tanh, d)
            if len(gain):
                _back_through_norm(normed[s], scales[s], gain, d, d_gain, d_bias)
            own[t, s, 0] = d
            own[t, s, 1] = queries[s]
            for i in range(size):
                total[i] += d[i]
                d[i] = 0.0
            _recall(kept, weights, first, pending + t, matrix[b], faded, own[t, s, 0], d)
        _slope(queries[0], tanh, d)
        for i in range(size):
            d_boundary[b, i] = total[i] + d[i]


@_compiled
def _recall(
    keys: _Array, weights: _Array, first: int, last: int, matrix: _Array, faded: float, query: _Array, out: _Array
) -> None:
    """Add A query to `out`, for the A of the keys from `first` to before `last` and `faded` times the matrix."""
    for j in range(first, last):
        if weights[j] != 0.0:
            _add(weights[j] * _dot(keys[j], query), keys[j], out)
    if faded != 0.0 and len(matrix):
        _add_product(faded, matrix, query, out)


@_compiled
def _dot(a: _Array, b: _Array) -> float:
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@_compiled
def _add_product(scale: float, matrix: _Array, vector: _Array, out: _Array) -> None:
    """Add `scale` times matrix times vector, four rows at a time, so that the vector is fetched once for them."""
    size = len(vector)
    whole = len(out) // 4 * 4
    for i in range(0, whole, 4):
        a = b = c = d = vector.dtype.type(0)
        for j in range(size):
            a += matrix[i, j] * vector[j]
            b += matrix[i + 1, j] * vector[j]
            c += matrix[i + 2, j] * vector[j]
            d += matrix[i + 3, j] * vector[j]
        out[i] += scale * a
        out[i + 1] += scale * b
        out[i + 2] += scale * c
        out[i + 3] += scale * d
    for i in range(whole, len(out)):
        out[i] += scale * _dot(matrix[i], vector)


@_compiled
def _sum(a: _Array) -> float:
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i]
    return total


@_compiled
def _add(scale: float, a: _Array, out: _Array) -> None:
    for i in range(len(a)):
        out[i] += scale * a[i]


@_compiled
def _activate(x: _Array, tanh: bool, out: _Array) -> None:
    zero = x.dtype.type(0)
    if tanh:
        for i in range(len(x)):
            out[i] = math.tanh(x[i])
    else:
        for i in range(len(x)):
            out[i] = zero if x[i] <= zero else x[i]  # what is not a number goes through


@_compiled
def _slope(activated: _Array, tanh: bool, d: _Array) -> None:
    """From the gradient after an activation to that before it, in place."""
    zero, one = d.dtype.type(0), d.dtype.type(1)
    if tanh:
        for i in range(len(d)):
            d[i] *= one - activated[i] * activated[i]
    else:
        for i in range(len(d)):
            d[i] = d[i] if activated[i] > zero else zero


@_compiled
def _normalise(x: _Array, eps: float, out: _Array) -> float:
    """Layer normalisation without gain and bias (Ba16 Eq. 5); returns what the deviations were multiplied with."""
    size = len(x)
    mean = _sum(x) / size
    for i in range(size):
        out[i] = x[i] - mean
    scale = x.dtype.type(1 / math.sqrt(_dot(out, out) / size + eps))
    for i in range(size):
        out[i] *= scale
    return scale


@_compiled
def _back_through_norm(normed: _Array, scale: float, gain: _Array, d: _Array, d_gain: _Array, d_bias: _Array) -> None:
    """From the gradient after layer normalisation to that before it, in place, with its share for gain and bias."""
    size = len(d)
    for i in range(size):
        d_bias[i] += d[i]
    for i in range(size):
        d_gain[i] += d[i] * normed[i]
    for i in range(size):
        d[i] *= gain[i]
    mean, along = _sum(d) / size, _dot(d, normed) / size
    for i in range(size):
        d[i] = scale * (d[i] - mean - normed[i] * along)
