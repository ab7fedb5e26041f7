"""Proximal policy optimisation with a memory, as an SB3 algorithm."""

from __future__ import annotations

from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule, update_learning_rate
from torch import Tensor

from fw_rl.agents.loss import ClippedLoss, clipped_loss
from fw_rl.agents.minibatches import Minibatch, SequenceSampler
from fw_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from fw_rl.agents.optimization import matmul_precision
from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.update_log import log_update
from fw_rl.arguments import require

__all__ = ["RecurrentPPO"]

ADAPTATION = 1.5
"""The learning rate is multiplied or divided by this."""

FACTORS = (0.01, 10.0)
"""The adapted learning rate stays between these multiples of the given rate."""


class RecurrentPPO(RecurrentOnPolicyAlgorithm):
    """PPO (Schulman et al. 2017) with any memory cell: sb3-contrib's `RecurrentPPO` without an LSTM's state for every step.

    It learns from a rollout `n_epochs` times, in minibatches of whole sequences of `bptt_length` steps, each from the memory's
    state there while acting. The sequences of a minibatch are drawn at random from all environments and all times of the
    rollout, see `fw_rl.agents.minibatches.SequenceSampler`. With the same settings one rollout gives the same parameters as
    sb3-contrib's, except that the critic's error reaches a shared cell, and that no sequence is cut at random. The defaults
    were chosen on three tasks of `benchmarks/pomdp.py`, with sixteen environments.

    Args:
        policy: "RecurrentPolicy", or a class derived from `RecurrentActorCriticPolicy`.
        env: An SB3 `VecEnv`, a Gymnasium `VectorEnv` or `Env`, or an id.
        learning_rate: A number, or an SB3 schedule.
        n_steps: Steps of each environment in a rollout.
        batch_size: Steps of a minibatch, at least `bptt_length`: `batch_size // bptt_length` sequences. If it is below
            `n_steps`, a minibatch is by default one sequence.
        n_epochs: Passes over a rollout.
        gamma: Discount, from 0 to 1.
        gae_lambda: Lambda of the generalised advantages, from 0 to 1.
        clip_range: How far the probability of an action may change, as a fraction of it; a number, or an SB3 schedule.
        clip_range_vf: How far a value may change, a number or an SB3 schedule; None for no limit.
        normalize_advantage: Scale the advantages of a minibatch to mean 0 and standard deviation 1. None does so unless rewards
            are scaled: then it would only turn the small advantages of an agent that has learned into noise.
        ent_coef: Weight of the entropy, at least 0.
        vf_coef: Weight of the value error, at least 0.
        max_grad_norm: Norm to which a longer gradient is clipped, above 0.
        target_kl: Learning from a rollout stops once the approximate KL divergence from the policy that acted is above 1.5
            times this number; None never stops it.
        desired_kl: How far a rollout should move the policy, as the mean approximate KL divergence of its updates. While it is
            less than half as far, the learning rate is multiplied by 1.5, up to ten times what was given; whenever it is more
            than twice as far, the rate is divided by 1.5, and never rises again. None keeps the rate. A schedule, also one that
            a callback sets as `lr_schedule`, and a rate that `anneal` reduces are never adapted. Rudin et al. 2022 let the rate
            rise again, but then an agent that has learned falls back: it moves little, so its rate rises.
        optimizer: "rmsprop" or "adam".
        optimizer_eps: Its epsilon: gradients far below it, as of an agent that has learned, move the parameters little.
        anneal: Reduce a learning rate that is a number linearly to 0 over `learn`.
        bptt_length: Steps of a sequence, from 1 to `n_steps`; None takes the smaller of `n_steps` and `batch_size`.
        norm_reward: Divide rewards by the running deviation of the discounted return.
        **kwargs: The other arguments of `RecurrentOnPolicyAlgorithm`.

    Raises:
        ValueError: For a number or a name that is not allowed.

    Examples:
        >>> from fw_rl.envs import CatchVectorEnv
        >>> model = RecurrentPPO("RecurrentPolicy", CatchVectorEnv(8, n=8, m=2), n_steps=14, policy_kwargs=dict(cell="gru"))
        >>> model = model.learn(total_timesteps=112)
    """

    clip_range: float | Schedule
    clip_range_vf: float | Schedule | None
    target_kl: float | None
    desired_kl: float | None

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: GymEnv | VectorEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 128,
        batch_size: int = 256,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.9,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool | None = None,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 1.0,
        target_kl: float | None = 0.05,
        desired_kl: float | None = 0.01,
        optimizer: str = "adam",
        optimizer_eps: float = 1e-4,
        anneal: bool = False,
        bptt_length: int | None = None,
        norm_reward: bool = True,
        **kwargs: Any,
    ) -> None:
        given = bptt_length
        if bptt_length is None and 1 <= batch_size < n_steps:
            bptt_length = batch_size
        length = bptt_length or n_steps
        require("batch_size", batch_size, batch_size >= length, f"at least {length}, the steps of one sequence")
        require("n_epochs", n_epochs, n_epochs >= 1, "at least 1")
        require("clip_range", clip_range, clip_range is not None, "a number or a schedule")
        limits = dict(clip_range=clip_range, clip_range_vf=clip_range_vf, target_kl=target_kl, desired_kl=desired_kl)
        for name, value in limits.items():
            is_schedule = callable(value) and name.startswith("clip_range")
            require(name, value, value is None or is_schedule or (isinstance(value, Real) and value > 0), "above 0")
            setattr(self, name, float(value) if isinstance(value, Real) else value)
        self.batch_size, self.n_epochs = int(batch_size), n_epochs
        super().__init__(
            policy,
            env,
            learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            optimizer=optimizer,
            optimizer_eps=optimizer_eps,
            anneal=anneal,
            bptt_length=bptt_length,
            normalize_advantage=normalize_advantage,
            norm_reward=norm_reward,
            **kwargs,
        )
        self.bptt_length = given  # a file that is loaded with another batch has the default for that one

    def _setup_lr_schedule(self) -> None:
        super()._setup_lr_schedule()
        self._own_schedule = self.lr_schedule  # a callback may set another one, which is taken as it is
        self.learning_rate_factor, self.learning_rate_falls = 1.0, 0

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "RecurrentPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def train(self) -> None:
        """Learn `n_epochs` times from the last rollout.

        Raises:
            FloatingPointError: If loss or gradient is not finite; the parameters are those of the update before.
        """
        self._update_learning_rate(self.policy.optimizer)
        evaluated = self._evaluate_rollout()
        sampler = SequenceSampler(self.rollout_buffer, self.batch_size)
        self.policy.set_training_mode(True)
        losses: list[ClippedLoss] = []
        grad_norms: list[Tensor] = []
        for epoch in range(1, self.n_epochs + 1):
            self._n_updates += 1
            batches = (Minibatch(sequences, *evaluated[steps].unbind(2)) for sequences, steps in sampler)
            if not all(self._learn_from(batch, losses, grad_norms) for batch in batches):
                if self.verbose:
                    print(f"Epoch {epoch} of {self.n_epochs} stopped: approx_kl is {losses[-1].approx_kl:.3f}, see `target_kl`")
                break
        means = {name: np.mean([getattr(loss, name).item() for loss in losses]) for name in ClippedLoss._fields}
        self._log(epoch, means, grad_norms, evaluated)
        self._adapt_learning_rate(means["approx_kl"])

    def _update_learning_rate(self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer) -> None:
        factor = self.learning_rate_factor if self._adapts else 1.0
        rate = self.lr_schedule(self._current_progress_remaining) * factor
        self.logger.record("train/learning_rate", rate)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            update_learning_rate(optimizer, rate)

    @property
    def _adapts(self) -> bool:
        is_given = self.anneal or callable(self.learning_rate) or self.lr_schedule is not self._own_schedule
        return self.desired_kl is not None and not is_given

    def _adapt_learning_rate(self, approx_kl: float | np.floating) -> None:
        """Change the rate of the next rollout if this one has moved the policy too far or too little."""
        if not self._adapts:
            return
        assert self.desired_kl is not None
        if approx_kl > 2 * self.desired_kl:
            self.learning_rate_falls += 1
            self.learning_rate_factor = max(self.learning_rate_factor / ADAPTATION, FACTORS[0])
        elif approx_kl < self.desired_kl / 2 and not self.learning_rate_falls:
            self.learning_rate_factor = min(self.learning_rate_factor * ADAPTATION, FACTORS[1])

    def _evaluate_rollout(self) -> Tensor:
        """Advantages, returns, and the values and log-probabilities of the policy that acted, [T * B, 4]."""
        return torch.stack(self.rollout_buffer.targets, dim=-1).flatten(0, 1)

    def _learn_from(self, batch: Minibatch, losses: list[ClippedLoss], grad_norms: list[Tensor]) -> bool:
        """One update, whose loss and gradient norm are appended; no update, and False, if the policy has moved too far."""
        limits = self._now(self.clip_range), None if self.clip_range_vf is None else self._now(self.clip_range_vf)
        with matmul_precision(self.matmul_precision):
            loss = clipped_loss(self.policy, batch, self._entropy_weight, self.vf_coef, *limits, self._scales_advantages)
            losses.append(ClippedLoss(*(part.detach() for part in loss)))
            if self.target_kl is not None and loss.approx_kl > 1.5 * self.target_kl:
                return False
            self.policy.zero_grad()
            loss.total.backward()
        grad_norms.append(self._clip_gradient(loss.total))
        self.policy.optimizer.step()
        return True

    @property
    def _scales_advantages(self) -> bool:
        return not self.norm_reward if self.normalize_advantage is None else self.normalize_advantage

    def _now(self, value: float | Schedule) -> float:
        return FloatSchedule(value)(self._current_progress_remaining)

    def _log(self, epochs: int, means: dict[str, np.floating], grad_norms: list[Tensor], evaluated: Tensor) -> None:
        names = dict(policy="policy_gradient_loss", value="value_loss", entropy="entropy_loss", total="loss")
        for name, mean in means.items():
            self.logger.record(f"train/{names.get(name, name)}", mean)
        self.logger.record("train/epochs", epochs)
        self.logger.record("train/clip_range", self._now(self.clip_range))
        _, returns, values, _ = evaluated.unbind(1)
        log_update(self, values, returns, grad_norms)
