"""The inner loops of the fast-weight net, compiled for the processor: a step while acting, and a sequence both ways.

They are for Hebb's rule and method 1 (see `FastWeightsCell`), and take a few rows b at a time, so their memories stay in the
cache. With q the query of a read, dr = d loss / d (A q) and weight(t', t) = eta * decay**(t' - 1 - t), the backward pass goes
from the last step to the first by

    d q(t)  =  A(t-1) dr(t)                                                     A is symmetric
    d h(t)  =  W^T d boundary(t+1)  +  sum_{t' > t} weight(t', t) [ (h(t) . q(t')) dr(t')  +  (h(t) . dr(t')) q(t') ]

Products with A are attention reads (Ba16 Eq. 4) of the writes since the sequence began, and of one matrix for what lies before.

In all kernels: `recurrent` is W [H, H]; `gain` and `bias` [H] are of the layer normalisation, or [0] for none, and `eps` too;
`decay` is the fraction of A kept by a step; `inner_steps` are the reads S of a step; `tanh` selects the activation; `lasting`
is how many writes can be read, older ones being lost in rounding. The past of a sequence is P writes with their `strengths`
[B, P], and a `matrix` [B, H, H], or [B, 0, 0] for none, of which `faded` [T, B] is left at each step ([B] while acting). A
sequence writes with the strengths `write` [T, B]; `first_steps` [T, B] are those of the episodes, -1 for one before the
sequence; where `cut` [T, B] is true, h(t-1) is taken as zero.
`queries` [4, S + 1, H], `settled` [4, S, H], `scales` [4, S] and `firsts` [4] are room for what is found in four rows; in a
sequence so are `weights` [4, P + T], `before` or `d_before` and `product` [4, H], zeros at first, and in the backward pass
`pair` [2, H] and `d_keys` [4, P + T, H].
Everything is passed as plain arrays and numbers: tuples of arrays would double the time to compile the kernels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fw_rl.kernels import Array, Real, add_product, helper, in_place, inlined, tanh

__all__ = ["run_back", "run_forward", "step_forward"]


@in_place
def step_forward(
    boundary: Array,
    keys: Array,
    strengths: Array,
    matrix: Array,
    faded: Array,
    first: int,
    count: int,
    write: Array,
    gain: Array,
    bias: Array,
    eps: float,
    decay: float,
    inner_steps: int,
    tanh: bool,
    queries: Array,
    settled: Array,
    scales: Array,
    firsts: NDArray[np.integer],
    h: Array,
) -> None:
    """One step of all rows from their boundary [B, H]: `h` [B, H] is found, and written to the memory.

    The writes are those from `first` to before `count` of `keys` [B, K, H] with their `strengths` [B, K]; the new key comes
    after them, with the strength `write` [B].
    """
    rate = boundary.dtype.type(decay)
    is_settled = count < 0  # False, but no literal, for which `_settle` would be compiled once more
    for r in range(4):
        firsts[r] = first
    for start in range(0, len(boundary), 4):
        stop = min(start + 4, len(boundary))
        _settle(
            boundary[start:stop], keys[start:stop], strengths[start:stop], firsts, count, matrix[start:stop],
            faded[start:stop], gain, bias, eps, inner_steps, tanh, is_settled, queries, settled, scales,
        )  # fmt: skip
        for b in range(start, stop):
            _copy(queries[b - start, inner_steps], h[b])
            _copy(h[b], keys[b, count])
            for j in range(first, count):
                strengths[b, j] *= rate
            strengths[b, count] = write[b]


@in_place
def run_forward(
    driven: Array,
    h: Array,
    keys: Array,
    strengths: Array,
    matrix: Array,
    faded: Array,
    write: Array,
    first_steps: NDArray[np.integer],
    cut: NDArray[np.bool_],
    recurrent: Array,
    gain: Array,
    bias: Array,
    eps: float,
    decay: float,
    inner_steps: int,
    tanh: bool,
    lasting: int,
    queries: Array,
    firsts: NDArray[np.integer],
    weights: Array,
    before: Array,
    product: Array,
    boundary: Array,
    settled: Array,
    scales: Array,
    outputs: Array,
) -> None:
    """A sequence of C x + bias, `driven` [T, B, H], to every h(t), `outputs` [T, B, H].

    `h`: [B, H], before the sequence. `keys`: [B, P + T, H], the writes of the past, and room for those of the sequence. What
    the backward pass can use is left in `boundary` [T, B, H], `settled` [T, B, S, H] and `scales` [T, B, S]: the sums after
    layer normalisation, and its factors.
    """
    (steps, batch, _), pending = driven.shape, strengths.shape[1]
    is_settled = steps < 0  # as in `step_forward`
    for start in range(0, batch, 4):
        stop = min(start + 4, batch)
        for b in range(start, stop):
            _copy(h[b], before[b - start])
        for t in range(steps):
            for b in range(start, stop):
                if cut[t, b]:
                    _clear(before[b - start])
            _multiply(recurrent, before, product)
            for b in range(start, stop):
                r = b - start
                _sum_of(driven[t, b], product[r], boundary[t, b])
                firsts[r] = _weigh(t, strengths[b], write[:, b], first_steps[t, b], decay, lasting, weights[r])
            _settle(
                boundary[t, start:stop], keys[start:stop], weights, firsts, pending + t, matrix[start:stop],
                faded[t, start:stop], gain, bias, eps, inner_steps, tanh, is_settled, queries, settled[t, start:stop],
                scales[t, start:stop],
            )  # fmt: skip
            for b in range(start, stop):
                for place in (before[b - start], keys[b, pending + t], outputs[t, b]):
                    _copy(queries[b - start, inner_steps], place)


@in_place
def run_back(
    boundary: Array,
    keys: Array,
    strengths: Array,
    matrix: Array,
    faded: Array,
    write: Array,
    first_steps: NDArray[np.integer],
    cut: NDArray[np.bool_],
    transposed: Array,
    gain: Array,
    bias: Array,
    eps: float,
    decay: float,
    inner_steps: int,
    tanh: bool,
    lasting: int,
    queries: Array,
    own_settled: Array,
    own_scales: Array,
    firsts: NDArray[np.integer],
    weights: Array,
    d_before: Array,
    product: Array,
    pair: Array,
    d_keys: Array,
    settled: Array,
    scales: Array,
    d_outputs: Array,
    sources: Array,
    d_boundary: Array,
    d_first: Array,
    d_gain: Array,
    d_bias: Array,
) -> None:
    """From the gradient of every h(t), `d_outputs` [T, B, H], to `d_boundary` [T, B, H], and `d_first` [B, H] of h before.

    `keys`: [B, P + T, H], the writes of the past and then every h(t). `transposed`: W^T. `settled`, `scales`: from
    `run_forward`; if empty, [0, ...], every read is repeated. `sources`: [B, T, S, 2, H], where the pair (dr, q) of every read
    is left, or [0, ...]. `d_gain`, `d_bias`: [H], added up.
    """
    (steps, batch, _), pending, is_settled = boundary.shape, strengths.shape[1], len(settled) > 0
    for start in range(0, batch, 4):
        stop = min(start + 4, batch)
        for r in range(stop - start):
            _clear(product[r])
            for j in range(pending + steps):
                _clear(d_keys[r, j])
        for t in range(steps - 1, -1, -1):
            for b in range(start, stop):
                r = b - start
                firsts[r] = _weigh(t, strengths[b], write[:, b], first_steps[t, b], decay, lasting, weights[r])
            if is_settled:
                own_settled, own_scales = settled[t, start:stop], scales[t, start:stop]
            _settle(
                boundary[t, start:stop], keys[start:stop], weights, firsts, pending + t, matrix[start:stop],
                faded[t, start:stop], gain, bias, eps, inner_steps, tanh, is_settled, queries, own_settled, own_scales,
            )  # fmt: skip
            for b in range(start, stop):
                r = b - start
                _settle_back(
                    keys[b], weights[r], firsts[r], pending, pending + t, matrix[b], faded[t, b], gain, inner_steps, tanh,
                    queries[r], own_settled[r], own_scales[r], product[r], d_outputs[t, b], d_keys[r], d_before[r], pair,
                    sources, b, t, d_gain, d_bias,
                )  # fmt: skip
                _copy(d_before[r], d_boundary[t, b])
                if cut[t, b]:
                    _clear(d_before[r])
            _multiply(transposed, d_before, product)
        for b in range(start, stop):
            _copy(product[b - start], d_first[b])


@inlined
def _weigh(t: int, strengths: Array, write: Array, begin: int, decay: Real, lasting: int, weights: Array) -> int:
    """How much is left at step t of each earlier write, from the first that can still be read, which is returned."""
    pending = len(strengths)
    # A number of the array's own type: with Python's, the loops that use it would run in double precision.
    fading, rate = weights.dtype.type(1), weights.dtype.type(decay)
    oldest = max(begin, 0, t - lasting)
    for j in range(t - 1, oldest - 1, -1):
        weights[pending + j] = write[j] * fading
        fading *= rate
    if begin >= 0 or oldest > 0:
        return pending + oldest
    first = max(0, pending + t - lasting)
    while first < pending and strengths[first] == 0:
        first += 1
    for j in range(first, pending):
        weights[j] = strengths[j] * fading
    return first


@helper
def _settle(
    boundary: Array,
    keys: Array,
    weights: Array,
    firsts: NDArray[np.integer],
    last: int,
    matrix: Array,
    faded: Array,
    gain: Array,
    bias: Array,
    eps: Real,
    inner_steps: int,
    tanh: bool,
    is_settled: bool,
    queries: Array,
    settled: Array,
    scales: Array,
) -> None:
    """The inner loop (Ba16 Eq. 2 and 5) of up to four rows: each query h_s, `queries` [4, S + 1, H], leads to the next.

    It reads the writes from `firsts` [4] to before `last`. `is_settled`: whether `settled` holds already what the layer
    normalisation left of the sums, from an earlier call.
    """
    for r in range(len(boundary)):
        _activate(boundary[r], tanh, queries[r, 0])
        for s in range(inner_steps):
            if not is_settled:
                _copy(boundary[r], settled[r, s])
                _recall(keys[r], weights[r], firsts[r], last, queries[r, s], settled[r, s])
                if faded[r] != 0:
                    add_product(faded[r], matrix[r], queries[r, s], settled[r, s])
                if len(gain):
                    scales[r, s] = _normalise(settled[r, s], eps, settled[r, s])
            _finish(settled[r, s], gain, bias, tanh, queries[r, s + 1])


@inlined
def _settle_back(
    keys: Array,
    weights: Array,
    first: int,
    pending: int,
    now: int,
    matrix: Array,
    faded: Real,
    gain: Array,
    inner_steps: int,
    tanh: bool,
    queries: Array,
    settled: Array,
    scales: Array,
    d_next: Array,
    d_output: Array,
    d_keys: Array,
    d_boundary: Array,
    room: Array,
    sources: Array,
    b: int,
    t: int,
    d_gain: Array,
    d_bias: Array,
) -> None:
    """The backward pass of `_settle`; h has the gradients `d_output`, `d_next` by the next step, and `d_keys[now]` by reads.

    It writes `d_boundary` [H], and `d_keys` of what was read. The pairs (dr, q) go to `sources[b, t]`, if there is room.
    `room`: for two vectors, separate from all others, so that a loop that writes one cannot alias them.
    """
    d_h, d_read, begin = room[0], room[1], max(first, pending)
    one = d_h.dtype.type(1)
    _sum_of(d_output, d_next, d_h)
    _add(one, d_keys[now], d_h)
    _clear(d_boundary)
    for s in range(inner_steps - 1, -1, -1):
        _slope(queries[s + 1], tanh, d_h)
        if len(gain):
            _back_through_norm(settled[s], scales[s], gain, d_h, d_gain, d_bias)
        _copy(d_h, d_read)
        _add(one, d_h, d_boundary)
        _clear(d_h)
        _recall(keys, weights, first, begin, d_read, d_h)
        _recall_back(keys, weights, begin, now, queries[s], d_read, d_h, d_keys)
        if faded != 0:
            add_product(faded, matrix, d_read, d_h)
        if len(sources):
            _copy(d_read, sources[b, t, s, 0])
            _copy(queries[s], sources[b, t, s, 1])
    _slope(queries[0], tanh, d_h)
    _add(one, d_h, d_boundary)


@inlined
def _finish(settled: Array, gain: Array, bias: Array, tanh: bool, query: Array) -> None:
    """From a settled sum to h: gain, bias and activation."""
    if len(gain):
        for i in range(len(query)):
            query[i] = settled[i] * gain[i] + bias[i]
        _activate(query, tanh, query)
    else:
        _activate(settled, tanh, query)


@helper
def _multiply(matrix: Array, vectors: Array, out: Array) -> None:
    """Matrix times each of four vectors [4, H]; two rows of the matrix at a time, each fetched once for all."""
    size = len(matrix)
    x, y, z, w = vectors[0], vectors[1], vectors[2], vectors[3]
    for i in range(0, size - 1, 2):
        top, low = matrix[i], matrix[i + 1]
        a = b = c = d = e = f = g = h = matrix.dtype.type(0)
        for j in range(size):
            a += top[j] * x[j]
            b += top[j] * y[j]
            c += top[j] * z[j]
            d += top[j] * w[j]
            e += low[j] * x[j]
            f += low[j] * y[j]
            g += low[j] * z[j]
            h += low[j] * w[j]
        out[0, i], out[1, i], out[2, i], out[3, i] = a, b, c, d
        out[0, i + 1], out[1, i + 1], out[2, i + 1], out[3, i + 1] = e, f, g, h
    if size % 2:
        for r in range(4):
            out[r, size - 1] = _dot(matrix[size - 1], vectors[r])


@inlined
def _recall(keys: Array, weights: Array, first: int, last: int, query: Array, out: Array) -> None:
    """Add A query to `out`, for the A of the keys from `first` to before `last`; four at a time, as in `add_product`."""
    whole = last - (last - first) % 4
    for j in range(first, whole, 4):
        a = b = c = d = query.dtype.type(0)
        for i in range(len(query)):
            a += keys[j, i] * query[i]
            b += keys[j + 1, i] * query[i]
            c += keys[j + 2, i] * query[i]
            d += keys[j + 3, i] * query[i]
        a *= weights[j]
        b *= weights[j + 1]
        c *= weights[j + 2]
        d *= weights[j + 3]
        for i in range(len(out)):
            out[i] += a * keys[j, i] + b * keys[j + 1, i] + c * keys[j + 2, i] + d * keys[j + 3, i]
    for j in range(whole, last):
        _add(weights[j] * _dot(keys[j], query), keys[j], out)


@inlined
def _recall_back(
    keys: Array, weights: Array, first: int, last: int, query: Array, d_read: Array, d_query: Array, d_keys: Array
) -> None:
    """Add A d_read to `d_query`, and to `d_keys` what the read sends back to each key, which is on both sides of A."""
    for j in range(first, last):
        key, d_key = keys[j], d_keys[j]
        along_read = along_query = query.dtype.type(0)
        for i in range(len(key)):
            along_read += key[i] * d_read[i]
            along_query += key[i] * query[i]
        along_read *= weights[j]
        along_query *= weights[j]
        for i in range(len(key)):
            d_query[i] += along_read * key[i]
        for i in range(len(key)):
            d_key[i] += along_read * query[i] + along_query * d_read[i]


@inlined
def _dot(a: Array, b: Array) -> Real:
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


# NumPy's own copies and sums of slices would take longer than the rest.


@inlined
def _copy(a: Array, out: Array) -> None:
    for i in range(len(out)):
        out[i] = a[i]


@inlined
def _sum_of(a: Array, b: Array, out: Array) -> None:
    for i in range(len(out)):
        out[i] = a[i] + b[i]


@inlined
def _clear(out: Array) -> None:
    zero = out.dtype.type(0)
    for i in range(len(out)):
        out[i] = zero


@inlined
def _sum(a: Array) -> Real:
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i]
    return total


@inlined
def _add(scale: Real, a: Array, out: Array) -> None:
    for i in range(len(a)):
        out[i] += scale * a[i]


@inlined
def _activate(x: Array, is_tanh: bool, out: Array) -> None:
    zero = x.dtype.type(0)
    if is_tanh:
        tanh(x, out)
    else:
        for i in range(len(x)):
            out[i] = zero if x[i] <= zero else x[i]  # what is not a number goes through


@inlined
def _slope(activated: Array, tanh: bool, d: Array) -> None:
    """From the gradient after an activation to that before it, in place."""
    zero, one = d.dtype.type(0), d.dtype.type(1)
    if tanh:
        for i in range(len(d)):
            d[i] *= one - activated[i] * activated[i]
    else:
        for i in range(len(d)):
            d[i] = d[i] if activated[i] > zero else zero


@inlined
def _normalise(x: Array, eps: Real, out: Array) -> Real:
    """Layer normalisation without gain and bias (Ba16 Eq. 5); returns the factor on the deviations."""
    size = len(x)
    mean = _sum(x) / size
    for i in range(size):
        out[i] = x[i] - mean
    scale = x.dtype.type(1 / math.sqrt(_dot(out, out) / size + eps))
    for i in range(size):
        out[i] *= scale
    return scale


@inlined
def _back_through_norm(normed: Array, scale: Real, gain: Array, d: Array, d_gain: Array, d_bias: Array) -> None:
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
