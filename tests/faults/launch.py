"""Commands as processes that can be killed: forks of this one, which has imported everything, so that each begins at once."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import fw_rl.commands.deblur
import fw_rl.commands.play
import fw_rl.commands.task
import fw_rl.commands.train
import fw_rl.experiments.tracking
import fw_rl.experiments.training  # noqa: F401 (what is imported here is imported once)
from fw_rl.__main__ import main
from fw_rl.interrupts import begin_work, end_at_once

__all__ = ["Child", "Outcome", "run"]

MEMORY = 16 * 2**30
"""Bytes of addresses that a command may take: one that wants the whole machine must not take it from others."""


class Outcome(NamedTuple):
    """What became of a command: its exit code, None if it hung, and what it printed."""

    code: int | None
    out: str
    err: str

    @property
    def has_traceback(self) -> bool:
        """Whether it ended as no command may: by an exception, or by a signal of its own."""
        return "Traceback (most recent call last)" in self.out + self.err or (self.code or 0) < 0


class Child:
    """A command that runs in a folder, in a session of its own, with whatever `prepare` does to its process first."""

    def __init__(self, folder: Path, arguments: Sequence[str], prepare: Callable[[], None] = lambda: None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.files = [folder / "stdout", folder / "stderr"]
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                self._become(folder)
                prepare()
                code = main(list(arguments))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        self.code: int | None = None

    def _become(self, folder: Path) -> None:
        os.setsid()
        os.chdir(folder)
        for number, path in enumerate(self.files, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (
            open(number, "w", errors=errors, closefd=False)  # noqa: SIM115
            for number, errors in ((1, "strict"), (2, "backslashreplace"))  # as Python has them
        )
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        end_at_once()
        begin_work()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float) -> Outcome:
        """Wait for its end; one that takes longer has hung, and is killed with all that it started."""
        deadline = _deadline(seconds)
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        hung = self.code is None
        if hung:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.code = -signal.SIGKILL
        out, err = (path.read_text(errors="backslashreplace") if path.exists() else "" for path in self.files)
        return Outcome(None if hung else self.code, out, err)

    def descendants(self) -> dict[int, str]:
        """What else runs in its session, by number: workers, fork servers."""
        shown = subprocess.run(["ps", "-eo", "sid=,pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
        rows = [line.split(maxsplit=3) for line in shown.splitlines()]
        return {
            int(pid): " ".join(words)
            for session, pid, state, *words in rows
            if int(session) == self.pid != int(pid) and not state.startswith("Z")
        }

    def leaves_behind(self, seconds: float = 5.0) -> dict[int, str]:
        """What still runs so many seconds after its end; it is killed."""
        deadline = _deadline(seconds)
        while (left := self.descendants()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return left


def _deadline(seconds: float) -> float:
    """When so many seconds have passed; where others use the cores too, as much later as one must wait for them."""
    return time.monotonic() + seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def run(folder: Path, arguments: Sequence[str], seconds: float, prepare: Callable[[], None] = lambda: None) -> Outcome:
    """Run a command to its end."""
    return Child(folder, arguments, prepare).wait(seconds)
