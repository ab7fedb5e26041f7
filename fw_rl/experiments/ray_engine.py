"""Ray, an optional part of the package, which is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ray_needed"]


@contextmanager
def ray_needed() -> Iterator[None]:
    """A context for what imports Ray."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        install = "pip install 'fw-rl[ray]', in an environment of its own"
        raise ValueError(f"the engine ray needs Ray, which is not installed: {install}") from error
