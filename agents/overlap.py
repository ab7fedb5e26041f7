"""Learning from one rollout in a thread while the next one is collected."""

from __future__ import annotations

import copy
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Self

import torch
from stable_baselines3.common.logger import Logger

from fw_rl.agents.optimization import torch_threads
from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.rollout import RecurrentRollout
from fw_rl.agents.saving import SavedAgent
from fw_rl.agents.scaling import RunningStatistics
from fw_rl.cells import State, Stepper

__all__ = ["OverlappingAgent"]


class OverlappingAgent(SavedAgent):
    """An agent that can learn from a rollout while it collects the next one.

    The main thread collects, so that environments and callbacks notice nothing. There a copy of the policy acts, and another
    thread learns. Whoever asks for `policy`, as to save or to evaluate it, waits until the update is done.
    """

    rollout_buffer: RecurrentRollout  # type: ignore[assignment]
    overlap: bool
    torch_threads: int | None
    _stepper: Stepper | None
    _background: _Background | None = None
    _generator: torch.Generator | None = None  # of what learning draws; None is Torch's own

    @property
    def policy(self) -> RecurrentActorCriticPolicy:  # type: ignore[override]
        if self._background is not None:
            self._background.finish()
        return self._policy

    @policy.setter
    def policy(self, policy: RecurrentActorCriticPolicy) -> None:
        self._policy = policy

    @property
    def _actor(self) -> RecurrentActorCriticPolicy:
        """The policy that acts."""
        return self._policy if self._background is None else self._background.actor

    @property
    def _last_state(self) -> State | None:
        """The memory's state after the last step, which goes with `_last_obs`."""
        return None if self._stepper is None else self._stepper.state

    @_last_state.setter
    def _last_state(self, state: State) -> None:
        self._stepper = self._actor.cell.stepper(state)

    def learn(self, *args: Any, **kwargs: Any) -> Self:
        if self.verbose and self.torch_threads not in (None, torch.get_num_threads()):
            print(f"Torch has {self.torch_threads} of {torch.get_num_threads()} threads while it learns; see `threads`")
        with torch_threads(self.torch_threads):
            if not self.overlap:
                return super().learn(*args, **kwargs)
            with _Background(self):
                return super().learn(*args, **kwargs)

    def _begin_to_act(self) -> RecurrentActorCriticPolicy:
        """The policy that acts in the next rollout, which scales by all that has been seen."""
        if self._background is not None:
            self._background.renew_actor()
        self._actor.observation_scaling.refresh()
        return self._actor


class _Background:
    """The updates of an agent in a thread; a context, at whose end none is left.

    What update n has learned acts from rollout n + 2 on: a rollout is learned from by a policy one update newer than the one
    that acted. If somebody waits for the update before a rollout begins, it acts in that one already.
    """

    def __init__(self, agent: OverlappingAgent) -> None:
        policy = agent.policy
        shared = [policy.optimizer, *(part for part in policy.modules() if isinstance(part, RunningStatistics))]
        self.actor = copy.deepcopy(policy, {id(part): part for part in shared})
        self._agent, self._learner = agent, agent
        spaces, size = (agent.observation_space, agent.action_space), dict(n_envs=agent.n_envs)
        discounts = dict(gamma=agent.gamma, gae_lambda=agent.gae_lambda)
        self._spare = RecurrentRollout(agent.n_steps, *spaces, agent.device, **discounts, **size, **agent.rollout_buffer_kwargs)
        self._before: dict[str, Any] = {}
        self._pool = ThreadPoolExecutor(1, "learner")
        self._update: Future[None] | None = None

    def __enter__(self) -> None:
        self._agent.train = self.start  # type: ignore[method-assign]  # SB3's loop calls it after each rollout
        self._connect(self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        del self._agent.train
        try:
            with suppress(*[Exception] if kind else []):  # one error is enough
                self.finish()
        finally:
            self._pool.shutdown()
            self._connect(None)
            if self._agent.rollout_buffer.pos == 0:
                self._agent.rollout_buffer = self._spare

    def start(self) -> None:
        """Learn from the agent's rollout in the thread, and give the agent another one to fill."""
        agent, rollout = self._agent, self._agent.rollout_buffer
        rollout.keep_evaluation()
        policy = agent.policy
        policy.observation_scaling.load_state_dict(self.actor.observation_scaling.state_dict())  # with which it acted
        self.renew_actor()
        learner = self._learner = copy.copy(agent)
        del learner.train
        learner.set_logger(Logger(None, []))
        learner._background, learner._generator = None, torch.Generator()
        learner._generator.manual_seed(torch.initial_seed() + agent.num_timesteps)
        agent.rollout_buffer, self._spare = self._spare, rollout
        agent.rollout_buffer.reset()
        self._before = vars(learner).copy()
        self._update = self._pool.submit(learner.train)

    def renew_actor(self) -> None:
        """Let what has been learned act, unless an update is on its way."""
        if self._update is None:
            self.actor.load_state_dict(self._agent.policy.state_dict())

    def finish(self) -> None:
        """Wait for the update, if any, and take over what it has logged and set; raises what it raised."""
        if self._update is None:
            return
        error = self._update.exception()  # an interrupt may end the wait
        self._update = None
        if error is not None:
            raise error
        now, logger = vars(self._learner), self._learner.logger
        vars(self._agent).update({name: value for name, value in now.items() if self._before.get(name) is not value})
        for name, value in logger.name_to_value.items():
            self._agent.logger.record(name, value, logger.name_to_excluded[name])

    def _connect(self, background: _Background | None) -> None:
        """Let the agent act by the copy of its policy, or by itself again, from the memory's state on that it has."""
        agent, state = self._agent, self._agent._last_state
        agent._background = background
        if state is not None:
            agent._last_state = state
