"""Checks of what a user asks for, before the work begins."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["check_count", "check_output", "flag", "make_folder"]


def flag(name: str) -> str:
    """The option of a setting: --n-envs for n_envs."""
    return "--" + name.replace("_", "-")


def check_count(name: str, value: int | None, least: int = 1) -> None:
    """Raises ValueError if a setting is below the least that it may be; None is one that was left out."""
    if value is not None and value < least:
        raise ValueError(f"{flag(name)} is {value}: it must be at least {least}")


def check_output(path: Path, *endings: str) -> None:
    """Make the folder of a file that a command is going to write, before the work begins.

    Raises ValueError if the name has none of the endings or is that of a folder, and OSError if the folder can't be made.
    """
    if path.suffix.lower() not in endings:
        raise ValueError(f"{path} must end in {' or '.join(endings)}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)


def make_folder(name: str, folder: Path) -> None:
    """Make the folder that an option names, before the work begins; raises ValueError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{flag(name)} is {folder}, where no folder can be made ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{flag(name)} is {folder}, where nothing can be written")
