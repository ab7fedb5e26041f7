"""How a class or a command says what an argument must be."""

from __future__ import annotations

from pathlib import Path

__all__ = ["require"]


def require(name: str, value: object, fits: bool, wanted: str) -> None:
    """Say by ValueError what an argument must be, such as "at least 1", if its value does not fit."""
    if not fits:
        raise ValueError(f"{name} must be {wanted}, got {str(value) if isinstance(value, Path) else value!r}")
