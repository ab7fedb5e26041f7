"""Ctrl-C on the command line, and SIGTERM, by which a cluster's scheduler ends a job: both have the same effect.

Until the work begins there is nothing to clean up, and an import may swallow a KeyboardInterrupt or turn it into another error,
so the process ends at once. Afterwards both raise a KeyboardInterrupt, except during an import: a C module may abort the
process there, so it still ends at once. A program that imports this keeps its handlers.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

__all__ = ["begin_work", "end_at_once", "end_work", "is_command_line"]

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def is_command_line() -> bool:
    """Whether this process was started as `fw-rl`, `python -m fw_rl` or `python train.py`."""
    program = sys.argv[0] if sys.argv else ""
    if program not in sys.orig_argv:  # a worker process, which has the arguments of the main one
        return False
    if program == "-m":  # so it is called while the package is imported
        return "fw_rl" in sys.orig_argv
    return Path(program).stem == "fw-rl" or Path(program).resolve() == Path(__file__).parents[1] / "train.py"


def end_at_once() -> None:
    """Let an interrupt end the process."""
    for number in INTERRUPTS:
        signal.signal(number, _end)


def begin_work() -> None:
    """Let an interrupt be a KeyboardInterrupt from now on, if it would have ended the process."""
    _exchange(_end, _interrupt)


def end_work() -> None:
    """Let an interrupt end the process again: only Python's own shutdown is left."""
    _exchange(_interrupt, _end)


def _exchange(before: object, after: signal._HANDLER) -> None:
    if all(signal.getsignal(number) == before for number in INTERRUPTS):
        for number in INTERRUPTS:
            signal.signal(number, after)


def _interrupt(number: int, frame: FrameType | None) -> None:
    at = frame
    while at is not None:
        if at.f_code.co_filename == "<frozen importlib._bootstrap>":  # an import is under way
            _end(number, frame)
        at = at.f_back
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> None:
    os.write(sys.__stdout__.fileno() if sys.__stdout__ else 1, b"Interrupted.\n")
    os._exit(130)
