"""The recurrent policy as a module of Ray's RLlib; needs Ray, `pip install 'fw-rl[ray]'`."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian, TorchMultiCategorical
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis.target_network_api import TARGET_NETWORK_ACTION_DIST_INPUTS, TargetNetworkAPI
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from fw_rl.agents.batch_first import BatchFirstPolicy
from fw_rl.cells import State

__all__ = ["RecurrentModule"]


class RecurrentModule(TorchRLModule, TargetNetworkAPI, ValueFunctionAPI):
    """`RecurrentActorCriticPolicy` for RLlib's PPO, IMPALA and APPO, with any registered cell.

    RLlib constructs it; its `model_config` is a dict with `policy_kwargs`, those of `RecurrentActorCriticPolicy`, and
    `max_seq_len`, the steps over which a gradient flows. The policy is `module.net.policy`: its `state_dict` goes into an agent
    of SB3's and back. Observations are those of the environment, without connectors that flatten or scale them.

    Examples:
        >>> from ray.rllib.core.rl_module.rl_module import RLModuleSpec
        >>> memory = dict(cell="fast-weights", hidden_size=64, cell_kwargs=dict(eta=0.1, decay=0.1))
        >>> spec = RLModuleSpec(RecurrentModule, model_config=dict(policy_kwargs=memory, max_seq_len=33))
    """

    def setup(self) -> None:
        """RLlib's hook that makes the net."""
        self.net = BatchFirstPolicy(self.observation_space, self.action_space, self.model_config.get("policy_kwargs"))
        self.action_dist_cls = _distribution(self.action_space)

    def get_initial_state(self) -> dict[str, Tensor]:
        """The memory at the start of an episode, by the names with which RLlib hands it back."""
        return _by_name(tuple(part[0] for part in self.net.initial_state(1)))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        latent, state = self._run_cell(batch)
        return {Columns.ACTION_DIST_INPUTS: self.net.action_parameters(latent), Columns.STATE_OUT: state}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        latent, _ = self._run_cell(batch)
        return {Columns.ACTION_DIST_INPUTS: self.net.action_parameters(latent), Columns.EMBEDDINGS: latent}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Values [B, T] of a batch; `embeddings` are the cell's outputs [B, T, H], if known."""
        return self.net.values(self._run_cell(batch)[0] if embeddings is None else embeddings)

    def make_target_networks(self) -> None:
        """RLlib's hook that makes the target net of APPO."""
        self.target_net = make_target_network(self.net)

    def get_target_network_pairs(self) -> list[tuple[BatchFirstPolicy, BatchFirstPolicy]]:
        """The net and its target net."""
        return [(self.net, self.target_net)]

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The parameters of the target net's distribution over actions."""
        latent, _ = self.target_net(batch[Columns.OBS], _as_tuple(batch[Columns.STATE_IN]))
        return {TARGET_NETWORK_ACTION_DIST_INPUTS: self.target_net.action_parameters(latent)}

    def _run_cell(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        latent, state = self.net(batch[Columns.OBS], _as_tuple(batch[Columns.STATE_IN]))
        return latent, _by_name(state)


def _by_name(state: State) -> dict[str, Tensor]:
    return {f"part_{i}": part for i, part in enumerate(state)}


def _as_tuple(state: dict[str, Tensor]) -> State:
    return tuple(state[f"part_{i}"] for i in range(len(state)))


def _distribution(space: spaces.Space) -> Any:
    if isinstance(space, spaces.MultiDiscrete):
        return TorchMultiCategorical.get_partial_dist_cls(input_lens=[int(n) for n in space.nvec])
    return TorchDiagGaussian if isinstance(space, spaces.Box) else TorchCategorical
