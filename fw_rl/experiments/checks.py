"""Checks of what a user asks for, before the work begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["check_count", "check_output", "flag", "make_folder", "ray_needed", "require"]


def flag(name: str) -> str:
    """The option of a setting: --n-envs for n_envs."""
    return "--" + name.replace("_", "-")


def require(name: str, value: object, fits: bool, wanted: str) -> None:
    """Say by ValueError what a setting must be, such as "at least 1", if its value does not fit."""
    if not fits:
        raise ValueError(f"{flag(name)} must be {wanted}, got {str(value) if isinstance(value, Path) else value!r}")


def check_count(name: str, value: int | None, least: int = 1) -> None:
    """Check a whole number."""
    require(name, value, value is None or value >= least, f"at least {least}")


def check_output(name: str, path: Path, *endings: str) -> None:
    """Check the file that an option names, which is going to be written, and make the folder for it."""
    require(name, path, path.suffix.lower() in endings, f"a file whose name ends in {' or '.join(endings)}")
    require(name, path, not path.is_dir(), "a file, not a folder")
    path.parent.mkdir(parents=True, exist_ok=True)


def make_folder(name: str, folder: Path) -> None:
    """Make the folder that an option names; ValueError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{flag(name)} must be a folder that can be made, got {folder} ({error.strerror})") from error
    require(name, folder, os.access(folder, os.W_OK), "a folder that can be written to")


@contextmanager
def ray_needed() -> Iterator[None]:
    """A context for what imports Ray; ValueError, with the command that installs it, if it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        install = "pip install 'fw-rl[ray]', in an environment of its own"
        raise ValueError(f"the engine ray needs Ray, which is not installed: {install}") from error
