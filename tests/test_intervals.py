"""The statistics of a few seeds: cases counted by hand, exact bootstrap distributions, and what must not matter."""

import doctest

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from fw_rl import intervals
from fw_rl.intervals import interquartile_mean, mean_interval, probability_of_improvement


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


def interval(estimate):
    return float(estimate.low), float(estimate.high)


def test_the_examples_in_the_docstrings_are_right():
    result = doctest.testmod(intervals)
    assert result.attempted >= 3
    assert result.failed == 0


def test_the_interquartile_mean_leaves_out_a_quarter_each_end():
    scores = np.array([100.0, 3, 4, -50, 5, 6, 7, 8, -70, 90])
    assert interquartile_mean(scores).value == pytest.approx((3 + 4 + 5 + 6 + 7 + 8) / 6)


def test_environments_are_pooled_before_the_ends_are_left_out():
    # The interquartile means are 1.5 and 10, but of all eight scores 2, 3, 10 and 10 are in the middle.
    assert interquartile_mean(np.array([0.0, 1, 2, 3]), np.array([10.0, 10, 10, 30])).value == pytest.approx(25 / 4)


def test_the_points_of_a_curve_are_taken_one_by_one():
    curves = np.random.default_rng(0).normal(size=(10, 3))
    together = interquartile_mean(curves)
    for point in range(3):
        alone = interquartile_mean(curves[:, point])
        assert [ends[point] for ends in together] == pytest.approx(list(alone))


def test_the_interval_is_that_of_large_samples():
    # The midmean of n normal numbers has a variance of 1.195 / n.
    estimate = interquartile_mean(norm.ppf((np.arange(400) + 0.5) / 400))
    margin = norm.ppf(0.975) * np.sqrt(1.195 / 400)
    assert interval(estimate) == pytest.approx((-margin, margin), rel=0.06)


@pytest.mark.parametrize("seeds, least, most", [(10, 0.9, 0.96), (3, 0.7, 0.8)])
def test_ten_seeds_are_enough_for_an_interval_not_three(seeds, least, most):
    # The points of a curve serve as 400 experiments, each of which has its own interval for the mean 0.
    estimate = interquartile_mean(np.random.default_rng(0).normal(size=(seeds, 400)))
    assert least < np.mean((estimate.low < 0) & (estimate.high > 0)) < most


def test_seeds_are_resampled_within_their_environment():
    # Environments that differ, but whose seeds do not: what is drawn from each is always the same.
    estimate = interquartile_mean(np.zeros(4), np.ones(4))
    assert (estimate.value, *interval(estimate)) == (0.5, 0.5, 0.5)


def test_environments_are_resampled_independently_of_each_other():
    # Half of the seeds of X are above Y. With K of n drawn, K is binomial: of 4 its 2.5 % quantile is 0, of 8 it is 1.
    x, y = np.array([0.0, 0, 2, 2]), np.ones(4)
    assert interval(probability_of_improvement((x, y))) == (0, 1)
    assert interval(probability_of_improvement((x, y), (x, y))) == (1 / 8, 7 / 8)


def test_both_sides_of_a_comparison_are_resampled():
    x, y = np.ones(4), np.array([0.0, 0, 2, 2])
    assert interval(probability_of_improvement((x, y), (x, y))) == (1 / 8, 7 / 8)
    both = np.array([0.0, 1, 2, 3])
    low, high = interval(probability_of_improvement((both, both + 0.5)))
    assert low == 0
    assert 0.6 < high < 1


def test_the_probability_of_improvement_is_mann_and_whitneys_u():
    x, y = np.random.default_rng(1).integers(0, 6, 10).astype(float), np.random.default_rng(2).integers(0, 5, 7).astype(float)
    assert set(x) & set(y)
    assert probability_of_improvement((x, y)).value == pytest.approx(mannwhitneyu(x, y).statistic / 70)
    assert probability_of_improvement((y, x)).value == pytest.approx(1 - mannwhitneyu(x, y).statistic / 70)


def test_a_tie_is_a_half():
    assert probability_of_improvement((np.ones(3), np.ones(5))) == (0.5, 0.5, 0.5)


def test_environments_have_the_same_weight_whatever_their_seeds():
    always, never = (np.ones(2), np.zeros(3)), (np.zeros(8), np.ones(9))
    assert probability_of_improvement(always, never, never).value == pytest.approx(1 / 3)


def test_only_ranks_count_in_a_comparison():
    x, y = np.random.default_rng(3).normal(size=(2, 6))
    assert probability_of_improvement((x, y)) == probability_of_improvement((1000 + np.exp(x), 1000 + np.exp(y)))


def test_one_seed_has_no_interval():
    estimate = interquartile_mean(np.array([[1.0, 2.0]]))
    assert estimate.value.tolist() == [1, 2]
    assert np.isnan([estimate.low, estimate.high]).all()
    assert np.isnan(probability_of_improvement((np.ones(1), np.zeros(5))).low)


def test_the_same_scores_give_the_same_interval():
    scores = np.random.default_rng(4).normal(size=10)
    assert interquartile_mean(scores) == interquartile_mean(scores)
