"""Statistics over a few seeds: means with Student's interval, and robust statistics with bootstrap intervals.

The latter are those of Agarwal, Schwarzer, Castro, Courville and Bellemare, *Deep Reinforcement Learning at the Edge of the
Statistical Precipice*, NeurIPS 2021. Everything here is deterministic: the same scores give the same intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

__all__ = ["RESAMPLES", "Estimate", "estimate", "interquartile_mean", "mean_interval", "plain", "probability_of_improvement"]

Scores = NDArray[np.float64]

RESAMPLES = 10_000
"""Resamples of the seeds for each interval."""

_BATCH = 500  # resamples at a time, which bounds the memory and keeps it in the cache


def mean_interval(values: NDArray[np.floating]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The mean over seeds of values [S, ...], and both ends of its 95 % interval by Student's t, nan for a single value.

    Examples:
        >>> mean, low, high = mean_interval(np.array([1.0, 2.0, 3.0]))  # 2 +- 4.303 * 1 / sqrt(3)
    """
    mean, count = values.mean(axis=0), len(values)
    if count == 1:
        unknown = np.full_like(mean, np.nan)
        return mean, unknown, unknown
    margin = stdtrit(count - 1, 0.975) * values.std(axis=0, ddof=1) / math.sqrt(count)
    return mean, mean - margin, mean + margin


class Estimate(NamedTuple):
    """A statistic with the ends of its 95 % interval by the percentile bootstrap (Agarwal et al. 2021, §4.1), [...] each.

    The ends are nan if some environment has only one seed. Ten seeds are enough for the interval to be nearly what it claims;
    with three it is much too narrow.
    """

    value: Scores
    low: Scores
    high: Scores


def interquartile_mean(*scores: Scores) -> Estimate:
    """The mean of the middle half of all scores, those [S, ...] of each environment together (Agarwal et al. 2021, §4.3).

    A quarter of the scores, rounded down, is left out at each end; if one score is nan, so is the mean. Pooling needs scores on
    one scale. The interval resamples the seeds of each environment among themselves.

    Examples:
        >>> float(interquartile_mean(np.array([0.0, 1.0, 2.0, 9.0])).value)  # without 0 and 9
        1.5
    """

    from scipy.stats import trim_mean  # takes a second to import, and few commands need it

    def middle(*samples: Scores, axis: int = -1) -> Scores:
        pooled = np.concatenate(samples, axis=axis)
        return trim_mean(pooled, 0.25, axis=axis) + 0 * pooled.sum(axis=axis)  # nan stays nan in every version of SciPy

    return estimate(middle, scores)


def probability_of_improvement(*pairs: tuple[Scores, Scores]) -> Estimate:
    """How probable it is that a run of X scores more than one of Y, P(X > Y) (Agarwal et al. 2021, §4.3).

    In one environment it is the share of the S R pairs in which X has more, a tie being a half: Mann and Whitney's U over S R.
    The result is the mean over environments. Only ranks count, so their scores may be on different scales. The interval
    resamples the seeds of X and of Y in each environment among themselves. A pair is [S] and [R].

    Examples:
        >>> x, y = np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0])
        >>> float(probability_of_improvement((x, y)).value)  # 1 + 1/2 + 0, and 3, of 6
        0.75
    """

    def improvement(*samples: Scores, axis: int = -1) -> Scores:
        return np.mean([_share_above(x, y) for x, y in zip(samples[::2], samples[1::2], strict=True)], axis=0)

    return estimate(improvement, [scores for pair in pairs for scores in pair])


def _share_above(x: Scores, y: Scores) -> Scores:
    """The share of pairs with x above y: x [..., S] and y [..., R] give [...]."""
    x, y = x[..., :, None], y[..., None, :]
    return ((x > y) + 0.5 * (x == y)).mean(axis=(-2, -1))


def estimate(
    statistic: Callable[..., Scores], samples: Sequence[Scores], paired: bool = False, resamples: int = RESAMPLES
) -> Estimate:
    """A statistic of samples [S, ...], which takes them as [..., S] and `axis`, with its bootstrap interval over seeds.

    Seeds of `paired` samples are resampled together, others each sample on its own.
    """
    from scipy.stats import bootstrap

    samples = [np.moveaxis(sample, 0, -1) for sample in samples]
    value = statistic(*samples, axis=-1)
    if min(sample.shape[-1] for sample in samples) < 2:
        unknown = np.full_like(value, np.nan)
        return Estimate(value, unknown, unknown)
    resampled = bootstrap(
        samples, statistic, axis=-1, vectorized=True, paired=paired, method="percentile", n_resamples=resamples, batch=_BATCH,
        rng=0,
    )  # fmt: skip
    return Estimate(value, *resampled.confidence_interval)


def plain(values: Scores | Estimate | float) -> Any:
    """The values for JSON, rounded to six decimals, and None for what is not finite.

    An estimate is [value, low, high], for each point of a curve.
    """
    numbers = np.asarray(np.round(values, 6))
    if isinstance(values, Estimate):
        numbers = np.moveaxis(numbers, 0, -1)
    found = numbers.astype(object)
    found[~np.isfinite(numbers)] = None
    return found.tolist()
