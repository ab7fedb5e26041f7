"""The writes and reads of `fw_rl.memory.write_and_read`, compiled for the processor: a sequence both ways.

One row b and one head n come after the other, so that their matrix stays in the cache. With e(t) = v(t) - a(t) A(t-1) k(t) the
correction, u = s e what is written (s the strength, a the decay) and D = d loss / d A(t), which `o` of later reads add to, the way
back goes from the last step to the first by

    D += do q^T        dq = A(t)^T do        du = D k        de = s du        ds = du . e        dv = de
    dk = D^T u - a A(t-1)^T de               D' = D - de k^T               da = <D', A(t-1)>     D = a D' for the step before

It needs every A(t-1): the forward pass keeps one in `every` steps, and those between are written anew, from e.

In all kernels: `queries` and `keys` [T, B, N, H], `values` [T, B, N, V], `strengths` and `decays` [T, B, N], the decays [0, 0, 0] for
none; `starts` [T, B] is true where A is zero before the step, [0, 0] for nowhere; with `corrects` the rule is "delta", else "sum".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fw_rl.cells.kernels import Array, Real, compiled, helper, inlined

__all__ = ["run_back", "run_forward"]


@compiled
def run_forward(
    queries: Array,
    keys: Array,
    values: Array,
    strengths: Array,
    decays: Array,
    starts: NDArray[np.bool_],
    corrects: bool,
    every: int,
    transposed: Array,
    reads: Array,
    errors: Array,
    kept: Array,
) -> None:
    """A sequence, or a step while acting: `reads` [T, B, N, V] and `transposed` [B, N, H, V], which is A^T, in place.

    What `run_back` needs is left in `errors` [T, B, N, V], which is e, and `kept` [ceil(T / every), B, N, H, V], unless that is
    empty; then there need be room for one step's errors only.
    """
    steps, batch, heads, _ = keys.shape
    given_back = np.zeros(values.shape[3], values.dtype)
    one = values.dtype.type(1)
    for b in range(batch):
        for n in range(heads):
            A = transposed[b, n]
            for t in range(steps):
                if len(starts) and starts[t, b]:
                    _clear(A)
                if len(kept) and t % every == 0:
                    _copy(A.ravel(), kept[t // every, b, n].ravel())
                key, read, error = keys[t, b, n], reads[t, b, n], errors[t if len(kept) else 0, b, n]
                decay = decays[t, b, n] if len(decays) else one
                if corrects:
                    _combine_twice(A, key, queries[t, b, n], given_back, read)
                else:
                    _combine(A, queries[t, b, n], read)
                for i in range(len(error)):
                    error[i] = values[t, b, n, i] - decay * given_back[i]
                along = strengths[t, b, n] * _dot(key, queries[t, b, n])
                for i in range(len(read)):
                    read[i] = decay * read[i] + along * error[i]
                _write(A, decay, strengths[t, b, n], key, error)


@compiled
def run_back(
    queries: Array,
    keys: Array,
    values: Array,
    strengths: Array,
    decays: Array,
    starts: NDArray[np.bool_],
    corrects: bool,
    every: int,
    errors: Array,
    kept: Array,
    d_reads: Array,
    d_matrix: Array,
    d_queries: Array,
    d_keys: Array,
    d_values: Array,
    d_strengths: Array,
    d_decays: Array,
) -> None:
    """The way back through `run_forward`: `d_matrix` [B, N, V, H], of A after the sequence, becomes that of A before it."""
    steps, batch, heads, size = keys.shape
    length, dtype = values.shape[3], values.dtype
    before = np.empty((min(every, steps), length, size), dtype)
    d_written, d_error, written = np.empty(length, dtype), np.zeros(length, dtype), np.empty(length, dtype)
    from_write, from_error = np.empty(size, dtype), np.zeros(size, dtype)
    one = dtype.type(1)
    for b in range(batch):
        for n in range(heads):
            D = d_matrix[b, n]
            for c in range(len(kept) - 1, -1, -1):
                stop = min(steps, (c + 1) * every)
                _transpose(kept[c, b, n], before[0])
                for t in range(c * every, stop - 1):
                    A, place = before[t + 1 - c * every], (t, b, n)
                    if len(starts) and starts[t + 1, b]:
                        _clear(A)
                    else:
                        _copy(before[t - c * every].ravel(), A.ravel())
                        _write(A, decays[place] if len(decays) else one, strengths[place], errors[place], keys[place])
                for t in range(stop - 1, c * every - 1, -1):
                    A, place = before[t - c * every], (t, b, n)
                    query, key, error, d_read = queries[place], keys[place], errors[place], d_reads[place]
                    strength, decay = strengths[place], decays[place] if len(decays) else one
                    _multiply(D, key, d_written)
                    along = _dot(query, key)
                    for i in range(length):
                        d_written[i] += along * d_read[i]
                    d_strengths[place] = _dot(d_written, error)
                    for i in range(length):
                        written[i] = strength * error[i]
                    for i in range(length):
                        d_values[t, b, n, i] = strength * d_written[i]
                    _combine(D, written, from_write)
                    if corrects:
                        _copy(d_values[place], d_error)
                        _combine_twice(A, d_read, d_error, d_queries[place], from_error)
                    else:
                        _combine(A, d_read, d_queries[place])
                    along = _dot(written, d_read)
                    for j in range(size):
                        d_queries[t, b, n, j] = decay * d_queries[t, b, n, j] + along * key[j]
                    for j in range(size):
                        d_keys[t, b, n, j] = from_write[j] + along * query[j] - decay * from_error[j]
                    if len(starts) and starts[t, b]:
                        if len(decays):
                            d_decays[place] = dtype.type(0)
                        _clear(D)
                        continue
                    _add_products(D, d_read, query, d_error, key)
                    if len(decays):
                        d_decays[place] = _dot(D.ravel(), A.ravel())
                        _scale(decay, D.ravel())


@helper
def _combine(matrix: Array, weights: Array, out: Array) -> None:
    """The sum of the rows with weights, four at a time, so that `out` is fetched once for them."""
    rows, size = matrix.shape
    whole, zero = rows // 4 * 4, out.dtype.type(0)
    for j in range(size):
        out[j] = zero
    for i in range(0, whole, 4):
        w, x, y, z = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for j in range(size):
            out[j] += w * matrix[i, j] + x * matrix[i + 1, j] + y * matrix[i + 2, j] + z * matrix[i + 3, j]
    for i in range(whole, rows):
        for j in range(size):
            out[j] += weights[i] * matrix[i, j]


@helper
def _combine_twice(matrix: Array, weights: Array, others: Array, out: Array, other_out: Array) -> None:
    _combine(matrix, weights, out)
    _combine(matrix, others, other_out)


@helper
def _multiply(matrix: Array, vector: Array, out: Array) -> None:
    """Matrix times vector, four rows at a time, so that the vector is fetched once for them."""
    rows, size = matrix.shape
    whole = rows // 4 * 4
    for i in range(0, whole, 4):
        a = b = c = d = vector.dtype.type(0)
        for j in range(size):
            a += matrix[i, j] * vector[j]
            b += matrix[i + 1, j] * vector[j]
            c += matrix[i + 2, j] * vector[j]
            d += matrix[i + 3, j] * vector[j]
        out[i], out[i + 1], out[i + 2], out[i + 3] = a, b, c, d
    for i in range(whole, rows):
        out[i] = _dot(matrix[i], vector)


@helper
def _write(matrix: Array, decay: Real, strength: Real, rows: Array, columns: Array) -> None:
    """One write, matrix <- decay matrix + strength rows columns^T."""
    for i in range(len(rows)):
        weight = strength * rows[i]
        for j in range(len(columns)):
            matrix[i, j] = decay * matrix[i, j] + weight * columns[j]


@helper
def _add_products(matrix: Array, d_read: Array, query: Array, d_error: Array, key: Array) -> None:
    for i in range(len(d_read)):
        w, x = d_read[i], d_error[i]
        for j in range(len(query)):
            matrix[i, j] += w * query[j] - x * key[j]


@inlined
def _dot(a: Array, b: Array) -> Real:
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@inlined
def _transpose(a: Array, out: Array) -> None:
    for j in range(len(a)):
        for i in range(len(out)):
            out[i, j] = a[j, i]


@inlined
def _copy(a: Array, out: Array) -> None:
    for i in range(len(out)):
        out[i] = a[i]


@inlined
def _scale(factor: Real, out: Array) -> None:
    for i in range(len(out)):
        out[i] *= factor


@inlined
def _clear(matrix: Array) -> None:
    flat, zero = matrix.ravel(), matrix.dtype.type(0)
    for i in range(len(flat)):
        flat[i] = zero
