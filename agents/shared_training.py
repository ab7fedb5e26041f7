"""A worker of A3C: it learns like `RecurrentA2C`, on parameters in shared memory and without locks."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper
from torch import Tensor, nn

from fw_rl.agents.a2c import RecurrentA2C
from fw_rl.agents.scaling import RunningStatistics
from fw_rl.agents.update_log import memory_metrics
from fw_rl.processes import Send


class SharedTraining(NamedTuple):
    """What the main process and the workers share, in shared memory and without locks."""

    parameters: dict[str, Tensor]
    statistics: list[dict[str, Tensor]]  # the optimizer's for each parameter; a worker may have its own
    frames: Tensor  # of each worker since `learn` began, which only that worker writes
    wants_memory_metrics: Tensor  # whether the next report is to have them
    started_at: int
    total: int  # frames at which training ends, with those before it started

    @property
    def timesteps(self) -> int:
        return self.started_at + int(self.frames.sum())


class RolloutReport(NamedTuple):
    """A worker's report of a rollout: infos of the episodes that ended, and what to log."""

    infos: list[dict[str, Any]]
    metrics: dict[str, float]


def work(send: Send, packed: CloudpickleWrapper, shared: SharedTraining, number: int) -> None:
    """The task of a worker: rollout after rollout until all workers together have enough frames."""
    make_env, arguments = packed.var
    learner = WorkerA2C(env=make_env(), device="cpu", **arguments)
    learner.join(shared, number)
    while shared.timesteps < shared.total:
        send(learner.learn_rollout())


class WorkerA2C(RecurrentA2C):
    """A2C of one worker, whose updates go to the shared parameters."""

    def join(self, shared: SharedTraining, number: int) -> None:
        """Take part in the training of these parameters."""
        self.shared, self.number, self._of_worker = shared, number, f" of worker {number}"
        self.set_logger(Logger(None, []))
        _, self._no_callback = self._setup_learn(shared.total)
        self.infos: list[dict[str, Any]] = []
        state = self.policy.state_dict()
        self._pairs = [(state[name], shared.parameters[name]) for name in shared.parameters]
        self._running_statistics = [
            (part, _in_common(part, shared.parameters, name))
            for name, part in self.policy.named_modules()
            if isinstance(part, RunningStatistics)
        ]
        counted = {id(buffer) for part, _ in self._running_statistics for buffer in part.buffers()}
        self._buffers = [(own, shared.parameters[name]) for name, own in self.policy.named_buffers() if id(own) not in counted]
        self._common = [nn.Parameter(shared.parameters[name]) for name, _ in self.policy.named_parameters()]
        make_optimizer: Any = self.policy.optimizer_class
        optimizer = make_optimizer(self._common, lr=self.lr_schedule(1), **self.policy.optimizer_kwargs)
        optimizer.state.update(zip(self._common, shared.statistics, strict=True))
        self.policy.optimizer = optimizer

    def learn_rollout(self) -> RolloutReport:
        """Act with a copy of the shared parameters, then update these once, and the statistics with what was seen."""
        for own, common in self._pairs:
            own.copy_(common)
        before = [copy.deepcopy(statistics) for statistics, _ in self._running_statistics]
        assert self.env is not None
        self.collect_rollouts(self.env, self._no_callback, self.rollout_buffer, self.n_steps)
        self.shared.frames[self.number] += self.n_steps * self.n_envs
        self.num_timesteps = self.shared.timesteps
        self._update_current_progress_remaining(self.num_timesteps, self.shared.total)
        self.train()
        for own, common in self._buffers:
            common.copy_(own)
        for (statistics, of_all), known in zip(self._running_statistics, before, strict=True):
            of_all.catch_up(statistics, known)
        metrics = {name: float(value) for name, value in self.logger.name_to_value.items()}
        if self.shared.wants_memory_metrics:
            self.shared.wants_memory_metrics.fill_(False)
            metrics |= memory_metrics(self.policy, self.rollout_buffer)
        infos, self.infos = self.infos, []
        return RolloutReport(infos, metrics)

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        assert dones is not None
        keys = ("episode", "is_success")
        self.infos += [{key: infos[i][key] for key in keys if key in infos[i]} for i in np.flatnonzero(dones)]

    def _apply_gradients(self) -> None:
        """Hand over the gradient tensors themselves: none is left behind that a later `zero_grad` could miss."""
        for common, own in zip(self._common, self.policy.parameters(), strict=True):
            common.grad, own.grad = own.grad, None
        self.policy.optimizer.step()


def _in_common(statistics: RunningStatistics, shared: dict[str, Tensor], name: str) -> RunningStatistics:
    """Statistics of that name in the shared memory."""
    twin = copy.deepcopy(statistics)
    twin.load_state_dict({part: shared[f"{name}.{part}"] for part in twin.state_dict()}, assign=True)
    return twin


def optimizer_statistics(optimizer: torch.optim.Optimizer) -> list[dict[str, Tensor]]:
    """The optimizer's state for each parameter, created as zero if it does not exist."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not optimizer.state:
        twin = copy.deepcopy(optimizer)
        twins = [parameter for group in twin.param_groups for parameter in group["params"]]
        for parameter in twins:
            parameter.grad = torch.zeros_like(parameter)
        twin.step()
        for own, parameter in zip(parameters, twins, strict=True):
            optimizer.state[own] = {name: torch.zeros_like(part) for name, part in twin.state[parameter].items()}
    return [optimizer.state[parameter] for parameter in parameters]


def share_memory(tensors: list[Tensor]) -> None:
    """Move tensors to shared memory, those of a type into one block: a process cannot have hundreds of blocks."""
    for dtype in {tensor.dtype for tensor in tensors}:
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        whole = torch.empty(sum(tensor.numel() for tensor in alike), dtype=dtype).share_memory_()
        for tensor, part in zip(alike, whole.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.data = part.view(tensor.shape).copy_(tensor.detach())
