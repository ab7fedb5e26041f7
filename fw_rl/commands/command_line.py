"""How every command says what is wrong."""

from __future__ import annotations

import sys

__all__ = ["fail"]


def fail(program: str, error: Exception | str, code: int = 2, details: str = "") -> int:
    """Print one line that says what is wrong.

    Args:
        program: Name of the command.
        error: What is wrong.
        code: The exit code, 2 for bad input.
        details: Lines before that one.

    Returns:
        The exit code.
    """
    if details:
        print(details, file=sys.stderr)
    print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code
