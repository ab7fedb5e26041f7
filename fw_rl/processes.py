"""Worker processes that report to the main one, and what happens when one of them fails, hangs or is killed.

Nothing here waits for a lock that a killed process might hold: every worker has a pipe of its own, whose end also signals that
it is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from typing import Any, NamedTuple

__all__ = ["START_METHOD", "START_METHODS", "Send", "WorkerError", "Workers", "become_worker", "check_start_method"]

START_METHODS = multiprocessing.get_all_start_methods()
START_METHOD = "forkserver" if "forkserver" in START_METHODS else "spawn"
"""The one that is safe with threads and, where there is a choice, fast."""
PATIENCE = 2.0
"""Seconds that a worker has to end by itself before it is terminated."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""The environment of a process with one thread."""

Send = Callable[[Any], None]
Task = Callable[..., None]


class WorkerError(RuntimeError):
    """A worker failed, or was killed repeatedly.

    Args:
        summary: Which worker, and how.
        details: Its traceback, if any.
    """

    def __init__(self, summary: str, details: str = "") -> None:
        super().__init__(f"{summary}\n{details}".strip())
        self.summary, self.details = summary, details


def check_start_method(name: str) -> None:
    """ValueError for a start method that Python does not have here."""
    if name not in START_METHODS:
        raise ValueError(f"start_method must be one of {', '.join(START_METHODS)}, got {name!r}")


class _Failure(NamedTuple):
    """The last report of a worker that raised an exception."""

    diverged: bool
    message: str
    traceback: str


class _NobodyListens(BaseException):
    """The main process is gone or has heard enough; no task that handles exceptions may keep it."""


class Workers:
    """Processes that run a task and report; a context, at whose end none of them is left.

    Worker i runs `task(send, *arguments(i, restarts))`, and reports by `send`. It uses one thread for NumPy and Torch, ignores
    Ctrl-C, which the main process handles, and ends at once when the main process is gone. A worker that was killed is started
    again, `max_restarts` times in all, after `on_death` was called with its number. `preload` names modules that a fork server
    imports once for all.
    """

    def __init__(
        self,
        task: Task,
        arguments: Callable[[int, int], tuple[Any, ...]],
        n_workers: int,
        start_method: str,
        on_death: Callable[[int], None] = lambda number: None,
        max_restarts: int = 10,
        preload: tuple[str, ...] = (),
    ) -> None:
        self.task, self.arguments, self.on_death = task, arguments, on_death
        self.max_restarts, self.restarts = max_restarts, 0
        self.context: Any = multiprocessing.get_context(start_method)
        if start_method == "forkserver":
            self.context.set_forkserver_preload(["__main__", "fw_rl.fork_server", task.__module__, *preload])
        self.n_workers, self.processes = n_workers, dict[int, Any]()
        self._numbers: dict[connection.Connection, int] = {}
        self._ready: Iterator[Any] = iter(())

    def __enter__(self) -> Workers:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether another report can come."""
        return bool(self._numbers)

    def start(self) -> None:
        """Start all workers, or none if one of them cannot be started; `stop` must be called in the end."""
        try:
            for number in range(self.n_workers):
                self._start(number)
        except BaseException:
            self.stop()
            raise

    def next_report(self, timeout: float | None) -> tuple[int, Any] | None:
        """A worker's number and what it sent; None if nothing came within `timeout` seconds, or a worker has ended.

        Raises WorkerError if a worker fails or is killed once too often, and FloatingPointError if a worker does.
        """
        pipe = next(self._ready, None)
        if pipe is None:
            self._ready = iter(connection.wait(list(self._numbers), timeout))
            pipe = next(self._ready, None)
        if pipe is None:
            return None
        number = self._numbers[pipe]  # type: ignore[index]
        try:
            report = pipe.recv()  # type: ignore[union-attr]
        except (EOFError, OSError):  # the second is an end during a report
            self._end(number, pipe)  # type: ignore[arg-type]
            return None
        if isinstance(report, _Failure):
            failure = WorkerError(f"worker {number} failed: {report.message}", report.traceback)
            if report.diverged:
                raise FloatingPointError(report.message) from failure
            raise failure
        return number, report

    def stop(self) -> None:
        """End all workers: they end by themselves when nobody listens, and else by force."""
        for pipe in self._numbers:
            pipe.close()
        self._numbers.clear()
        started = list(self.processes.values())
        for force in (None, "terminate", "kill"):
            for process in started:
                if force is not None and process.is_alive():
                    getattr(process, force)()
            deadline = time.monotonic() + PATIENCE
            for process in started:
                process.join(max(deadline - time.monotonic(), 0.0))
        for process in started:
            process.join()
            process.close()
        self.processes.clear()

    def _start(self, number: int) -> None:
        ours, theirs = self.context.Pipe(duplex=False)
        task = (self.task, theirs, self.arguments(number, self.restarts))
        process = self.context.Process(target=_run, args=task, name=f"worker {number}", daemon=True)
        with _one_thread(), _interrupts_put_off():
            process.start()
            theirs.close()  # so that the pipe ends with the worker
            self.processes[number] = process
            self._numbers[ours] = number

    def _end(self, number: int, pipe: connection.Connection) -> None:
        """A worker is gone: by itself, which is fine, or by a signal, and then another takes its place."""
        del self._numbers[pipe]
        pipe.close()
        process = self.processes[number]
        process.join()
        if process.exitcode == 0:
            return
        self.on_death(number)
        self.restarts += 1
        if process.exitcode > 0:
            raise WorkerError(f"worker {number} ended with code {process.exitcode}, as its last words may explain")
        cause = f"was killed by signal {-process.exitcode}"
        if self.restarts > self.max_restarts:
            before = f", after {self.max_restarts} workers had been started again" if self.max_restarts else ""
            raise WorkerError(f"worker {number} {cause}{before}")
        warnings.warn(f"worker {number} {cause}: another takes its place", stacklevel=4)
        self._start(number)


def _run(task: Task, pipe: connection.Connection, arguments: tuple[Any, ...]) -> None:
    """The whole life of a worker."""
    become_worker()

    def send(report: Any) -> None:
        try:
            pipe.send(report)
        except ConnectionError as error:
            raise _NobodyListens from error

    with suppress(_NobodyListens):
        try:
            task(send, *arguments)
        except (Exception, SystemExit) as error:
            diverged = isinstance(error, FloatingPointError)
            message = str(error) if diverged else f"{type(error).__name__}: {error}"
            send(_Failure(diverged, message, traceback.format_exc()))


def become_worker() -> None:
    """Make this process a worker: one thread, deaf to Ctrl-C, which the main process handles, and gone when that is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked process has the main one's handler
    os.environ.update(_ONE_THREAD)  # which Torch reads when it is imported
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Gives processes that start here an environment for one thread, which libraries read when they are imported."""
    before = {name: os.environ[name] for name in _ONE_THREAD if name in os.environ}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name in _ONE_THREAD:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _interrupts_put_off() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM to the end of this; processes that start here never get the first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda number, frame: heard.append(number)) for number in numbers]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ()) if hasattr(signal, "pthread_sigmask") else None  # not on Windows
    try:
        if mask is not None:
            resource_tracker.ensure_running()  # which unblocks it once it has started
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])
