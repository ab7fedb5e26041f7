"""Trainings as tasks of a Ray cluster; needs Ray, `pip install 'fw-rl[ray]'`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from fw_rl.agents.ray_session import ray_session  # isort: skip (it sets the environment that Ray reads when imported)

import ray
import torch
from ray.exceptions import RayError
from ray.util.queue import Queue

from fw_rl.experiments.search.learning import Learning, Progress, Trainings, learn
from fw_rl.experiments.settings import RunSettings
from fw_rl.processes import WorkerError

__all__ = ["OnRay"]


class OnRay(Trainings):
    """What `SideBySide` does, with each training as a task that takes one core, on whichever machine of a cluster has it.

    `jobs`: tasks at a time. `address`: of the cluster; None starts Ray on this machine. Ray begins a task anew if its machine
    is lost. Raises WorkerError from `events` if a training meets an exception, or is lost again and again.
    """

    def __init__(self, jobs: int, eval_episodes: int, address: str | None = None) -> None:
        super().__init__(jobs, eval_episodes)
        self.address = address
        self._session = ExitStack()
        self._train = ray.remote(num_cpus=1)(_train)

    def __enter__(self) -> OnRay:
        self._session.enter_context(ray_session(self.address, self.jobs))
        self._told = Queue(actor_options=dict(num_cpus=0))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        self._told.shutdown()
        self._session.close()

    def start(self, key: int, config: RunSettings, parameters: dict[str, Any]) -> None:
        self._running[key] = self._train.remote(self._told, key, config, parameters, self.eval_episodes)

    def stop(self, key: int) -> None:
        ray.cancel(self._running.pop(key), force=True)

    def events(self, timeout: float = 0.5) -> Iterator[tuple[int, Progress | Learning]]:
        ended, _ = ray.wait(list(self._running.values()), num_returns=len(self._running), timeout=timeout)
        for key, progress in self._told.get_nowait_batch(self._told.qsize()):
            if key in self._running:  # else it was stopped
                yield key, progress
        for key in self.keys:
            if self._running.get(key) in ended:
                try:
                    learning = ray.get(self._running[key])
                except RayError as error:
                    raise WorkerError(f"training {key} failed on Ray", str(error)) from error
                del self._running[key]
                yield key, learning


def _train(told: Queue, key: int, config: RunSettings, parameters: dict[str, Any], eval_episodes: int) -> Learning:
    torch.set_num_threads(1)
    events: list[Learning] = []

    def send(event: Progress | Learning) -> None:
        if isinstance(event, Learning):
            events.append(event)
        else:
            told.put((key, event))

    learn(send, config, parameters, eval_episodes)
    return events[0]
