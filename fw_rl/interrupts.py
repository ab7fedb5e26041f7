"""Ctrl-C, and the SIGTERM by which a cluster's scheduler ends a job, on the command line: both are the same.

Until the work begins there is nothing to tidy up, and an import may swallow a KeyboardInterrupt or make another error of it:
the process ends at once. Once it has begun, both are a KeyboardInterrupt, but not amid an import: a module in C may abort the
process there. A program that imports this keeps its handlers.
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
    """Let an interrupt end the process again: what is left to be done is Python's own end."""
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
