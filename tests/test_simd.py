"""Vectors of 16 numbers beside NumPy."""

import numpy as np
import pytest

from fw_rl.kernels import in_place
from fw_rl.simd import LANES, filled, load, store, total


@in_place
def _kernel(a, b, number, out):
    products = filled(a.dtype.type(0))
    for i in range(0, len(a), LANES):
        x, y = load(a, i), load(b, i)
        store(number * x + y - x * y, out, i)
        products = products + x * y
    return total(products)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_they_calculate_as_arrays_do(dtype):
    # Of other numbers too, so that what is written beyond the end is seen, and a place that is not that of a whole vector.
    a, b, out = np.random.default_rng(0).normal(size=(3, 4 * LANES + 1)).astype(dtype)[:, 1:]
    kept, own = out.copy(), slice(LANES, 3 * LANES)
    found = _kernel(a[own], b[own], dtype(0.5), out[own])
    precision = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(out[own], (0.5 * a + b - a * b)[own], rtol=precision, atol=precision)
    np.testing.assert_allclose(found, a[own] @ b[own], rtol=precision, atol=precision)
    assert (out[:LANES] == kept[:LANES]).all() and (out[3 * LANES :] == kept[3 * LANES :]).all()
