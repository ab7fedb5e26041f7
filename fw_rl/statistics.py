"""The mean over seeds and how far it can be trusted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

__all__ = ["mean_interval"]


def mean_interval(values: NDArray[np.floating]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Mean over the first axis of values [S, ...], and the two ends of its 95 % interval (Student's t), each [...].

    One value alone has no interval: both ends are nan.

    >>> mean, low, high = mean_interval(np.array([1.0, 2.0, 3.0]))  # 2 +- 4.303 * 1 / sqrt(3)
    """
    mean, count = values.mean(axis=0), len(values)
    if count == 1:
        unknown = np.full_like(mean, np.nan)
        return mean, unknown, unknown
    margin = t.ppf(0.975, count - 1) * values.std(axis=0, ddof=1) / math.sqrt(count)
    return mean, mean - margin, mean + margin
