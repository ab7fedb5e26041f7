"""Asynchronous advantage actor-critic (Mnih et al. 2016): workers without locks on parameters in shared memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper, VecEnvObs, VecEnvStepReturn
from torch import Tensor, nn

from fw_rl.agents.a2c import RecurrentA2C
from fw_rl.agents.checkpoint import CheckpointError, constructor_arguments, read_checkpoint
from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.restore import build_agent
from fw_rl.processes import START_METHOD, Send, Workers, check_start_method

__all__ = ["A3C"]

MakeEnv = Callable[[], GymEnv | VectorEnv]


class A3C(RecurrentA2C):
    """Asynchronous advantage actor-critic whose policy remembers, with the habits of SB3.

    Each of `n_workers` processes copies the shared parameters, acts for `n_steps` steps of its own environments, and applies
    the gradient to the shared parameters without a lock. The learning rate goes down with the frames of all workers together.
    Policy, chunk and loss are those of `RecurrentA2C`, and one worker does what it does. Callbacks, logs, evaluation and `save`
    belong to the main process; a callback's `_on_step` is called for every step of a chunk when the chunk has been reported.
    The `dones` and `infos` among its `locals` are those of the episodes that ended in the chunk, at its last step.

    `env`: a function that makes the environments of one worker (an SB3 `VecEnv`, a Gymnasium `VectorEnv` or `Env`), or an id.
    `n_workers`: processes, of one thread each. `shared_statistics`: the optimizer's running averages are one for all workers,
    as the A3C paper found most robust; else each has its own. `start_method`: "forkserver", "spawn" or "fork", as in Python's
    multiprocessing. The other arguments are those of `RecurrentA2C`.

    Raises ValueError for an environment where a function is wanted, for a `VecNormalize`, and for a number or a name that is
    not allowed.

    >>> from functools import partial
    >>> from fw_rl.envs import CatchVectorEnv
    >>> model = A3C("RecurrentPolicy", partial(CatchVectorEnv, 64, n=16, m=3), n_workers=2)
    >>> model = model.learn(total_timesteps=100_000)  # doctest: +SKIP
    """

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: MakeEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        n_workers: int = 2,
        shared_statistics: bool = True,
        start_method: str = START_METHOD,
        device: torch.device | str = "cpu",
        **kwargs: Any,
    ) -> None:
        if n_workers < 1:
            raise ValueError(f"n_workers is {n_workers}: it must be at least 1")
        check_start_method(start_method)
        if torch.device("cpu" if device == "auto" else device).type != "cpu":
            raise ValueError(f"device is {device!r}: the workers of A3C share their parameters in the processor's memory")
        self.n_workers, self.shared_statistics, self.start_method = n_workers, shared_statistics, start_method
        self._shared: _Shared | None = None
        self._own_statistics: list[list[dict[str, Tensor]]] = []
        made = None if env is None else self._wrap_env(env, monitor_wrapper=kwargs.get("monitor_wrapper", True))
        super().__init__(policy, made, learning_rate, device="cpu", **kwargs)

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return env if isinstance(env, Specimen) else Specimen(env, monitor_wrapper)

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

        Raises WorkerError if a worker meets an exception, with its traceback, or if workers are killed again and again. What
        had been learned is kept.
        """
        total_timesteps, callback = self._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self._shared, self._reported = self._share(total_timesteps), [0] * self.n_workers
        callback.on_training_start(locals(), globals())
        try:
            with Workers(_work, self._task, self.n_workers, self.start_method, on_death=self._forget_unreported) as workers:
                while workers.running:
                    callback.on_rollout_start()
                    report = workers.next_report(timeout=1.0)
                    if report is not None and not self._take(*report, callback, log_interval):
                        break
        finally:
            self._average_statistics()
            self._own_statistics = []
        callback.on_training_end()
        return self

    def _take(self, number: int, chunk: _Chunk, callback: BaseCallback, log_interval: int | None) -> bool:
        """Log one chunk of a worker and let the callbacks know of it; False if one of them asks to stop."""
        self._reported[number] += self.n_steps * self.n_envs
        for step in range(1, self.n_steps + 1):
            self.num_timesteps += self.n_envs
            infos = chunk.infos if step == self.n_steps else []
            dones = np.ones(len(infos), dtype=bool)
            callback.update_locals(locals())
            if not callback.on_step():
                return False
        self._update_info_buffer(infos, dones)
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        self._n_updates += 1
        for name, value in chunk.metrics.items():
            self.logger.record(name, value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        callback.update_locals(locals())
        callback.on_rollout_end()
        if log_interval is not None and self._n_updates % log_interval == 0:
            self.dump_logs(self._n_updates)
        return True

    def dump_logs(self, iteration: int = 0) -> None:
        """Write what was logged, with what the memory of a worker did; the next row has it of a later chunk."""
        OnPolicyAlgorithm.dump_logs(self, iteration)
        if self._shared is not None:
            self._shared.wants_memory_metrics.fill_(True)

    def save(self, path: str | os.PathLike[str]) -> None:  # type: ignore[override]
        """As `RecurrentA2C.save`, without running episodes: the workers of a later `learn`, however many, begin new ones.

        Where each worker has statistics of its own, their mean is saved.
        """
        self._average_statistics()
        super().save(path, include_state=False)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | os.PathLike[str],
        env: MakeEnv | str | None = None,
        device: torch.device | str = "cpu",
        **overrides: Any,
    ) -> Self:
        """As `RecurrentA2C.load`, with a function that makes the environments or an id, and any `n_workers`.

        Raises CheckpointError too for an agent that learned with a `VecNormalize`, if it is to learn on.
        """
        checkpoint = read_checkpoint(path)
        if env is not None and checkpoint.normalization is not None:
            raise CheckpointError(f"{checkpoint.path} goes with a VecNormalize, which the workers of A3C cannot share")
        return build_agent(cls, checkpoint, env, device, overrides)

    def _share(self, total_timesteps: int) -> _Shared:
        """Move parameters and statistics to shared memory."""
        _share_memory([*self.policy.parameters(), *self.policy.buffers()])
        statistics = _statistics(self.policy.optimizer)
        self._own_statistics = [] if self.shared_statistics else [_copy(statistics) for _ in range(self.n_workers)]
        for each in self._own_statistics or [statistics]:
            _share_memory([part for of_parameter in each for part in of_parameter.values()])
        return _Shared(
            parameters=dict(self.policy.state_dict()),
            statistics=statistics,
            frames=torch.zeros(self.n_workers, dtype=torch.int64).share_memory_(),
            wants_memory_metrics=torch.ones(1, dtype=torch.bool).share_memory_(),
            started_at=self.num_timesteps,
            total=total_timesteps,
        )

    def _task(self, number: int, restarts: int) -> tuple[Any, ...]:
        """The arguments of `_work` for a worker, and for those that take its place."""
        arguments = constructor_arguments(self)
        for name in ("n_workers", "shared_statistics", "start_method", "tensorboard_log", "verbose"):
            arguments.pop(name)
        arguments |= dict(policy=self.policy_class, seed=self._worker_seed(number, restarts))
        assert isinstance(self.env, Specimen) and self._shared is not None
        shared = self._shared._replace(statistics=self._own_statistics[number]) if self._own_statistics else self._shared
        return CloudpickleWrapper((self.env.make, arguments)), shared, number

    def _average_statistics(self) -> None:
        """Where each worker has statistics of its own, keep their mean."""
        if self._own_statistics:
            for mean, *own in zip(_statistics(self.policy.optimizer), *self._own_statistics, strict=True):
                for name, part in mean.items():
                    part.copy_(torch.stack([statistics[name] for statistics in own]).mean(dim=0))

    def _forget_unreported(self, number: int) -> None:
        """Once a worker is dead, count what it has reported and no more, so that others do the rest."""
        assert self._shared is not None
        self._shared.frames[number] = self._reported[number]

    def _worker_seed(self, number: int, restarts: int) -> int:
        """A seed for every worker and its substitutes; the first worker of a new run has that of A2C."""
        which = (number, restarts, self.num_timesteps)
        if self.seed is not None and not any(which):
            return int(self.seed)
        entropy = None if self.seed is None else (self.seed, *which)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


class Specimen(VecEnvWrapper):
    """The environments of one worker as the main process has them, for spaces and evaluation, and how to make more."""

    def __init__(self, make: MakeEnv | str, monitor_wrapper: bool) -> None:
        if isinstance(make, str):
            make = partial(gym.make, make)
        if not callable(make):
            raise ValueError(f"env is {make}: every worker makes its own, so give a function that makes it, or an id")
        self.make = make
        super().__init__(RecurrentA2C._wrap_env(make(), monitor_wrapper=monitor_wrapper))
        if unwrap_vec_normalize(self.venv) is not None:
            raise ValueError("env makes a VecNormalize, whose statistics the workers of A3C cannot share: use RecurrentA2C")

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        return self.venv.step_wait()


class _Shared(NamedTuple):
    """What the main process and the workers have in common, in shared memory and without locks.

    `parameters`: the policy's state by name. `statistics`: the optimizer's, for each parameter; a worker may have its own.
    `frames`: those of each worker since `learn` began, which only it writes.
    """

    parameters: dict[str, Tensor]
    statistics: list[dict[str, Tensor]]
    frames: Tensor
    wants_memory_metrics: Tensor
    started_at: int
    total: int

    @property
    def timesteps(self) -> int:
        return self.started_at + int(self.frames.sum())


class _Chunk(NamedTuple):
    """A worker's report: infos of the episodes that ended, and what is to be logged."""

    infos: list[dict[str, Any]]
    metrics: dict[str, float]


def _work(send: Send, packed: CloudpickleWrapper, shared: _Shared, number: int) -> None:
    """The task of a worker: chunk after chunk until all workers together have enough frames."""
    make_env, arguments = packed.var
    learner = _Learner(env=make_env(), device="cpu", **arguments)
    learner.join(shared, number)
    while shared.timesteps < shared.total:
        send(learner.learn_chunk())


class _Learner(RecurrentA2C):
    """A2C of one worker, whose updates go to the shared parameters."""

    def join(self, shared: _Shared, number: int) -> None:
        """Take part in the training of these parameters."""
        self.shared, self.number = shared, number
        self.set_logger(Logger(None, []))
        _, self._no_callback = self._setup_learn(shared.total)
        self.infos: list[dict[str, Any]] = []
        state = self.policy.state_dict()
        self._pairs = [(state[name], shared.parameters[name]) for name in shared.parameters]
        self._common = [nn.Parameter(shared.parameters[name]) for name, _ in self.policy.named_parameters()]
        make_optimizer: Any = self.policy.optimizer_class
        optimizer = make_optimizer(self._common, lr=self.lr_schedule(1), **self.policy.optimizer_kwargs)
        optimizer.state.update(zip(self._common, shared.statistics, strict=True))
        self.policy.optimizer = optimizer

    def learn_chunk(self) -> _Chunk:
        """Act with a copy of the shared parameters, and update them once."""
        for own, common in self._pairs:
            own.copy_(common)
        assert self.env is not None
        self.collect_rollouts(self.env, self._no_callback, self.rollout_buffer, self.n_steps)
        self.shared.frames[self.number] += self.n_steps * self.n_envs
        self.num_timesteps = self.shared.timesteps
        self._update_current_progress_remaining(self.num_timesteps, self.shared.total)
        self.train()
        metrics = {name: float(value) for name, value in self.logger.name_to_value.items()}
        if self.shared.wants_memory_metrics:
            self.shared.wants_memory_metrics.fill_(False)
            metrics |= self._memory_metrics()
        infos, self.infos = self.infos, []
        return _Chunk(infos, metrics)

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        assert dones is not None
        told = ("episode", "is_success")
        self.infos += [{key: infos[i][key] for key in told if key in infos[i]} for i in np.flatnonzero(dones)]

    def _apply_gradients(self) -> None:
        """Hand the gradients over, each tensor as it is: nothing is left behind that a later `zero_grad` could miss."""
        for common, own in zip(self._common, self.policy.parameters(), strict=True):
            common.grad, own.grad = own.grad, None
        self.policy.optimizer.step()


def _statistics(optimizer: torch.optim.Optimizer) -> list[dict[str, Tensor]]:
    """The optimizer's state for each parameter, made at zero if it has not begun."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not optimizer.state:
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        for parameter in parameters:
            for part in optimizer.state[parameter].values():
                part.zero_()
    return [optimizer.state[parameter] for parameter in parameters]


def _copy(statistics: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: part.clone() for name, part in of_parameter.items()} for of_parameter in statistics]


def _share_memory(tensors: list[Tensor]) -> None:
    """Move tensors to shared memory, those of a type into one piece: a process cannot be handed hundreds of pieces."""
    for dtype in {tensor.dtype for tensor in tensors}:
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        whole = torch.empty(sum(tensor.numel() for tensor in alike), dtype=dtype).share_memory_()
        for tensor, part in zip(alike, whole.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.data = part.view(tensor.shape).copy_(tensor.detach())
