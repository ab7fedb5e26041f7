"""One step of the associative LSTM, compiled for the processor: what lies between two products with the recurrent weights.

In all arrays the rows of the batch come last. A permutation of the units then only determines which rows [B] meet, and every
inner loop runs along the batch. A complex vector is [2, U, B], the real parts of its U units before the imaginary ones. For a
sequence the maps give planes [3 + 6 heads, U, T, B]: the gates, to forget, to store and to show, and then the real and the
imaginary parts of the keys, of the queries and of the values, head by head.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fw_rl.kernels import Array, compiled, inlined

__all__ = ["step_back", "step_forward"]


@compiled
def step_forward(
    planes: Array,
    t: int,
    gates: Array,
    before: Array,
    permutations: NDArray[np.integer],
    after: Array,
    recalled: Array,
    h: Array,
) -> None:
    """Step t of all rows: to the cells `after` it [copies, 2, U, B], what is `recalled` from them [2, U, B], and `h` [2, U, B].

    `gates`: [3, U, B], the sigmoid of those planes. `before`: the cells before the step. `permutations`: [copies, U].
    """
    copies, units = permutations.shape
    vectors, _ = _bounded_vectors(planes, t)
    heads = len(vectors) // 3
    keys, query, stored = vectors[:heads], _sum(vectors[heads : 2 * heads]), _gated(gates[1], vectors[2 * heads :])

    _clear(recalled)
    for s in range(copies):
        for j in range(units):
            permuted = permutations[s, j]
            for part in range(2):
                _multiply(gates[0, j], before[s, part, j], after[s, part, j])
            for k in range(heads):
                _add_product(keys[k], permuted, stored[k], j, after[s], j)
            # A permutation of the sum over the heads is the sum of their permutations.
            _add_product(query, permuted, after[s], j, recalled, j)
    _divide(recalled, copies)

    shown, _ = _bounded(recalled)
    for part in range(2):
        _multiply(gates[2].ravel(), shown[part].ravel(), h[part].ravel())


@compiled
def step_back(
    planes: Array,
    t: int,
    gates: Array,
    before: Array,
    permutations: NDArray[np.integer],
    after: Array,
    recalled: Array,
    d_h: Array,
    d_cells: Array,
    d_planes: Array,
) -> None:
    """The backward pass of `step_forward`, from the gradient `d_h` of h and `d_cells` of the cells after the step.

    `d_cells` becomes the gradient of the cells before the step, and step t of `d_planes` that of the planes.
    """
    copies, units = permutations.shape
    vectors, scales = _bounded_vectors(planes, t)
    heads = len(vectors) // 3
    keys, values, query = vectors[:heads], vectors[2 * heads :], _sum(vectors[heads : 2 * heads])
    stored = _gated(gates[1], values)
    d_gates, d_keys, d_query, d_values = np.zeros_like(gates), np.zeros_like(keys), np.zeros_like(query), np.zeros_like(values)

    (shown, scale), d_recalled = _bounded(recalled), np.empty_like(recalled)
    _add_inner_product(shown, d_h, d_gates[2])
    for part in range(2):
        _multiply(gates[2].ravel(), d_h[part].ravel(), d_h[part].ravel())
    for j in range(units):
        _bound_back(shown[0, j], shown[1, j], scale[j], d_h[0, j], d_h[1, j], d_recalled[0, j], d_recalled[1, j])
    _divide(d_recalled, copies)

    for s in range(copies):
        for j in range(units):
            permuted = permutations[s, j]
            _add_conjugate_product(query, permuted, d_recalled, j, d_cells[s], j)
            _add_conjugate_product(after[s], j, d_recalled, j, d_query, permuted)
            for k in range(heads):
                _add_conjugate_product(keys[k], permuted, d_cells[s], j, d_values[k], j)
                _add_conjugate_product(stored[k], j, d_cells[s], j, d_keys[k], permuted)
        _add_inner_product(before[s], d_cells[s], d_gates[0])
        for part in range(2):
            _multiply(gates[0].ravel(), d_cells[s, part].ravel(), d_cells[s, part].ravel())
    for k in range(heads):
        _add_inner_product(values[k], d_values[k], d_gates[1])
        for part in range(2):
            _multiply(gates[1].ravel(), d_values[k, part].ravel(), d_values[k, part].ravel())

    for n in range(3):
        for j in range(units):
            _slope(gates[n, j], d_gates[n, j], d_planes[n, j, t])
    for n in range(3 * heads):
        d = d_query if heads <= n < 2 * heads else d_keys[n] if n < heads else d_values[n - 2 * heads]
        for j in range(units):
            d_re, d_im = d_planes[3 + 2 * n, j, t], d_planes[4 + 2 * n, j, t]
            _bound_back(vectors[n, 0, j], vectors[n, 1, j], scales[n, j], d[0, j], d[1, j], d_re, d_im)


@inlined
def _bounded_vectors(planes: Array, t: int) -> tuple[Array, Array]:
    """The bounded keys, queries and values of a step, [3 heads, 2, U, B], and the factors of the bound."""
    count, (units, _, rows) = (len(planes) - 3) // 2, planes.shape[1:]
    vectors, scales = np.empty((count, 2, units, rows), planes.dtype), np.empty((count, units, rows), planes.dtype)
    for n in range(count):
        for j in range(units):
            re, im = planes[3 + 2 * n, j, t], planes[4 + 2 * n, j, t]
            _bound(re, im, scales[n, j], vectors[n, 0, j], vectors[n, 1, j])
    return vectors, scales


@inlined
def _bounded(vector: Array) -> tuple[Array, Array]:
    bounded, scale = np.empty_like(vector), np.empty_like(vector[0])
    _bound(vector[0].ravel(), vector[1].ravel(), scale.ravel(), bounded[0].ravel(), bounded[1].ravel())
    return bounded, scale


@inlined
def _sum(vectors: Array) -> Array:
    total = vectors[0].copy()
    for k in range(1, len(vectors)):
        _add(vectors[k].ravel(), total.ravel())
    return total


@inlined
def _gated(gate: Array, vectors: Array) -> Array:
    gated = np.empty_like(vectors)
    for k in range(len(vectors)):
        for part in range(2):
            _multiply(gate.ravel(), vectors[k, part].ravel(), gated[k, part].ravel())
    return gated


# In the loops from here on real and imaginary parts go one after the other, and each loop writes one array: with more, the
# compiler would not trust that they lie apart, and would take one number at a time.


@inlined
def _bound(re: Array, im: Array, scale: Array, bounded_re: Array, bounded_im: Array) -> None:
    """Reduce moduli above 1 to 1, and keep the factors."""
    one = re.dtype.type(1)
    for i in range(len(re)):
        square = re[i] * re[i] + im[i] * im[i]
        scale[i] = one if square <= one else one / math.sqrt(square)  # what is not a number goes through
    _multiply(scale, re, bounded_re)
    _multiply(scale, im, bounded_im)


@inlined
def _bound_back(re: Array, im: Array, scale: Array, d_re: Array, d_im: Array, out_re: Array, out_im: Array) -> None:
    """From the gradient after a bound to that before it, which has no part along a modulus that was reduced to 1."""
    zero, one = re.dtype.type(0), re.dtype.type(1)
    for i in range(len(re)):
        along = re[i] * d_re[i] + im[i] * d_im[i] if scale[i] < one else zero
        out_re[i] = scale[i] * (d_re[i] - re[i] * along)
    for i in range(len(re)):
        along = re[i] * d_re[i] + im[i] * d_im[i] if scale[i] < one else zero
        out_im[i] = scale[i] * (d_im[i] - im[i] * along)


@inlined
def _add_product(a: Array, i: int, b: Array, j: int, out: Array, n: int) -> None:
    """Add a_i b_j to unit n of `out`."""
    rows = out.shape[2]
    for r in range(rows):
        out[0, n, r] += a[0, i, r] * b[0, j, r] - a[1, i, r] * b[1, j, r]
    for r in range(rows):
        out[1, n, r] += a[0, i, r] * b[1, j, r] + a[1, i, r] * b[0, j, r]


@inlined
def _add_conjugate_product(a: Array, i: int, b: Array, j: int, out: Array, n: int) -> None:
    """Add conjugate(a_i) b_j to unit n of `out`."""
    rows = out.shape[2]
    for r in range(rows):
        out[0, n, r] += a[0, i, r] * b[0, j, r] + a[1, i, r] * b[1, j, r]
    for r in range(rows):
        out[1, n, r] += a[0, i, r] * b[1, j, r] - a[1, i, r] * b[0, j, r]


@inlined
def _add_inner_product(a: Array, b: Array, out: Array) -> None:
    """Add the real part of conjugate(a) b to `out` [U, B]."""
    a_re, a_im, b_re, b_im, total = a[0].ravel(), a[1].ravel(), b[0].ravel(), b[1].ravel(), out.ravel()
    for i in range(len(total)):
        total[i] += a_re[i] * b_re[i] + a_im[i] * b_im[i]


@inlined
def _multiply(a: Array, b: Array, out: Array) -> None:
    for i in range(len(out)):
        out[i] = a[i] * b[i]


@inlined
def _add(a: Array, out: Array) -> None:
    for i in range(len(out)):
        out[i] += a[i]


@inlined
def _slope(sigmoid: Array, d: Array, out: Array) -> None:
    """From the gradient after a sigmoid to that before it."""
    one = d.dtype.type(1)
    for i in range(len(d)):
        out[i] = d[i] * sigmoid[i] * (one - sigmoid[i])


@inlined
def _clear(vector: Array) -> None:
    flat, zero = vector.ravel(), vector.dtype.type(0)
    for i in range(len(flat)):
        flat[i] = zero


@inlined
def _divide(vector: Array, number: int) -> None:
    flat, divisor = vector.ravel(), vector.dtype.type(number)
    for i in range(len(flat)):
        flat[i] /= divisor
