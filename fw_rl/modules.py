"""Modules that are imported on demand: for `module:name`, or for a name of a package that is light without them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["import_for", "import_on_demand", "reason", "without_module"]


def without_module(name: str) -> str:
    """The name after the colon, or the whole name if it has none."""
    return name.rpartition(":")[2]


def import_for(name: str, kind: str) -> str:
    """Import the module of `module:name`, if the name has one, and return the name that it registers."""
    module, _, own_name = name.rpartition(":")
    if module:
        try:
            import_module(module)
        except (Exception, SystemExit) as error:  # whatever a module of the user's own may do
            raise ValueError(
                f"{kind} must be in a module that runs, got {name!r}: {module} cannot be imported ({reason(error)})"
            ) from error
    return own_name


def reason(error: BaseException | str) -> str:
    """What went wrong, in one line; for a file, its name and the system's message."""
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename is not None else error.strerror
    what, _, _ = str(error).partition(" was raised from the environment creator for ")  # Gymnasium adds id and arguments
    return " ".join(what.split()) or type(error).__name__


def import_on_demand(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package (PEP 562) that imports the module of each name on first access."""

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
