"""Tables in Markdown, line by line."""

from __future__ import annotations

__all__ = ["header", "row"]


def header(*columns: object) -> str:
    """The two lines with which a table begins.

    >>> print(header("cell", "area"))
    | cell | area |
    | --- | --- |
    """
    return f"{row(*columns)}\n{row(*['---'] * len(columns))}"


def row(*cells: object) -> str:
    """One line of a table.

    >>> row("lstm", 0.5)
    '| lstm | 0.5 |'
    """
    return f"| {' | '.join(map(str, cells))} |"
