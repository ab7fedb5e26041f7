"""A small version of `make faults`: each kind of fault some times."""

import signal

import pytest

from tests.faults.command_lines import TOGETHER, count_command_lines, wrong_command_lines
from tests.faults.count import Count, table
from tests.faults.damage import count_damages
from tests.faults.kills import count_full_disks, count_interrupts, count_kills, count_worker_kills
from tests.faults.launch import Outcome


def test_a_count_is_clean_until_something_is_wrong():
    count = Count("a fault", tries=3)
    count.check(Outcome(2, "", "one line\n"), codes=(2,), lines=1)
    assert count.is_clean
    count.check(Outcome(0, "", ""), codes=(2,), lines=1)
    count.check(Outcome(None, "", ""), codes=(2,))
    count.check(Outcome(1, "", "Traceback (most recent call last)\n"), codes=(1,))
    assert count == Count("a fault", tries=3, tracebacks=1, hangs=1, wrong=1, long=1)
    assert table([count]).splitlines()[-1] == "| a fault | 3 | 1 | 1 | 1 | 1 | 0 |"


def test_the_same_seed_gives_the_same_command_lines():
    first, again, other = (list(wrong_command_lines(200, seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == 200
    assert len({tuple(line) for line in first}) > 150 > len(TOGETHER)


def test_damaged_checkpoints_are_refused():
    assert count_damages(60) == Count("damaged checkpoint", tries=60)


@pytest.mark.processes
def test_wrong_command_lines_get_one_line():
    assert count_command_lines(60, seed=1) == Count("wrong command line", tries=60)


@pytest.mark.slow  # how long a training may take depends on who shares the cores
@pytest.mark.parametrize("algorithm", ["a2c", "ppo", "a3c"])
def test_a_killed_training_loses_nothing(algorithm):
    assert count_kills(algorithm, 2) == Count(f"kill -9, {algorithm}", tries=2)


@pytest.mark.slow  # how long a training may take depends on who shares the cores
@pytest.mark.parametrize("algorithm", ["a3c", "ppo"])
def test_killed_workers_do_no_harm(algorithm):
    assert count_worker_kills(algorithm, 1).is_clean


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_any_moment_leaves_no_traceback(number):
    assert count_interrupts(number, 3).is_clean


@pytest.mark.slow
def test_a_full_disk_loses_nothing():
    assert count_full_disks(3) == Count("disk full, ppo", tries=3)
