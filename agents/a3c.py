"""Asynchronous advantage actor-critic (Mnih et al. 2016): workers without locks on parameters in shared memory."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper
from torch import Tensor

from fw_rl.agents.checkpoint import constructor_arguments
from fw_rl.agents.environments import MakeEnv, WorkerVecEnv
from fw_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.shared_training import RolloutReport, SharedTraining, optimizer_statistics, share_memory, work
from fw_rl.arguments import require
from fw_rl.processes import START_METHOD, Workers, check_start_method

__all__ = ["A3C"]


class A3C(RecurrentOnPolicyAlgorithm):
    """Asynchronous advantage actor-critic with a policy that remembers, in the style of SB3.

    Each of `n_workers` processes copies the shared parameters, collects a rollout in its own environments, and applies the
    gradient of `RecurrentA2C` to the shared parameters without a lock (`fw_rl.agents.shared_training`). One worker does the
    same as `RecurrentA2C`. With `anneal` the rate decreases with the total frames of all workers. Callbacks, logs, evaluation
    and `save` belong to the main process; a callback's `_on_step` is called for every step of a rollout once the rollout has
    been reported. The `dones` and `infos` among its `locals` are those of the episodes that ended in the rollout, at its last
    step.

    Args:
        policy: "RecurrentPolicy", or a class derived from `RecurrentActorCriticPolicy`.
        env: A function that makes the environments of one worker (an SB3 `VecEnv`, a Gymnasium `VectorEnv` or `Env`), or an id.
        learning_rate: A number, or an SB3 schedule.
        n_workers: Processes, with one thread each.
        shared_statistics: Let all workers share the optimizer's running averages, which the A3C paper found most robust; else
            each has its own.
        start_method: "forkserver", "spawn" or "fork", as in Python's multiprocessing.
        device: "cpu" or "auto", which is the same.
        **kwargs: The other arguments of `RecurrentOnPolicyAlgorithm`.

    Raises:
        ValueError: For an environment instead of a function, for a `VecNormalize`, and for a number or a name that is not
            allowed.

    Examples:
        >>> from functools import partial
        >>> from fw_rl.envs import CatchVectorEnv
        >>> model = A3C("RecurrentPolicy", partial(CatchVectorEnv, 64, n=16, m=3), n_workers=2)
        >>> model = model.learn(total_timesteps=100_000)  # doctest: +SKIP
    """

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: MakeEnv | str | None,
        learning_rate: float | Schedule = 4e-3,
        n_workers: int = 2,
        shared_statistics: bool = True,
        start_method: str = START_METHOD,
        device: torch.device | str = "cpu",
        **kwargs: Any,
    ) -> None:
        require("n_workers", n_workers, n_workers >= 1, "at least 1")
        check_start_method(start_method)
        on_cpu = torch.device("cpu" if device == "auto" else device).type == "cpu"
        require("device", device, on_cpu, "'cpu', in whose memory the workers share their parameters")
        self.n_workers, self.shared_statistics, self.start_method = n_workers, shared_statistics, start_method
        self._shared: SharedTraining | None = None
        self._own_statistics: list[list[dict[str, Tensor]]] = []
        made = None if env is None else self._wrap_env(env, monitor_wrapper=kwargs.get("monitor_wrapper", True))
        super().__init__(policy, made, learning_rate, device="cpu", **kwargs)

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return env if isinstance(env, WorkerVecEnv) else WorkerVecEnv(env, monitor_wrapper)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str = "A3C",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for at least `total_timesteps` steps, counted over all workers; see SB3's `learn`.

        Raises:
            WorkerError: If a worker raises an exception, with its traceback, or if workers are killed repeatedly. What had been
                learned is kept.
        """
        total_timesteps, callback = self._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self._shared, self._reported = self._share(total_timesteps), [0] * self.n_workers
        callback.on_training_start(locals(), globals())
        try:
            with Workers(work, self._task, self.n_workers, self.start_method, on_death=self._forget_unreported) as workers:
                while workers.running:
                    callback.on_rollout_start()
                    report = workers.next_report(timeout=1.0)
                    if report is not None and not self._count(*report, callback, log_interval):
                        break
        finally:
            self._average_statistics()
            self._own_statistics = []
        callback.on_training_end()
        return self

    def _count(self, number: int, report: RolloutReport, callback: BaseCallback, log_interval: int | None) -> bool:
        """Log one rollout of a worker and call the callbacks; False if one of them asks to stop."""
        self._reported[number] += self.n_steps * self.n_envs
        for step in range(1, self.n_steps + 1):
            self.num_timesteps += self.n_envs
            infos = report.infos if step == self.n_steps else []
            dones = np.ones(len(infos), dtype=bool)
            callback.update_locals(locals())
            if not callback.on_step():
                return False
        self._update_info_buffer(infos, dones)
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        self._n_updates += 1
        for name, value in report.metrics.items():
            self.logger.record(name, value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        callback.update_locals(locals())
        callback.on_rollout_end()
        if log_interval is not None and self._n_updates % log_interval == 0:
            self.dump_logs(self._n_updates)
        return True

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log; the next row has the memory's metrics of a later rollout."""
        super().dump_logs(iteration)
        if self._shared is not None:
            self._shared.wants_memory_metrics.fill_(True)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """As `RecurrentOnPolicyAlgorithm.save`; a later `learn`, with however many workers, begins new episodes.

        Where each worker has statistics of its own, their mean is saved.
        """
        self._average_statistics()
        super().save(*args, **kwargs)

    def _share(self, total_timesteps: int) -> SharedTraining:
        """Move parameters and statistics to shared memory."""
        share_memory([*self.policy.parameters(), *self.policy.buffers()])
        statistics = optimizer_statistics(self.policy.optimizer)
        copies = 0 if self.shared_statistics else self.n_workers
        self._own_statistics = [copy.deepcopy(statistics) for _ in range(copies)]
        for each in self._own_statistics or [statistics]:
            share_memory([part for of_parameter in each for part in of_parameter.values()])
        return SharedTraining(
            parameters=dict(self.policy.state_dict()),
            statistics=statistics,
            frames=torch.zeros(self.n_workers, dtype=torch.int64).share_memory_(),
            wants_memory_metrics=torch.ones(1, dtype=torch.bool).share_memory_(),
            started_at=self.num_timesteps,
            total=total_timesteps,
        )

    def _task(self, number: int, restarts: int) -> tuple[Any, ...]:
        """The arguments of `work` for a worker and its replacements."""
        arguments = constructor_arguments(self)
        for name in ("n_workers", "shared_statistics", "start_method", "tensorboard_log", "verbose"):
            arguments.pop(name)
        arguments |= dict(policy=self.policy_class, seed=self._worker_seed(number, restarts))
        assert isinstance(self.env, WorkerVecEnv) and self._shared is not None
        shared = self._shared._replace(statistics=self._own_statistics[number]) if self._own_statistics else self._shared
        return CloudpickleWrapper((self.env.make, arguments)), shared, number

    def _average_statistics(self) -> None:
        """Where each worker has statistics of its own, keep their mean."""
        if self._own_statistics:
            for mean, *own in zip(optimizer_statistics(self.policy.optimizer), *self._own_statistics, strict=True):
                for name, part in mean.items():
                    part.copy_(torch.stack([statistics[name] for statistics in own]).mean(dim=0))

    def _forget_unreported(self, number: int) -> None:
        """Once a worker is dead, count only what it has reported, so that others do the rest."""
        assert self._shared is not None
        self._shared.frames[number] = self._reported[number]

    def _worker_seed(self, number: int, restarts: int) -> int:
        """A seed for every worker and its replacements; the first worker of a new run has that of A2C."""
        which = (number, restarts, self.num_timesteps)
        if self.seed is not None and not any(which):
            return int(self.seed)
        entropy = None if self.seed is None else (self.seed, *which)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])
