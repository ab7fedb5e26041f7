"""Checks of the arguments of classes and commands; the errors say what an argument must be."""

from __future__ import annotations

import inspect
import math
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any

__all__ = ["check_kind", "constructor_parameters", "require", "require_count"]

KINDS: dict[str, type | UnionType] = {
    **{"int": Integral, "float": Real, "bool": bool, "str": str},
    **{"int | None": Integral | None, "float | None": Real | None, "bool | None": bool | None},
}
"""The types of an argument with such an annotation; NumPy's numbers are among them."""


def require(name: str, value: object, fits: bool, wanted: str) -> None:
    """Raise a ValueError that says what an argument must be, such as "at least 1", if its value does not fit."""
    if not fits:
        raise ValueError(f"{name} must be {wanted}, got {str(value) if isinstance(value, Path) else value!r}")


def require_count(name: str, value: object, least: int = 1, most: float = math.inf) -> None:
    """ValueError for a count that is not a whole number in the range."""
    fits = isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most
    require(name, value, fits, f"a whole number from {least}" + (f" to {most}" if most < math.inf else ""))


def check_kind(parameter: inspect.Parameter, value: Any) -> None:
    """ValueError for a value of another type than the annotation's, if `KINDS` has it."""
    kind = inspect.formatannotation(parameter.annotation).strip("'")
    require(parameter.name, value, isinstance(value, KINDS.get(kind, object)), f"of type {kind}")


def constructor_parameters(of_class: type) -> dict[str, inspect.Parameter]:
    """The parameters of a constructor by name, including those that it takes by **kwargs."""
    found: dict[str, inspect.Parameter] = {}
    for constructor in (vars(ancestor)["__init__"] for ancestor in of_class.__mro__ if "__init__" in vars(ancestor)):
        parameters = inspect.signature(constructor).parameters.values()
        found = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found
