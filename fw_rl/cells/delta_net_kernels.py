"""What the delta net does between its maps, compiled for the processor: a sequence both ways, and a step in place.

The rows b are taken one after the other, so their matrices stay in the cache. With s the strength, a the decay, and
e(t) = v(t) - a(t) A(t-1) k(t), what is written is u = s e. With do = d loss / d read and D = d loss / d A(t), the backward pass
of the memory goes from the last step to the first by

    D += do q^T        dq = A(t)^T do        du = D k        de = dv = s du        ds = du . e
    dk = D^T u - a A(t-1)^T de               D -= de k^T     da = <D, A(t-1)>      D *= a

It needs every A(t-1): the forward pass keeps one in `every` steps, and those between are recomputed from the errors e.

In both kernels: `mapped` [T, B, 4, N, d] are queries, keys, gates and values as `input_map` gives them, and `sigmoids`
[T, B, 3, N, d] those of the first three; `rates` [T, B, 1 or 2, N] are the strengths, and the decays if there are any; `gain`
[d] and `eps` are of the norm, `tiny` is added to the square of a length; `starts` [T, B] is true where A is zero before the
step, [0, 0] for nowhere; with `corrects` the rule is "delta", else "sum".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fw_rl.kernels import Array, Real, helper, in_place, inlined

__all__ = ["run_back", "run_forward"]


@in_place
def run_forward(
    mapped: Array,
    sigmoids: Array,
    rates: Array,
    gain: Array,
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
    room: Array,
) -> None:
    """What is shown to the output map, `shown` [T, B, N, d]; `transposed` [B, N, d, d] is A^T, and is written in place.

    What `run_back` needs is left in `errors` and `reads` [T, B, N, d] and in `kept` [ceil(T / every), B, N, d, d], unless these
    are empty.
    """
    steps, batch, _, heads, size = mapped.shape
    query, key, read, error, given_back = room[0], room[1], room[2], room[3], room[4]
    for b in range(batch):
        for t in range(steps):
            is_start, keeps = len(starts) and starts[t, b], len(kept) and t % every == 0
            for n in range(heads):
                A = transposed[b, n]
                if is_start:
                    _clear(A)
                if keeps:
                    _copy(A, kept[t // every, b, n])
                _unit(mapped, sigmoids, t, b, 0, n, tiny, query)
                _unit(mapped, sigmoids, t, b, 1, n, tiny, key)
                strength, decay = rates[t, b, 0, n], _decay(rates, t, b, n)
                _combine(A, query, read)
                if corrects:
                    _combine(A, key, given_back)
                for i in range(size):
                    error[i] = mapped[t, b, 3, n, i] - decay * given_back[i]
                along = strength * _dot(key, query)
                for i in range(size):
                    read[i] = decay * read[i] + along * error[i]
                _write(A, decay, strength, key, error)
                scale = _norm(read, eps)
                for i in range(size):
                    shown[t, b, n, i] = scale * gain[i] * read[i]
                for i in range(size):
                    shown[t, b, n, i] *= mapped[t, b, 2, n, i] * sigmoids[t, b, 2, n, i]
                if len(kept):
                    for i in range(size):
                        errors[t, b, n, i] = error[i]
                    for i in range(size):
                        reads[t, b, n, i] = read[i]


@in_place
def run_back(
    mapped: Array,
    sigmoids: Array,
    rates: Array,
    gain: Array,
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
    addresses: Array,
    scales: Array,
    room: Array,
) -> None:
    """The backward pass of `run_forward`: `d_matrix` [B, N, d, d], of A after the sequence, becomes that of A before it."""
    steps, batch, _, heads, size = mapped.shape
    queries, keys = addresses[0], addresses[1]
    read, error, written, d_read, d_written = room[0], room[1], room[2], room[3], room[4]
    d_error, from_error, d_query, d_key, normed = room[5], room[6], room[7], room[8], room[9]
    for b in range(batch):
        for c in range(len(kept) - 1, -1, -1):
            begin, stop = c * every, min(steps, (c + 1) * every)
            for n in range(heads):
                _transpose(kept[c, b, n], before[n, 0])
            for t in range(begin, stop):
                s = t - begin
                for n in range(heads):
                    key = keys[n, s]
                    scales[0, n, s] = _unit(mapped, sigmoids, t, b, 0, n, tiny, queries[n, s])
                    scales[1, n, s] = _unit(mapped, sigmoids, t, b, 1, n, tiny, key)
                    if t + 1 < stop and len(starts) and starts[t + 1, b]:
                        _clear(before[n, s + 1])
                    elif t + 1 < stop:
                        for i in range(size):
                            error[i] = errors[t, b, n, i]
                        _write_anew(before[n, s], _decay(rates, t, b, n), rates[t, b, 0, n], error, key, before[n, s + 1])

            for t in range(stop - 1, begin - 1, -1):
                s, is_start = t - begin, len(starts) and starts[t, b]
                for n in range(heads):
                    A, D, query, key = before[n, s], d_matrix[b, n], queries[n, s], keys[n, s]
                    strength, decay = rates[t, b, 0, n], _decay(rates, t, b, n)
                    for i in range(size):
                        error[i] = errors[t, b, n, i]
                    for i in range(size):
                        written[i] = strength * error[i]
                    for i in range(size):
                        read[i] = reads[t, b, n, i]
                    for i in range(size):
                        d_read[i] = d_shown[t, b, n, i]
                    _back_through_gate(mapped, sigmoids, gain, eps, t, b, n, read, normed, d_read, d_mapped, d_gain)

                    _multiply(D, key, d_written)
                    along = _dot(query, key)
                    for i in range(size):
                        d_written[i] += along * d_read[i]
                    d_rates[t, b, 0, n] = _dot(d_written, error)
                    for i in range(size):
                        d_mapped[t, b, 3, n, i] = strength * d_written[i]
                    if corrects:
                        for i in range(size):
                            d_error[i] = strength * d_written[i]
                    d_decay = _back_through_write(A, D, decay, query, key, d_read, written, d_error, d_query, d_key, from_error)
                    along = _dot(written, d_read)
                    for j in range(size):
                        d_query[j] = decay * d_query[j] + along * key[j]
                    for j in range(size):
                        d_key[j] += along * query[j] - decay * from_error[j]
                    _back_through_unit(mapped, sigmoids, t, b, 0, n, scales[0, n, s], query, d_query, d_mapped)
                    _back_through_unit(mapped, sigmoids, t, b, 1, n, scales[1, n, s], key, d_key, d_mapped)

                    if is_start:
                        _clear(D)
                    if rates.shape[2] > 1:
                        d_rates[t, b, 1, n] = d_decay


@helper
def _decay(rates: Array, t: int, b: int, n: int) -> Real:
    return rates[t, b, 1, n] if rates.shape[2] > 1 else rates.dtype.type(1)


@helper
def _unit(mapped: Array, sigmoids: Array, t: int, b: int, which: int, n: int, tiny: float, out: Array) -> Real:
    """SiLU, scaled to unit length; returns the factor."""
    for i in range(len(out)):
        out[i] = mapped[t, b, which, n, i] * sigmoids[t, b, which, n, i]
    scale = out.dtype.type(1 / math.sqrt(_dot(out, out) + tiny))
    for i in range(len(out)):
        out[i] *= scale
    return scale


@helper
def _back_through_unit(
    mapped: Array, sigmoids: Array, t: int, b: int, which: int, n: int, scale: Real, unit: Array, d: Array, d_mapped: Array
) -> None:
    along, one = _dot(unit, d), d.dtype.type(1)
    for i in range(len(d)):
        s = sigmoids[t, b, which, n, i]
        slope = s * (one + mapped[t, b, which, n, i] * (one - s))
        d_mapped[t, b, which, n, i] = slope * scale * (d[i] - unit[i] * along)


@helper
def _norm(read: Array, eps: float) -> Real:
    return read.dtype.type(1 / math.sqrt(_dot(read, read) / len(read) + eps))


@helper
def _back_through_gate(
    mapped: Array,
    sigmoids: Array,
    gain: Array,
    eps: float,
    t: int,
    b: int,
    n: int,
    read: Array,
    normed: Array,
    d: Array,
    d_mapped: Array,
    d_gain: Array,
) -> None:
    """From the gradient `d` of what is shown to that of what was read, of its gate and, added, of the gain."""
    size, scale, one = len(read), _norm(read, eps), read.dtype.type(1)
    for i in range(size):
        normed[i] = scale * read[i]
    for i in range(size):
        d_mapped[t, b, 2, n, i] = d[i] * normed[i] * gain[i]
    for i in range(size):
        s = sigmoids[t, b, 2, n, i]
        d_mapped[t, b, 2, n, i] *= s * (one + mapped[t, b, 2, n, i] * (one - s))
    for i in range(size):
        d[i] *= mapped[t, b, 2, n, i] * sigmoids[t, b, 2, n, i]
    for i in range(size):
        d_gain[i] += d[i] * normed[i]
    for i in range(size):
        d[i] *= gain[i]
    along = _dot(d, normed) / size
    for i in range(size):
        d[i] = scale * (d[i] - normed[i] * along)


# The two products with a matrix are for squares. At 32, the size of 4 heads with 128 units, the compiler knows how long the
# loops are, and takes half the time.


@helper
def _combine(matrix: Array, weights: Array, out: Array) -> None:
    """The weighted sum of the rows, four at a time, so `out` is fetched once for them."""
    if len(matrix) == 32:
        _combine_rows(matrix, weights, 32, out)
    else:
        _combine_rows(matrix, weights, len(matrix), out)


@inlined
def _combine_rows(matrix: Array, weights: Array, size: int, out: Array) -> None:
    whole, zero = size // 4 * 4, out.dtype.type(0)
    for j in range(size):
        out[j] = zero
    for i in range(0, whole, 4):
        w, x, y, z = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for j in range(size):
            out[j] += w * matrix[i, j] + x * matrix[i + 1, j] + y * matrix[i + 2, j] + z * matrix[i + 3, j]
    for i in range(whole, size):
        for j in range(size):
            out[j] += weights[i] * matrix[i, j]


@helper
def _multiply(matrix: Array, vector: Array, out: Array) -> None:
    """Matrix times vector, four rows at a time, so the vector is fetched once for them."""
    if len(matrix) == 32:
        _multiply_rows(matrix, vector, 32, out)
    else:
        _multiply_rows(matrix, vector, len(matrix), out)


@inlined
def _multiply_rows(matrix: Array, vector: Array, size: int, out: Array) -> None:
    whole, zero = size // 4 * 4, out.dtype.type(0)
    for i in range(0, whole, 4):
        a = b = c = d = zero
        for j in range(size):
            a += matrix[i, j] * vector[j]
            b += matrix[i + 1, j] * vector[j]
            c += matrix[i + 2, j] * vector[j]
            d += matrix[i + 3, j] * vector[j]
        out[i], out[i + 1], out[i + 2], out[i + 3] = a, b, c, d
    for i in range(whole, size):
        a = zero
        for j in range(size):
            a += matrix[i, j] * vector[j]
        out[i] = a


@helper
def _write(matrix: Array, decay: Real, strength: Real, rows: Array, columns: Array) -> None:
    """One write, matrix <- decay matrix + strength rows columns^T."""
    for i in range(len(rows)):
        weight = strength * rows[i]
        for j in range(len(columns)):
            matrix[i, j] = decay * matrix[i, j] + weight * columns[j]


@helper
def _write_anew(before: Array, decay: Real, strength: Real, rows: Array, columns: Array, after: Array) -> None:
    """`_write` to another matrix."""
    for i in range(len(rows)):
        weight = strength * rows[i]
        for j in range(len(columns)):
            after[i, j] = decay * before[i, j] + weight * columns[j]


@helper
def _back_through_write(
    A: Array,
    D: Array,
    decay: Real,
    query: Array,
    key: Array,
    d_read: Array,
    written: Array,
    d_error: Array,
    d_query: Array,
    d_key: Array,
    from_error: Array,
) -> Real:
    """All products with A(t-1) and D in one pass over both: A^T do, D^T u, A^T de, da, which is returned, and the next D."""
    d_decay = zero = D.dtype.type(0)
    for j in range(len(query)):
        d_query[j] = d_key[j] = from_error[j] = zero
    for i in range(len(A)):
        do, de, u = d_read[i], d_error[i], written[i]
        for j in range(len(query)):
            a, d = A[i, j], D[i, j]
            d_query[j] += do * a
            from_error[j] += de * a
            d_key[j] += u * d
            d += do * query[j] - de * key[j]
            d_decay += d * a
            D[i, j] = decay * d
    return d_decay


@helper
def _dot(a: Array, b: Array) -> Real:
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@inlined
def _copy(matrix: Array, out: Array) -> None:
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            out[i, j] = matrix[i, j]


@inlined
def _transpose(matrix: Array, out: Array) -> None:
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            out[i, j] = matrix[j, i]


@helper
def _clear(matrix: Array) -> None:
    zero = matrix.dtype.type(0)
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            matrix[i, j] = zero
