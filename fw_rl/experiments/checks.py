"""Checks of a user's options, before the work begins."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fw_rl import arguments
from fw_rl.files import check_writable

__all__ = [
    "LARGEST",
    "check_count",
    "check_device",
    "check_output",
    "check_processes",
    "check_seed",
    "check_threads",
    "flag",
    "make_folder",
    "ray_needed",
    "require_option",
]


NO_GPU = "cpu, since PyTorch finds no CUDA device on this machine"
"""What a device must be on a machine without a GPU."""

LARGEST = 3.4e38
"""The largest finite number in float32, rounded down."""


def flag(name: str) -> str:
    """The option of a setting: --n-envs for n_envs."""
    return "--" + name.replace("_", "-")


def require_option(name: str, value: object, fits: bool, wanted: str) -> None:
    """`arguments.require` for a setting, by the name of its option."""
    arguments.require(flag(name), value, fits, wanted)


def check_count(name: str, value: int | None, least: int = 1, most: int = 10**12) -> None:
    """Check a whole number; one above `most` is a typing error, or more than a machine has."""
    require_option(name, value, value is None or value >= least, f"at least {least}")
    require_option(name, value, value is None or value <= most, f"at most {most}")


def check_seed(name: str, value: int) -> None:
    """Check a seed: Torch, NumPy and third-party environments all accept it, and those counted on from it."""
    require_option(name, value, 0 <= value < 2**31, f"from 0 to {2**31 - 1}")


def check_device(value: str, auto: bool = False) -> None:
    """Check the name of a Torch device of this machine; for "auto" the agents choose one."""
    import torch  # which `fw-rl train --help` does not need

    kind, _, number = value.partition(":")
    known = value in ("cpu", "cuda") or (auto and value == "auto") or (kind == "cuda" and number.isdecimal())
    require_option("device", value, known, "cpu, cuda, cuda:K or auto" if auto else "cpu, cuda or cuda:K")
    here = torch.cuda.device_count()  # SB3 would silently use the processor
    wanted = f"one of {here} CUDA devices of this machine" if here else NO_GPU
    require_option("device", value, kind != "cuda" or int(number or 0) < here, wanted)


def check_processes(name: str, value: int) -> None:
    """Check the number of processes to start on this machine."""
    most = 32 * (os.cpu_count() or 1)
    check_count(name, value)
    require_option(name, value, value <= most, f"at most {most}, 32 for each core of this machine")


def check_threads(name: str, value: int) -> None:
    """Check the number of Torch's threads."""
    cores = os.cpu_count() or 1
    check_count(name, value)
    require_option(name, value, value <= cores, f"at most {cores}, the cores of this machine")


def check_output(name: str, path: Path, *endings: str) -> None:
    """Check the output file that an option names, and make its folder.

    ValueError for a name that cannot be a file's; OSError if nothing can be written.
    """
    require_option(name, path, path.suffix.lower() in endings, f"a file whose name ends in {' or '.join(endings)}")
    with _named(name, "a file that can be made", path):
        require_option(name, path, not path.is_dir(), "a file, not a folder")
        check_writable(path)


def make_folder(name: str, folder: Path) -> None:
    """Make the folder that an option names, and check that files can be written there, with the errors of `check_output`."""
    with _named(name, "a folder that can be made", folder):
        check_writable(folder / "checked")


@contextmanager
def _named(name: str, wanted: str, path: Path) -> Iterator[None]:
    """Turns the error for a path that cannot be a file, since it is too long or lies below a file, into a ValueError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            raise ValueError(f"{flag(name)} must be {wanted}, got {path} ({error.strerror})") from error
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def ray_needed() -> Iterator[None]:
    """A context for imports of Ray; ValueError, with the command that installs it, if it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        install = "pip install 'fw-rl[ray]', in an environment of its own"
        raise ValueError(f"the engine ray needs Ray, which is not installed: {install}") from error
