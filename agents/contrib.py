"""Memory cells for sb3-contrib's own `RecurrentPPO`, unchanged."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy as LstmPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from fw_rl.agents.features import standard_extractor
from fw_rl.cells import Cell, make_cell

__all__ = ["CellLstmPolicy"]


class CellLstmPolicy(LstmPolicy):
    """The policy of sb3-contrib's `RecurrentPPO` with a memory cell wherever it has an LSTM.

    sb3-contrib's buffer keeps four vectors for every step, and a cell's whole state is spread over two of them: for fast
    weights that is a matrix, against 4 H numbers per step for an LSTM. `fw_rl.agents.RecurrentPPO` does not need this.

    Args:
        observation_space: The space of one observation.
        action_space: The space of one action.
        lr_schedule: SB3's, for the learning rate.
        cell: A name from `fw_rl.cells`.
        hidden_size: H, units of the cell.
        cell_kwargs: Options of the cell.
        features_extractor_class: None for the extractors of `RecurrentActorCriticPolicy` for images and Dict observations.
        **kwargs: The other arguments of sb3-contrib's `MlpLstmPolicy`, except for those of the LSTM.

    Raises:
        ValueError: For an unknown cell or option, and for a cell whose episodes do not begin with a state of 0, since
            sb3-contrib's do.

    Examples:
        >>> from sb3_contrib import RecurrentPPO
        >>> memory = dict(cell="fast-weights", hidden_size=32)
        >>> model = RecurrentPPO(CellLstmPolicy, "CartPole-v1", n_steps=8, batch_size=8, policy_kwargs=memory)
        >>> model = model.learn(total_timesteps=8)
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        cell: str = "fast-weights",
        hidden_size: int = 64,
        cell_kwargs: dict[str, Any] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("lstm_hidden_size", "n_lstm_layers", "lstm_kwargs"):
            if name in kwargs:
                raise ValueError(f"{name} must be left out, since a cell has hidden_size and cell_kwargs, got {kwargs[name]}")
        kwargs["features_extractor_class"] = features_extractor_class or standard_extractor(observation_space)
        super().__init__(observation_space, action_space, lr_schedule, lstm_hidden_size=hidden_size, **kwargs)
        self._memory = dict(cell=cell, hidden_size=hidden_size, cell_kwargs=cell_kwargs)
        self.lstm_actor: Any = _CellAsLstm(make_cell(cell, self.features_dim, hidden_size, **cell_kwargs or {}))
        if self.enable_critic_lstm:
            self.lstm_critic: Any = _CellAsLstm(make_cell(cell, self.features_dim, hidden_size, **cell_kwargs or {}))
        self.lstm_hidden_state_shape = (1, 1, self.lstm_actor.hidden_size)
        make_optimizer: Any = self.optimizer_class
        self.optimizer = make_optimizer(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        critic = dict(shared_lstm=self.shared_lstm, enable_critic_lstm=self.enable_critic_lstm)
        return super()._get_constructor_parameters() | self._memory | critic

    @staticmethod
    def _process_sequence(  # type: ignore[override]
        features: Tensor,
        lstm_states: tuple[Tensor, Tensor],
        episode_starts: Tensor,
        lstm: nn.Module,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run a cell over sequences that lie one after another, [n_seq * T, I]; the state is [1, n_seq, S], twice."""
        assert isinstance(lstm, _CellAsLstm)
        n_seq = lstm_states[0].shape[1]
        x = features.reshape(n_seq, -1, lstm.input_size).transpose(0, 1)
        starts = episode_starts.reshape(n_seq, -1).transpose(0, 1).bool()
        y, states = lstm(x, lstm_states, starts)
        return y.transpose(0, 1).flatten(0, 1), states


class _CellAsLstm(nn.Module):
    """A cell in the form of an LSTM: its state is two vectors of the same size."""

    num_layers = 1

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell
        self.input_size = cell.input_size
        blank = self.cell.initial_state(1)
        if any(part.any() for part in blank):
            raise ValueError(f"cell must begin an episode at 0, as sb3-contrib takes it to, got {type(cell).__name__}")
        self._shapes = [part.shape[1:] for part in blank]
        self._sizes = [shape.numel() for shape in self._shapes]
        self.hidden_size = math.ceil(sum(self._sizes) / 2)
        """The size of each vector; sb3-contrib makes its buffers by this name."""

    def forward(self, x: Tensor, states: tuple[Tensor, Tensor], episode_starts: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x [T, B, I], states [1, B, S] twice, episode starts [T, B] bool: y [T, B, H] and the states."""
        both = torch.cat(states, dim=2).squeeze(0)[:, : sum(self._sizes)]
        parts = both.split(self._sizes, dim=1)
        state = tuple(part.reshape(len(part), *shape) for part, shape in zip(parts, self._shapes, strict=True))
        y, state = self.cell(x, state, episode_starts)
        flat = torch.cat([part.reshape(len(part), -1) for part in state], dim=1)
        both = nn.functional.pad(flat, (0, 2 * self.hidden_size - flat.shape[1])).unsqueeze(0)
        return y, both.chunk(2, dim=2)  # type: ignore[return-value]
