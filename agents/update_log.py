"""What every algorithm logs of its rollouts and its updates."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import torch
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.rollout import RecurrentRollout, map_observation

ENCODED_AT_ONCE = 256
"""Observations, for the memory's metrics."""


def log_update(model: OnPolicyAlgorithm, values: Tensor, returns: Tensor, grad_norms: Sequence[Tensor]) -> None:
    """Log how well the critic fits, the mean norm of the gradients, and how widely a Gaussian policy acts."""
    record = model.logger.record
    predicted, actual = (part.flatten().cpu().numpy() for part in (values, returns))
    record("train/explained_variance", float(explained_variance(predicted, actual)))
    if grad_norms:
        record("train/grad_norm", torch.stack(list(grad_norms)).mean().item())
    if isinstance(model.action_space, spaces.Box):
        record("train/std", model.policy.log_std.exp().mean().item())
    record("train/n_updates", model._n_updates, exclude="tensorboard")


def memory_metrics(policy: RecurrentActorCriticPolicy, rollout: RecurrentRollout) -> dict[str, float]:
    """What the memory did in the rollout's steps so far, by the names of the log; empty if it has no diagnostics."""
    if not (policy.cell.has_diagnostics and rollout.states and rollout.pos):
        return {}
    some = max(ENCODED_AT_ONCE // rollout.n_envs, 1)
    windows = [itemgetter(slice(t, min(t + some, rollout.pos))) for t in range(0, rollout.pos, some)]
    with torch.no_grad():  # some at a time: of images, the whole rollout takes more memory than learning from it
        encoded = torch.cat([policy.encode(map_observation(window, rollout.observations)) for window in windows])
    metrics = policy.cell.diagnostics(encoded, rollout.states[0], rollout.episode_starts[: rollout.pos])
    return {f"rollout/memory/{name}": value for name, value in metrics.items()}
