"""Cells by their names, in one layer or more."""

from __future__ import annotations

import inspect
import math
from numbers import Real
from typing import Any

import torch

from fw_rl.arguments import check_kind, require, require_count
from fw_rl.cells.base import Cell, find_cell
from fw_rl.cells.stack import Stack

__all__ = ["make_cell"]

MOST = 1_000_000
"""Heads, steps, layers and anything else that is counted: a larger number is a typing error."""


def make_cell(name: str, input_size: int, hidden_size: int, *, layers: int = 1, **options: Any) -> Cell:
    """A new cell by its name, or a `Stack` of such cells.

    Args:
        name: As in `find_cell`.
        input_size: Numbers I of an input.
        hidden_size: Units H.
        layers: Cells on top of each other.
        options: Keyword arguments of the cell's class.

    Raises:
        ValueError: If there is no such cell or option, or if a value is not allowed.
    """
    cell_class = find_cell(name)
    every = list(inspect.signature(cell_class).parameters.values())
    takes_any, parameters = any(parameter.kind is parameter.VAR_KEYWORD for parameter in every), every[2:]
    allowed = [*(parameter.name for parameter in parameters), "layers"]
    unknown = [option for option in options if option not in allowed]
    if unknown and not takes_any:
        raise ValueError(f"an option of cell {name!r} must be one of {', '.join(allowed)}, got {unknown[0]!r}")
    require_count("layers", layers, most=MOST)
    for parameter in parameters:
        _check_option(parameter, options.get(parameter.name, parameter.default))
    try:
        cells = [cell_class(hidden_size if layer else input_size, hidden_size, **options) for layer in range(layers)]
    except TypeError as error:
        raise ValueError(f"options of cell {name!r} must have the right types: {error}") from error
    return cells[0] if layers == 1 else Stack(cells)


def _check_option(parameter: inspect.Parameter, value: Any) -> None:
    """Raise ValueError for a value not of the option's type, for True as a number, and for a number that is too large."""
    if value is parameter.empty:
        return
    check_kind(parameter, value)
    takes_bool = parameter.annotation is parameter.empty or "bool" in str(parameter.annotation)
    require(parameter.name, value, takes_bool or not isinstance(value, bool), f"of type {parameter.annotation}")
    largest = MOST if "int" in str(parameter.annotation) else torch.finfo(torch.float32).max  # Torch takes more for infinite
    is_beyond = isinstance(value, Real) and largest < abs(float(value)) < math.inf
    require(parameter.name, value, not is_beyond, f"at most {largest:g}")
