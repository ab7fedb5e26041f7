"""What every algorithm logs after its updates from a rollout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import explained_variance
from torch import Tensor


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
