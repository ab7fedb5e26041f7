"""Advantage actor-critic with a memory, as an SB3 algorithm."""

from __future__ import annotations

from typing import Self

from stable_baselines3.common.type_aliases import MaybeCallback

from fw_rl.agents.loss import actor_critic_loss
from fw_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from fw_rl.agents.optimization import matmul_precision
from fw_rl.agents.update_log import log_update

__all__ = ["RecurrentA2C"]


class RecurrentA2C(RecurrentOnPolicyAlgorithm):
    """Synchronous advantage actor-critic (Mnih et al. 2016) with a policy that remembers, in the style of SB3.

    Every rollout makes one update. The acting pass keeps no graph: one pass over the whole rollout, with matrix products over
    all its steps at once, then serves values, loss and gradient. The arguments are those of `RecurrentOnPolicyAlgorithm`.

    Examples:
        >>> from fw_rl.envs import CatchVectorEnv
        >>> model = RecurrentA2C("RecurrentPolicy", CatchVectorEnv(64, n=16, m=3), policy_kwargs=dict(cell="fast-weights"))
        >>> model = model.learn(total_timesteps=960)
        >>> action, state = model.predict(model.get_env().reset(), state=None, deterministic=True)
    """

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str = "RecurrentA2C",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def train(self) -> None:
        """Update the parameters once from the last rollout.

        Raises:
            FloatingPointError: If loss or gradient is not finite; the parameters are unchanged.
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        weights = self._entropy_weight, self.vf_coef
        with matmul_precision(self.matmul_precision):
            loss = actor_critic_loss(self.policy, self.rollout_buffer, *weights, bool(self.normalize_advantage))
            self.policy.zero_grad()
            loss.total.backward()
        grad_norm = self._clip_gradient(loss.total)
        self._apply_gradients()

        self._n_updates += 1
        self.logger.record("train/entropy_loss", loss.entropy.item())
        self.logger.record("train/policy_loss", loss.policy.item())
        self.logger.record("train/value_loss", loss.value.item())
        log_update(self, loss.values, loss.returns, [grad_norm])

    def _apply_gradients(self) -> None:
        self.policy.optimizer.step()
