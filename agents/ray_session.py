"""A Ray that is already running, that of a cluster, or one of our own; needs Ray, `pip install 'fw-rl[ray]'`."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

# Ray reads these when it is imported: a Ray of our own listens on the loopback interface only, and reports no usage.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import psutil
import ray

from fw_rl.processes import WorkerError

__all__ = ["ray_session"]

MARK = "FW_RL_RAY"
"""The environment variable whose value marks the processes of a Ray of our own."""
PATIENCE = 10.0
"""Seconds they have to end by themselves before they are killed."""


@contextmanager
def ray_session(address: str | None, cores: int) -> Iterator[None]:
    """A context in which this process is connected to Ray; an existing connection is kept.

    Without the address of a cluster, Ray starts here with at least so many cores, and ends with the context. Raises WorkerError
    if there is no Ray.
    """
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = dict(log_to_driver=False, logging_level="ERROR")
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    mark = uuid4().hex
    os.environ[MARK] = mark
    try:
        if address is not None:
            _check_reachable(address)
            ray.init(address=address, **quiet)
        else:
            cores = max(cores, os.cpu_count() or 1)
            ray.init(address="local", num_cpus=cores, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise WorkerError(f"no Ray at {address or 'this machine'}: {error}") from error
    finally:
        del os.environ[MARK]
    try:
        yield
    finally:
        ray.shutdown()
        _end(mark)


def _end(mark: str) -> None:
    """End what is left of Ray, such as a process started by a worker, if Ray was killed before it could end it."""
    deadline = time.monotonic() + PATIENCE
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _marked(mark: str) -> list[psutil.Process]:
    """The running processes that have inherited a mark; those that have ended and wait for their parent do not count."""
    processes = psutil.process_iter(["environ", "status"])
    alive = (process for process in processes if process.info["status"] != psutil.STATUS_ZOMBIE)
    return [process for process in alive if (process.info["environ"] or {}).get(MARK) == mark]


def _check_reachable(address: str) -> None:
    """Raises OSError if nothing listens at HOST:PORT: Ray itself would keep trying for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
