"""Intervals of a mean are those of the tables of Student's t."""

import numpy as np
import pytest

from fw_rl.statistics import mean_interval


@pytest.mark.parametrize("count, quantile", [(2, 12.706), (3, 4.303), (11, 2.228), (31, 2.042), (121, 1.980)])
def test_an_interval_reaches_so_many_standard_errors(count, quantile):
    values = np.random.default_rng(0).normal(size=(count, 3))
    mean, low, high = mean_interval(values)
    np.testing.assert_allclose(mean, values.mean(axis=0))
    np.testing.assert_allclose(high - mean, mean - low)
    np.testing.assert_allclose((high - mean) / (values.std(axis=0, ddof=1) / np.sqrt(count)), quantile, rtol=3e-4)


def test_one_value_has_no_interval():
    mean, low, high = mean_interval(np.array([2.0]))
    assert mean == 2.0
    assert np.isnan([low, high]).all()
