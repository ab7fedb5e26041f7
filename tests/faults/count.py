"""What is counted of every kind of fault, as a row of the table."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields

from tests.faults.launch import Outcome

__all__ = ["Count", "table"]


@dataclass
class Count:
    """The tries of a kind of fault, and what should not have come of any of them.

    `wrong` are bad input that was accepted, good input that was refused, and results that are not those of an undisturbed run;
    `long` are answers of more than a line; `left_behind` are commands of which something ran five seconds later.
    """

    fault: str
    tries: int = 0
    tracebacks: int = 0
    hangs: int = 0
    wrong: int = 0
    long: int = 0
    left_behind: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong."""
        return not any(getattr(self, field.name) for field in fields(self)[2:])

    def check(self, outcome: Outcome, codes: tuple[int, ...], lines: int | None = None, what: object = "") -> None:
        """Count what is wrong with the end of a command that should end with one of these codes, and with so many lines."""
        faults = dict(
            tracebacks=outcome.has_traceback,
            hangs=outcome.code is None,
            wrong=not outcome.has_traceback and outcome.code not in (None, *codes),
            long=not outcome.has_traceback and lines is not None and len(outcome.err.splitlines()) != lines,
        )
        for name, happened in faults.items():
            setattr(self, name, getattr(self, name) + happened)
        if any(faults.values()):
            found = ", ".join(name for name, happened in faults.items() if happened)
            print(f"{self.fault}: {found}, code {outcome.code} {what}\n{outcome.err[-2000:]}", file=sys.stderr, flush=True)


def table(counts: list[Count]) -> str:
    """The counts as Markdown."""
    names = [field.name.replace("_", " ") for field in fields(Count)]
    rows = [[str(getattr(count, field.name)) for field in fields(Count)] for count in counts]
    lines = [names, ["---"] + ["---:"] * (len(names) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
