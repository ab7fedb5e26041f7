"""How every command says what is wrong."""

from __future__ import annotations

import sys

__all__ = ["fail"]


def fail(program: str, error: Exception | str, code: int = 2, details: str = "") -> int:
    """Print one line that says what is wrong, after the lines of `details`; returns the exit code."""
    if details:
        print(details, file=sys.stderr)
    print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code
