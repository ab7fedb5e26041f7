"""Numbers and tables of reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

__all__ = ["estimate", "number", "table"]


def number(value: float | None) -> str:
    """Three decimals, or an empty string for an unknown value."""
    return "" if value is None or not math.isfinite(value) else f"{value:.3f}"


def estimate(found: Sequence[float | None] | None) -> str:
    """A mean with its interval, from (mean, low, high); without the interval if it is unknown, empty for None."""
    if found is None:
        return ""
    mean, low, high = found
    return number(mean) if low is None else f"{number(mean)} ({number(low)} to {number(high)})"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, with the cells unchanged."""
    return tabulate(rows, columns, "github", disable_numparse=True)
