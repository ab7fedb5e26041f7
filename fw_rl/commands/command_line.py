"""What all commands say in the same way."""

from __future__ import annotations

import sys

__all__ = ["fail"]


def fail(program: str, error: Exception | str, code: int = 2) -> int:
    """Print one line that says what is wrong; returns the exit code, 2 for bad input."""
    print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code
