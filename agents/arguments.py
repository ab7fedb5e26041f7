"""How a class says what an argument must be."""

from __future__ import annotations

__all__ = ["require"]


def require(name: str, value: object, fits: bool, wanted: str) -> None:
    """Say by ValueError what an argument must be, such as "at least 1", if its value does not fit."""
    if not fits:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
