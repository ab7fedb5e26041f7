"""The actor-critic losses on a rollout: with the log-probabilities of its actions, and PPO's clipped loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fw_rl.agents.minibatches import Minibatch
from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.rollout import RecurrentRollout

__all__ = ["ActorCriticLoss", "ClippedLoss", "actor_critic_loss", "clipped_loss"]


class ActorCriticLoss(NamedTuple):
    """The loss of advantage actor-critic, its three parts, and the critic's values [T, B] with what they should have been."""

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
    """Advantage actor-critic (Mnih et al. 2016, §4) with generalised advantages, the mean over the rollout's [T, B] steps.

        loss = - log pi(a) A + vf_coef (R - V)^2 - ent_coef H(pi),    R = A + V

    One pass over each sequence gives values, log-probabilities and entropies; A and R are treated as constants.
    """
    evaluated = [policy.evaluate_actions(*sequences) for sequences in rollout.sequences()]
    values, log_prob, entropy = (torch.cat(parts) for parts in zip(*evaluated, strict=True))
    old_values = values.detach()
    rollout.add_evaluation(old_values, log_prob.detach())
    advantages, returns = (part.to(values.dtype) for part in rollout.targets[:2])
    if normalize_advantage:
        advantages = _normalized(advantages)

    policy_loss = -(advantages * log_prob).mean()
    value_loss = F.mse_loss(values, returns)
    entropy_loss = -entropy.mean()
    total = policy_loss + vf_coef * value_loss + ent_coef * entropy_loss
    return ActorCriticLoss(total, policy_loss, value_loss, entropy_loss, old_values, returns)


class ClippedLoss(NamedTuple):
    """The loss of PPO, its three parts, how far the policy is from the one that acted, and the fraction of clipped steps."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


def clipped_loss(
    policy: RecurrentActorCriticPolicy,
    batch: Minibatch,
    ent_coef: float,
    vf_coef: float,
    clip_range: float,
    clip_range_vf: float | None = None,
    normalize_advantage: bool = True,
) -> ClippedLoss:
    """The loss of PPO (Schulman et al. 2017, Eq. 7 and 9), the mean over the [L, S] steps of a minibatch.

        q = pi(a) / pi_old(a)
        loss = - min(q A, clip(q, 1 - c, 1 + c) A) + vf_coef (R - V)^2 - ent_coef H(pi)

    c is `clip_range`. The cell runs again from the memory's state before each sequence. `approx_kl`, the divergence of the
    acting policy from this one, is estimated as the mean of q - 1 - log q.
    """
    values, log_prob, entropy = policy.evaluate_actions(*batch.sequences)
    advantages = _normalized(batch.advantages) if normalize_advantage else batch.advantages
    log_ratio = log_prob - batch.log_prob
    ratio = log_ratio.exp()
    policy_loss = -torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip_range, 1 + clip_range)).mean()
    if clip_range_vf is not None:
        values = batch.values + (values - batch.values).clamp(-clip_range_vf, clip_range_vf)
    value_loss = F.mse_loss(values, batch.returns)
    entropy_loss = -entropy.mean()
    with torch.no_grad():
        approx_kl = (ratio - 1 - log_ratio).mean()
        clip_fraction = ((ratio - 1).abs() > clip_range).float().mean()
    total = policy_loss + vf_coef * value_loss + ent_coef * entropy_loss
    return ClippedLoss(total, policy_loss, value_loss, entropy_loss, approx_kl, clip_fraction)


def _normalized(advantages: Tensor) -> Tensor:
    """With a mean of 0 and a standard deviation of 1; a single number is unchanged."""
    return advantages if advantages.numel() == 1 else (advantages - advantages.mean()) / (advantages.std() + 1e-8)
