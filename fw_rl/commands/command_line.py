"""What every command needs, and how it says what is wrong."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["fail", "missing_packages"]

PACKAGES = ("PIL", "matplotlib", "scipy", "tabulate", "tensorboard", "tqdm", "tyro", "yaml")
"""What `pip install 'fw-rl[cli]'` brings, as it is imported."""


def missing_packages() -> list[str]:
    """What the commands need and is not installed: to be told before the work begins, not where a picture is drawn."""
    return [name for name in PACKAGES if find_spec(name) is None]


def fail(program: str, error: Exception | str, code: int = 2, details: str = "") -> int:
    """Print one line that says what is wrong, after the lines of `details`; returns the exit code."""
    if details:
        print(details, file=sys.stderr)
    print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code
