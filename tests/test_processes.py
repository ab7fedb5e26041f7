"""Worker processes report, fail, hang and are killed, and none is left behind; see test_a3c.py for all of it in a training."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from fw_rl import processes
from fw_rl.processes import START_METHODS, WorkerError, Workers
from tests.worker_tasks import count, describe, fail, give_up, leave, say, wait

EVERY_START_METHOD = pytest.mark.parametrize(
    "start_method",
    [method if method == "fork" else pytest.param(method, marks=pytest.mark.processes) for method in START_METHODS],
)
BIG = b"." * 2**20
"""More than a pipe holds: who sends it waits until it is read."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.5)


@pytest.fixture(autouse=True)
def nothing_is_left(impatient):
    yield
    assert multiprocessing.active_children() == []
    assert list(Path("/dev/shm").glob(f"torch_{os.getpid()}_*")) == []


def start(task, *arguments, n_workers=1, start_method="forkserver", **kwargs):
    return Workers(task, lambda number, restarts: arguments, n_workers, start_method, **kwargs)


def all_reports(running):
    while running.running:
        report = running.next_report(timeout=1.0)
        if report is not None:
            yield report


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Reports.


@EVERY_START_METHOD
def test_every_report_arrives_once_and_in_order(start_method):
    shared = torch.zeros(1).share_memory_()
    with Workers(count, lambda number, restarts: (50, shared, (number, restarts)), 2, start_method) as running:
        reports = list(all_reports(running))
    for number in range(2):
        assert [report for sender, report in reports if sender == number] == [((number, 0), i) for i in range(50)]
    assert 50 < shared <= 100  # without a lock


@EVERY_START_METHOD
def test_a_worker_has_one_thread_and_ignores_ctrl_c(start_method):
    before = dict(os.environ), signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with start(describe, start_method=start_method) as running:
        assert [report for _, report in all_reports(running)] == [dict(torch=1, environment={"1"}, parent=os.getpid()), "deaf"]
    assert (dict(os.environ), signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before


def test_nothing_to_report_is_none():
    with start(wait) as running:
        assert running.next_report(timeout=60.0) is not None
        assert running.next_report(timeout=0.05) is None
        assert running.running


def test_workers_may_be_started_from_a_thread():
    reports = []

    def run():
        with start(say, "hello") as running:
            reports.extend(all_reports(running))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert reports == [(0, "hello")]


# Failures.


@pytest.mark.parametrize("error", [KeyError("cheese"), SystemExit(0)], ids=lambda error: type(error).__name__)
def test_an_exception_comes_with_number_and_traceback(error):
    with pytest.raises(WorkerError) as failure, start(fail, error, n_workers=2) as running:
        assert {report for _, report in all_reports(running)} == {"fine so far"}
    number = failure.value.summary.split()[1].rstrip(":")
    assert number in "01"
    assert failure.value.summary == f"worker {number} failed: {type(error).__name__}: {error}"
    assert "in fail\n    raise error\n" in failure.value.details
    assert str(failure.value) == f"{failure.value.summary}\n{failure.value.details}".strip()


def test_a_diverged_net_is_no_failure_of_a_worker():
    with (
        pytest.raises(FloatingPointError, match=r"^too large$") as failure,
        start(fail, FloatingPointError("too large")) as running,
    ):
        list(all_reports(running))
    assert failure.value.__cause__.summary == "worker 0 failed: too large"


def test_a_report_that_cannot_be_sent():
    with (
        pytest.raises(WorkerError, match=r"^worker 0 failed: .*pickle"),
        start(lambda send: send(threading.Lock()), start_method="fork") as running,
    ):
        list(all_reports(running))


def test_an_argument_that_cannot_be_sent():
    with pytest.raises(TypeError, match="cannot pickle"), start(say, threading.Lock(), n_workers=2):
        pass


def test_a_process_that_ends_with_an_error_stays_ended():
    dead = []
    with pytest.raises(WorkerError, match=r"^worker 0 ended with code 3"), start(leave, 3, on_death=dead.append) as running:
        list(all_reports(running))
    assert dead == [0]


def test_an_error_in_the_main_process_ends_the_workers():
    with pytest.raises(ZeroDivisionError), start(wait, n_workers=2) as running:
        pids = [running.next_report(timeout=60.0)[1] for _ in range(2)]
        raise ZeroDivisionError
    assert not any(is_alive(pid) for pid in pids)


# Kills.


@EVERY_START_METHOD
def test_a_worker_that_is_killed_amid_a_report_is_replaced(start_method):
    dead = []
    arguments = {0: ("first", BIG, "never sent"), 1: ("second",)}
    with Workers(say, lambda number, restarts: arguments[restarts], 1, start_method, on_death=dead.append) as running:
        assert running.next_report(timeout=60.0) == (0, "first")
        (pipe,) = running._numbers
        assert pipe.poll(timeout=60.0)  # it has begun
        running.processes[0].kill()
        with pytest.warns(UserWarning, match=r"^worker 0 was killed by signal 9: another takes its place$"):
            assert running.next_report(timeout=60.0) is None
        assert dead == [0]
        assert list(all_reports(running)) == [(0, "second")]


def test_what_a_killed_worker_had_reported_is_not_lost():
    with start(say, *range(100)) as running:
        running.processes[0].join()
        assert list(all_reports(running)) == [(0, i) for i in range(100)]
    with start(wait) as running:
        (pipe,) = running._numbers
        assert pipe.poll(timeout=60.0)
        pid = running.processes[0].pid
        running.processes[0].kill()
        running.processes[0].join()
        assert running.next_report(timeout=60.0) == (0, pid)
        with pytest.warns(UserWarning, match="killed by signal 9"):
            assert running.next_report(timeout=60.0) is None


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:worker 0 was killed")
def test_workers_that_are_killed_again_and_again_end_the_run():
    dead = []
    with (
        pytest.raises(WorkerError, match=r"^worker 0 was killed by signal 9, after 3 workers had been started again$"),
        start(give_up, max_restarts=3, on_death=dead.append) as running,
    ):
        list(all_reports(running))
    assert dead == [0] * 4


PROGRAM = """
import sys, time
from fw_rl.processes import Workers
from tests.worker_tasks import wait
Workers(wait, lambda number, restarts: (), 1, "forkserver", preload=("slow_to_import",)).start()
"""


@pytest.mark.processes
@pytest.mark.skipif("forkserver" not in START_METHODS, reason="needs a fork server")
def test_a_fork_server_that_imports_ends_with_its_main_process(tmp_path):
    note = tmp_path / "pid"
    (tmp_path / "slow_to_import.py").write_text(
        f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    )
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stderr=subprocess.DEVNULL) as main:
        wait_until(lambda: note.exists() and note.read_text())
        main.kill()
    wait_until(lambda: not is_alive(int(note.read_text())))


def wait_until(happened):
    deadline = time.monotonic() + 60.0
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# The end.


@pytest.mark.processes
def test_workers_that_report_end_by_themselves(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 60.0)
    shared = torch.zeros(1).share_memory_()
    with start(count, 10**9, shared, BIG, n_workers=2) as running:
        assert running.next_report(timeout=60.0) is not None

        def forbidden():
            raise AssertionError("by force")

        for process in running.processes.values():
            process.terminate = process.kill = forbidden


@pytest.mark.parametrize("start_method", ["fork", pytest.param("forkserver", marks=pytest.mark.processes)])
@pytest.mark.parametrize("ignored", [(), (signal.SIGTERM,)], ids=["hangs", "hangs and is deaf"])
def test_workers_that_hang_are_ended_by_force(ignored, start_method):
    asked = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))  # which a fork inherits
    try:
        with start(wait, *ignored, n_workers=2, start_method=start_method) as running:
            pids = [running.next_report(timeout=60.0)[1] for _ in range(2)]
            kills = []
            for process in running.processes.values():
                process.kill = lambda kill=process.kill: kills.append(kill())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not any(is_alive(pid) for pid in pids)
    assert len(kills) == (2 if ignored else 0)


class Interrupting:
    """An argument, during whose journey to the worker Ctrl-C is pressed, or another signal comes."""

    def __init__(self, number=signal.SIGINT):
        self.number = number

    def __reduce__(self):
        os.kill(os.getpid(), self.number)
        return int, (signal.SIGTERM,)


@pytest.mark.filterwarnings("ignore:worker 0 was killed")
def test_sigterm_while_a_worker_starts_is_heard_afterwards():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with start(say, "hello", Interrupting(signal.SIGTERM)) as running:
            assert heard == [signal.SIGTERM]
            assert list(all_reports(running)) == [(0, "hello"), (0, signal.SIGTERM)]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ctrl_c_while_a_worker_starts_is_not_lost():
    with pytest.raises(KeyboardInterrupt), start(wait, Interrupting(), n_workers=2):
        raise AssertionError("the interrupt came too late")
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with start(say, "hello", Interrupting()) as running:
            assert heard == [signal.SIGINT]
            assert list(all_reports(running)) == [(0, "hello"), (0, signal.SIGTERM)]
    finally:
        signal.signal(signal.SIGINT, before)
