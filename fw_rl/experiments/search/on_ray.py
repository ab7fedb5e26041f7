"""Trainings as tasks of a Ray cluster; needs Ray, `pip install 'fw-rl[ray]'`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

from fw_rl.agents.ray_session import ray_session  # isort: skip (it sets the environment that Ray reads when imported)

import ray
import torch
from ray.exceptions import RayError
from ray.util.queue import Queue

from fw_rl.experiments.search.learning import Job, Learning, Progress, Trainings, learn
from fw_rl.processes import WorkerError

__all__ = ["OnRay"]


class OnRay(Trainings):
    """Trainings as tasks of one core each, on any machine that has it free; Ray restarts a task if its machine is lost.

    Without an address, HOST:PORT of the cluster, Ray is started on this machine.
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

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._told.shutdown()
        self._session.close()

    def start(self, key: int, job: Job) -> None:
        self._running[key] = self._train.remote(self._told, key, job, self.eval_episodes)

    def stop(self, key: int) -> None:
        ray.cancel(self._running.pop(key), force=True)

    def events(self, timeout: float = 0.5) -> Iterator[tuple[int, Progress | Learning]]:
        if not self._running:
            time.sleep(timeout)
            return
        ended, _ = ray.wait(list(self._running.values()), num_returns=len(self._running), timeout=timeout)
        for key, event in self._told.get_nowait_batch(self._told.qsize()):
            if key in self._running:  # else it was stopped
                if isinstance(event, Learning):
                    del self._running[key]
                yield key, event
        for key in self.keys:
            if self._running[key] in ended:  # without having reported what it learned
                try:
                    ray.get(self._running[key])
                except RayError as error:
                    raise WorkerError(f"training {key} failed on Ray", str(error)) from error


def _train(told: Queue, key: int, job: Job, eval_episodes: int) -> None:
    torch.set_num_threads(1)
    learn(lambda event: told.put((key, event)), job, eval_episodes)
