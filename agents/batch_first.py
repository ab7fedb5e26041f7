"""The recurrent policy for raw observations of the environment, in sequences with the batch first."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from fw_rl.agents.features import channels_first, has_channels_last
from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.rollout import Observation, map_observation
from fw_rl.cells import State

__all__ = ["BatchFirstPolicy"]


class BatchFirstPolicy(nn.Module):
    """A `RecurrentActorCriticPolicy` for raw observations [B, T, ...].

    Images are raw, and Discrete numbers not yet one-hot: the net does what SB3's wrappers and preprocessing do. All parameters
    belong to `policy`, so `policy.state_dict()` moves weights between this net and SB3's agents.

    Examples:
        >>> net = BatchFirstPolicy(spaces.Discrete(5), spaces.Discrete(3), dict(hidden_size=8, shared_cell=True))
        >>> latent, state = net(torch.zeros(2, 7, dtype=torch.int64), net.initial_state(2))  # two sequences of seven steps
        >>> latent.shape, net.action_parameters(latent).shape, net.values(latent).shape
        (torch.Size([2, 7, 8]), torch.Size([2, 7, 3]), torch.Size([2, 7]))
    """

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, policy_kwargs: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        vector = isinstance(action_space, spaces.Box | spaces.MultiDiscrete) and len(action_space.shape) == 1
        if not (vector or isinstance(action_space, spaces.Discrete)):
            raise ValueError(f"action_space must be Discrete, or a Box or a MultiDiscrete of vectors, got {action_space}")
        options = policy_kwargs or {}
        if options.get("squash_output"):
            raise ValueError("squash_output must be False, since squashed actions have no such parameters, got True")
        seen = channels_first(observation_space)
        self.policy = RecurrentActorCriticPolicy(seen, action_space, lambda progress: 0.0, **options)
        self.raw_space = observation_space

    def initial_state(self, batch_size: int) -> State:
        """The memory's state at the start of an episode, a tuple of tensors with the batch first."""
        return self.policy.initial_state(batch_size)

    def forward(self, observations: Observation, state: State) -> tuple[Tensor, State]:
        """The cell's outputs [B, T, H] for observations [B, T, ...] without episode starts, and the state after them.

        With two cells there are 2 H outputs.
        """
        seen = _as_sb3_sees(observations, self.raw_space)
        encoded = self.policy.encode(map_observation(lambda part: part.transpose(0, 1), seen))
        latent, state = self.policy.cell(encoded, state)
        return latent.transpose(0, 1), state

    def action_parameters(self, latent: Tensor) -> Tensor:
        """The parameters of the distribution over actions, [B, T, D], from the cell's outputs [B, T, H].

        They are logits, those of all parts of a MultiDiscrete in a row; for a Box, means and then logarithms of the standard
        deviations.
        """
        parameters: Tensor = self.policy.action_net(self.policy._actor_latent(latent))
        if isinstance(self.policy.action_space, spaces.Box):
            return torch.cat([parameters, self.policy.log_std.expand_as(parameters)], dim=-1)
        return parameters

    def values(self, latent: Tensor) -> Tensor:
        """The critic's values [B, T] from the cell's outputs [B, T, H]."""
        return self.policy._value(latent)


def _as_sb3_sees(observation: Any, space: spaces.Space) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _as_sb3_sees(observation[key], part) for key, part in space.spaces.items()}
    return observation.movedim(-1, -3) if has_channels_last(space) else observation
