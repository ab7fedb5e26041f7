"""Proximal policy optimisation with a memory, as an SB3 algorithm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule

from fw_rl.agents.a2c import RecurrentA2C, explained, matmul_precision
from fw_rl.agents.loss import Batch, ClippedLoss, clipped_loss
from fw_rl.agents.policy import RecurrentActorCriticPolicy

__all__ = ["RecurrentPPO"]


class RecurrentPPO(RecurrentA2C):
    """PPO (Schulman et al. 2017) with any memory cell: sb3-contrib's `RecurrentPPO` without an LSTM's state for every step.

    It acts and remembers as `RecurrentA2C`, and learns from a chunk `n_epochs` times, in minibatches of whole sequences that
    begin in the state that the memory had there. So a minibatch is `batch_size // bptt_length` environments over one piece of
    the chunk, and states are kept at the start of each piece only. It never spans two pieces: with one environment and a
    `bptt_length` of 16 it has 16 steps, whatever `batch_size` is.

    `batch_size`: steps of a minibatch, at least `bptt_length`. `clip_range`, `clip_range_vf`: numbers, or SB3 schedules; None
    leaves the values unclipped. `target_kl`: learning from a chunk ends when the policy is 1.5 times as far from the one that
    acted. `policy`, `env` and the other arguments are those of `RecurrentA2C`, here with the defaults of sb3-contrib's class.

    Raises ValueError for what `RecurrentA2C` does not take, and for a number that is not allowed.

    >>> from fw_rl.envs import CatchVectorEnv
    >>> model = RecurrentPPO("RecurrentPolicy", CatchVectorEnv(8, n=8, m=2), n_steps=14, policy_kwargs=dict(cell="gru"))
    >>> model = model.learn(total_timesteps=112)
    """

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: GymEnv | VectorEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 128,
        batch_size: int = 128,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        target_kl: float | None = None,
        optimizer: str = "adam",
        anneal: bool = False,
        **kwargs: Any,
    ) -> None:
        length = kwargs.get("bptt_length") or n_steps
        if batch_size < length:
            raise ValueError(f"batch_size is {batch_size}: it must be at least {length}, the steps of one sequence")
        if n_epochs < 1:
            raise ValueError(f"n_epochs is {n_epochs}: it must be at least 1")
        for name, value in (("clip_range", clip_range), ("clip_range_vf", clip_range_vf), ("target_kl", target_kl)):
            if isinstance(value, float | int) and not value > 0:
                raise ValueError(f"{name} is {value}: it must be above 0")
        self.batch_size, self.n_epochs, self.target_kl = batch_size, n_epochs, target_kl
        self.clip_range, self.clip_range_vf = clip_range, clip_range_vf
        super().__init__(
            policy,
            env,
            learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            optimizer=optimizer,
            anneal=anneal,
            normalize_advantage=normalize_advantage,
            **kwargs,
        )

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "RecurrentPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for at least `total_timesteps` steps, counted over all environments; see SB3's `learn`."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def train(self) -> None:
        """Learn `n_epochs` times from the chunk that was collected last.

        Raises FloatingPointError if the net has diverged.
        """
        self._require_finite_outputs()
        self._update_learning_rate(self.policy.optimizer)
        batches = self._evaluated_pieces()
        self.policy.set_training_mode(True)
        losses: list[ClippedLoss] = []
        for _ in range(self.n_epochs):
            self._n_updates += 1
            if not all(self._learn_from(batch, losses) for batch in self._minibatches(batches)):
                break
        self._log(losses, batches)

    def _learn_from(self, batch: Batch, losses: list[ClippedLoss]) -> bool:
        """One update, whose loss is appended; False, and no update, where the policy has gone too far."""
        limits = self._now(self.clip_range), None if self.clip_range_vf is None else self._now(self.clip_range_vf)
        with matmul_precision(self.matmul_precision):
            loss = clipped_loss(self.policy, batch, self._entropy_weight, self.vf_coef, *limits, self.normalize_advantage)
            losses.append(ClippedLoss(*(part.detach() for part in loss)))
            if self.target_kl is not None and loss.divergence > 1.5 * self.target_kl:
                return False
            self.policy.zero_grad()
            loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self._apply_gradients()
        return True

    def _now(self, value: float | Schedule) -> float:
        return FloatSchedule(value)(self._current_progress_remaining)

    @torch.no_grad()
    def _evaluated_pieces(self) -> list[Batch]:
        """The pieces of the chunk with advantages, and with what the policy that acted says of them."""
        self.policy.set_training_mode(False)
        pieces = list(self.rollout_buffer.pieces())
        evaluated = [self.policy.evaluate_actions(*piece)[:2] for piece in pieces]
        values = torch.cat([values for values, _ in evaluated])
        advantages = torch.as_tensor(self.rollout_buffer.advantages(values.cpu().numpy()), device=self.device)
        lengths = [len(piece.actions) for piece in pieces]
        parts = zip(pieces, advantages.split(lengths), (advantages + values).split(lengths), evaluated, strict=True)
        return [Batch(piece, advantage, returns, *said) for piece, advantage, returns, said in parts]

    def _minibatches(self, batches: list[Batch]) -> Iterator[Batch]:
        """Some environments of a piece at a time, in a random order."""
        for i in torch.randperm(len(batches)).tolist():
            piece, *parts = batches[i]
            length, n_envs = parts[0].shape
            for rows in torch.randperm(n_envs).to(self.device).split(self.batch_size // length):
                yield Batch(piece.of(rows), *(part[:, rows] for part in parts))

    def _log(self, losses: list[ClippedLoss], batches: list[Batch]) -> None:
        mean = {name: np.mean([getattr(loss, name).item() for loss in losses]) for name in ClippedLoss._fields}
        names = dict(policy="policy_gradient_loss", value="value_loss", entropy="entropy_loss", divergence="approx_kl")
        for name, title in (names | dict(clipped="clip_fraction", total="loss")).items():
            self.logger.record(f"train/{title}", mean[name])
        values, returns = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("values", "returns"))
        self.logger.record("train/explained_variance", explained(values, returns))
        self.logger.record("train/clip_range", self._now(self.clip_range))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
