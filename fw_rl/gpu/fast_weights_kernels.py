"""A net with fast weights on a GPU, in Triton: a program takes one row through all steps, forward and backward.

A is never built. It is a sum of what was written, which is read by attention (Ba16 Eq. 4); a state may also hold a matrix. With
D(t) = d loss / d A(t), the backward pass goes from the last step to the first by

    a read r = A q          D += dr q^T       dq = A^T dr
    a write A += s v k^T    dv = s D k        dk = s D^T v        ds = v . D k

so D too is a sum of outer products, from the gradients of the reads, and is read in the same way. For u = h / |h|, the delta
rule has v = u - decay A u and k = u, and Oja's v = u and k = u - decay A^T u. Both write a correction and a unit vector, to A
or to A^T: `errors` and `units` are the values and keys of the one, and the keys and values of the other. With Hebb's rule all
are h.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["run_back", "run_forward"]


@triton.jit
def run_forward(
    driven,
    recurrent,
    gain,
    bias,
    matrix,
    faded,
    strengths,
    powers,
    first_steps,
    cut,
    hidden,
    values,
    keys,
    errors,
    units,
    queries,
    boundaries,
    recalls,
    steps,
    rows,
    size,
    pending,
    lasting,
    inner_steps,
    EPS: tl.constexpr,
    PLACEMENT: tl.constexpr,
    KEEPS_BOUNDARY: tl.constexpr,
    RULE: tl.constexpr,
    TANH: tl.constexpr,
    UNITS: tl.constexpr,
    TILE: tl.constexpr,
):
    row, n = tl.program_id(0).to(tl.int64), tl.arange(0, UNITS)
    is_unit, step = n < size, tl.cast(rows, tl.int64) * size
    slots = inner_steps if RULE == "hebb" else inner_steps + 1
    at = row * size + n
    for t in range(steps):
        begin = tl.load(first_steps + t * rows + row)
        first = _first_write(begin, t, pending, lasting)
        boundary = tl.load(driven + t * step + at, mask=is_unit, other=0.0)
        if tl.load(cut + t * rows + row) == 0:
            boundary += _product(recurrent, size, 1, hidden + t * step + row * size, size, n, TILE)
        h = _activation(_norm(boundary, gain, bias, n, size, EPS) if PLACEMENT == "all" else boundary, TANH)
        for s in range(inner_steps):
            slot = (t * slots + s) * step
            tl.store(queries + slot + at, h, mask=is_unit)
            recalled = _read(values, keys, strengths, powers, h, first, t, pending, row, rows, size, n, TILE)
            if matrix is not None:
                recalled += _read_matrix(
                    matrix, size, 1, faded, powers, begin, t, queries + slot + row * size, row, size, n, TILE
                )
            if recalls is not None:
                tl.store(recalls + slot + at, recalled, mask=is_unit)
            sustained = boundary if KEEPS_BOUNDARY else h
            if PLACEMENT == "recall":
                h = _activation(sustained + _norm(recalled, gain, bias, n, size, EPS), TANH)
            else:
                h = _activation(_norm(sustained + recalled, gain, bias, n, size, EPS), TANH)
        if boundaries is not None:
            tl.store(boundaries + t * step + at, boundary, mask=is_unit)
        tl.store(hidden + (t + 1) * step + at, h, mask=is_unit)
        if RULE == "hebb":
            tl.store(keys + (pending + t) * step + at, h, mask=is_unit)
        else:
            unit = h * _inverse_length(h)
            slot = (t * slots + inner_steps) * step
            tl.store(queries + slot + at, unit, mask=is_unit)
            known = _read(errors, units, strengths, powers, unit, first, t, pending, row, rows, size, n, TILE)
            if matrix is not None:
                known += _read_matrix(
                    matrix,
                    1 if RULE == "oja" else size,
                    size if RULE == "oja" else 1,
                    faded, powers, begin, t, queries + slot + row * size, row, size, n, TILE,
                )  # fmt: skip
            tl.store(errors + (pending + t) * step + at, unit - tl.load(powers + 1) * known, mask=is_unit)
            tl.store(units + (pending + t) * step + at, unit, mask=is_unit)
        tl.debug_barrier()  # what one thread stored others will load


@triton.jit
def run_back(
    recurrent,
    gain,
    matrix,
    faded,
    strengths,
    powers,
    first_steps,
    cut,
    hidden,
    values,
    keys,
    errors,
    units,
    d_recalls,
    queries,
    d_errors,
    d_units,
    boundaries,
    recalls,
    d_y,
    d_written_errors,
    d_written_units,
    d_boundaries,
    d_before,
    d_gain,
    d_bias,
    d_write,
    d_decay,
    steps,
    rows,
    size,
    pending,
    lasting,
    inner_steps,
    EPS: tl.constexpr,
    PLACEMENT: tl.constexpr,
    KEEPS_BOUNDARY: tl.constexpr,
    RULE: tl.constexpr,
    TANH: tl.constexpr,
    UNITS: tl.constexpr,
    TILE: tl.constexpr,
):
    """D is `d_recalls` and `queries`, which are `d_errors` and `d_units` as values and keys are `errors` and `units`."""
    row, n = tl.program_id(0).to(tl.int64), tl.arange(0, UNITS)
    is_unit, step = n < size, tl.cast(rows, tl.int64) * size
    slots = inner_steps if RULE == "hebb" else inner_steps + 1
    at = row * size + n
    nothing = tl.zeros((UNITS,), dtype=hidden.dtype.element_ty)
    carried, sum_gain, sum_bias, aged = nothing, nothing, nothing, tl.sum(nothing)
    end = steps
    for i in range(steps):
        t = steps - 1 - i
        begin = tl.load(first_steps + t * rows + row)
        first = _first_write(begin, t, pending, lasting)
        h = tl.load(hidden + (t + 1) * step + at, mask=is_unit, other=0.0)
        d_h = tl.load(d_y + t * step + at, mask=is_unit, other=0.0) + carried

        # the write
        strength = tl.load(strengths + (pending + t) * rows + row)
        error = tl.load(errors + (pending + t) * step + at, mask=is_unit, other=0.0)
        unit = tl.load(units + (pending + t) * step + at, mask=is_unit, other=0.0)
        last = tl.minimum(end, t + 1 + lasting)
        along_unit = _read_sources(d_errors, d_units, powers, unit, t, last, slots, row, rows, size, n, TILE)
        d_error = strength * along_unit
        d_unit = strength * _read_sources(d_units, d_errors, powers, error, t, last, slots, row, rows, size, n, TILE)
        tl.store(d_write + t * rows + row, tl.sum(error * along_unit))
        if RULE == "hebb":
            d_h += d_error + d_unit
        else:
            slot = (t * slots + inner_steps) * step
            d_error += tl.load(d_written_errors + t * step + at, mask=is_unit, other=0.0)
            d_unit += tl.load(d_written_units + t * step + at, mask=is_unit, other=0.0) + d_error
            d_known = -tl.load(powers + 1) * d_error
            tl.store(d_errors + slot + at, d_known, mask=is_unit)
            tl.store(d_units + slot + at, unit, mask=is_unit)
            through = _read(units, errors, strengths, powers, d_known, first, t, pending, row, rows, size, n, TILE)
            if d_decay is not None:
                aged += _aged(errors, units, strengths, powers, d_known, unit, first, t, pending, row, rows, size, n, TILE)
                aged -= tl.sum(d_error * (unit - error))
            if matrix is not None:
                from_matrix = _read_matrix(
                    matrix,
                    size if RULE == "oja" else 1,
                    1 if RULE == "oja" else size,
                    faded, powers, begin, t, d_errors + slot + row * size, row, size, n, TILE,
                )  # fmt: skip
                through += from_matrix
                if d_decay is not None:
                    aged += t * tl.sum(from_matrix * unit)
            d_unit += through
            d_h += _inverse_length(h) * (d_unit - unit * tl.sum(unit * d_unit))

        # the inner loop
        boundary = tl.load(boundaries + t * step + at, mask=is_unit, other=0.0)
        d_boundary = nothing
        for j in range(inner_steps):
            slot = (t * slots + inner_steps - 1 - j) * step
            query = tl.load(queries + slot + at, mask=is_unit, other=0.0)
            recalled = tl.load(recalls + slot + at, mask=is_unit, other=0.0)
            d_inside = d_h * _slope(h, TANH)
            normed = recalled if PLACEMENT == "recall" else recalled + (boundary if KEEPS_BOUNDARY else query)
            d_recalled, d_g, d_b = _norm_back(d_inside, normed, gain, n, size, EPS)
            sum_gain, sum_bias = sum_gain + d_g, sum_bias + d_b
            d_sustained = d_inside if PLACEMENT == "recall" else d_recalled
            tl.store(d_recalls + slot + at, d_recalled, mask=is_unit)
            d_h = _read(keys, values, strengths, powers, d_recalled, first, t, pending, row, rows, size, n, TILE)
            if d_decay is not None:
                aged += _aged(values, keys, strengths, powers, d_recalled, query, first, t, pending, row, rows, size, n, TILE)
            if matrix is not None:
                from_matrix = _read_matrix(
                    matrix, 1, size, faded, powers, begin, t, d_recalls + slot + row * size, row, size, n, TILE
                )
                d_h += from_matrix
                if d_decay is not None:
                    aged += t * tl.sum(from_matrix * query)
            if KEEPS_BOUNDARY:
                d_boundary += d_sustained
            else:
                d_h += d_sustained
            h = query
        d_inside = d_h * _slope(h, TANH)
        if PLACEMENT == "all":
            d_inside, d_g, d_b = _norm_back(d_inside, boundary, gain, n, size, EPS)
            sum_gain, sum_bias = sum_gain + d_g, sum_bias + d_b
        tl.store(d_boundaries + t * step + at, d_boundary + d_inside, mask=is_unit)
        tl.debug_barrier()  # what one thread stored others will load
        carried = nothing
        if tl.load(cut + t * rows + row) == 0:
            carried = _product(recurrent, 1, size, d_boundaries + t * step + row * size, size, n, TILE)
        end = tl.where(begin == t, t, end)
    tl.store(d_before + at, carried, mask=is_unit)
    if EPS is not None:
        tl.store(d_gain + at, sum_gain, mask=is_unit)
        tl.store(d_bias + at, sum_bias, mask=is_unit)
    if d_decay is not None:
        tl.store(d_decay + row, aged)


@triton.jit
def _first_write(begin, t, pending, lasting):
    """The first write that a read at step t still sees, of `pending` before the sequence and those after them."""
    return tl.maximum(tl.where(begin < 0, 0, pending + begin), pending + t - lasting)


@triton.jit
def _read(values, keys, strengths, powers, query, first, t, pending, row, rows, size, n, TILE: tl.constexpr):
    """``A(t-1) query``: the sum of what was written before step t, weighted by the likeness of each key to the query."""
    total = tl.zeros_like(query)
    for start in range(first, pending + t, TILE):
        left, _, k, v = _writes(values, keys, strengths, powers, start, t, pending, row, rows, size, n, TILE)
        total += tl.sum((left * tl.sum(k * query[None, :], axis=1))[:, None] * v, axis=0)
    return total


@triton.jit
def _aged(values, keys, strengths, powers, d_read, query, first, t, pending, row, rows, size, n, TILE: tl.constexpr):
    """What each write gave to a read's part of the loss, times its age: the gradient of the decay, times the decay."""
    total = tl.sum(tl.zeros_like(query))
    for start in range(first, pending + t, TILE):
        left, age, k, v = _writes(values, keys, strengths, powers, start, t, pending, row, rows, size, n, TILE)
        total += tl.sum(left * age * tl.sum(k * query[None, :], axis=1) * tl.sum(v * d_read[None, :], axis=1))
    return total


@triton.jit
def _writes(values, keys, strengths, powers, start, t, pending, row, rows, size, n, TILE: tl.constexpr):
    """Some writes: what remains of them before step t, how many steps decayed them, keys and values."""
    i = start + tl.arange(0, TILE)
    is_write, age = i < pending + t, t - 1 - tl.maximum(i - pending, -1)
    left = tl.load(strengths + i * rows + row, mask=is_write, other=0.0) * tl.load(powers + age, mask=is_write, other=0.0)
    places = (i.to(tl.int64) * rows + row)[:, None] * size + n[None, :]
    mask = is_write[:, None] & (n < size)[None, :]
    return left, age, tl.load(keys + places, mask=mask, other=0.0), tl.load(values + places, mask=mask, other=0.0)


@triton.jit
def _read_sources(values, keys, powers, query, t, last, slots, row, rows, size, n, TILE: tl.constexpr):
    """``D(t) query``: the sum of what the reads of the steps from t + 1 to before `last` sent back."""
    total = tl.zeros_like(query)
    for start in range((t + 1) * slots, last * slots, TILE):
        i = start + tl.arange(0, TILE)
        is_source = i < last * slots
        left = tl.load(powers + i // slots - 1 - t, mask=is_source, other=0.0)
        places = (i.to(tl.int64) * rows + row)[:, None] * size + n[None, :]
        mask = is_source[:, None] & (n < size)[None, :]
        k, v = tl.load(keys + places, mask=mask, other=0.0), tl.load(values + places, mask=mask, other=0.0)
        total += tl.sum((left * tl.sum(k * query[None, :], axis=1))[:, None] * v, axis=0)
    return total


@triton.jit
def _read_matrix(matrix, down, along, faded, powers, begin, t, vector, row, size, n, TILE: tl.constexpr):
    """What the matrix of the past adds to a read with a vector in memory: nothing in a later episode."""
    read, rest = tl.zeros((n.shape[0],), dtype=matrix.dtype.element_ty), tl.load(faded + row)
    tl.debug_barrier()  # what one thread stored others will load
    if (begin < 0) & (rest != 0):  # else what is there may even be infinite
        read = rest * tl.load(powers + t) * _product(matrix + row * size * size, down, along, vector, size, n, TILE)
    return read


@triton.jit
def _product(matrix, down, along, vector, size, n, TILE: tl.constexpr):
    """The product of a matrix, whose next row and column are `down` and `along` further, and a vector in memory."""
    total = tl.zeros((n.shape[0],), dtype=matrix.dtype.element_ty)
    for start in range(0, size, TILE):
        m = start + tl.arange(0, TILE)
        block = tl.load(
            matrix + n[:, None] * down + m[None, :] * along, mask=(n < size)[:, None] & (m < size)[None, :], other=0.0
        )
        total += tl.sum(block * tl.load(vector + m, mask=m < size, other=0.0)[None, :], axis=1)
    return total


@triton.jit
def _standardised(x, n, size, EPS: tl.constexpr):
    """(x - mean) / deviation, and 1 / deviation."""
    centred = tl.where(n < size, x - tl.sum(x, axis=0) / size, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / size + EPS)
    return centred * scale, scale


@triton.jit
def _norm(x, gain, bias, n, size, EPS: tl.constexpr):
    """The layer norm, or x without one."""
    if EPS is not None:
        standard, _ = _standardised(x, n, size, EPS)
        x = standard * tl.load(gain + n, mask=n < size, other=0.0) + tl.load(bias + n, mask=n < size, other=0.0)
    return x


@triton.jit
def _norm_back(d_y, x, gain, n, size, EPS: tl.constexpr):
    """The gradients of x, gain and bias of `_norm`."""
    d_x, d_gain = d_y, d_y
    if EPS is not None:
        standard, scale = _standardised(x, n, size, EPS)
        d_gain = d_y * standard
        d = d_y * tl.load(gain + n, mask=n < size, other=0.0)
        d_x = scale * tl.where(n < size, d - tl.sum(d, axis=0) / size - standard * tl.sum(d * standard, axis=0) / size, 0.0)
    return d_x, d_gain, d_y


@triton.jit
def _activation(x, TANH: tl.constexpr):
    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0) if TANH else tl.where(x < 0, 0.0, x)  # NaN stays NaN


@triton.jit
def _slope(y, TANH: tl.constexpr):
    """The derivative of the activation where it gives y."""
    return 1.0 - y * y if TANH else tl.where(y > 0, 1.0, tl.zeros_like(y))


@triton.jit
def _inverse_length(h):
    return 1.0 / tl.sqrt(tl.sum(h * h, axis=0) + 1e-3)  # as in fw_rl.memory
