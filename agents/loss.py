"""The loss of advantage actor-critic on one chunk of experience."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.rollout import RecurrentRollout

__all__ = ["ActorCriticLoss", "actor_critic_loss"]


class ActorCriticLoss(NamedTuple):
    """The total and its parts, and what the critic said beside what it should have said, [T, B]."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    values: Tensor
    returns: Tensor


def actor_critic_loss(
    policy: RecurrentActorCriticPolicy,
    rollout: RecurrentRollout,
    ent_coef: float,
    vf_coef: float,
    normalize_advantage: bool = False,
) -> ActorCriticLoss:
    """Advantage actor-critic (Mnih et al. 2016, §4) with generalised advantages, the mean over the chunk's [T, B] steps.

        loss = - log pi(a) A + vf_coef (R - V)^2 - ent_coef H(pi),    R = A + V

    One pass over the chunk gives values, log-probabilities and entropies; A and R are constants in it.
    """
    values, log_prob, entropy = policy.evaluate_actions(
        rollout.observations, rollout.actions, rollout.state, rollout.episode_starts, rollout.outputs
    )
    old_values = values.detach()
    advantages = torch.as_tensor(rollout.advantages(old_values.cpu().numpy()), device=values.device)
    returns = advantages + old_values
    if normalize_advantage and advantages.numel() > 1:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

    policy_loss = -(advantages * log_prob).mean()
    value_loss = F.mse_loss(values, returns)
    entropy_loss = -entropy.mean()
    total = policy_loss + vf_coef * value_loss + ent_coef * entropy_loss
    return ActorCriticLoss(total, policy_loss, value_loss, entropy_loss, old_values, returns)
