"""The nets of the recurrent actor-critic: features, an encoder, any registered memory cell, and the heads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain, pairwise
from numbers import Integral
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.preprocessing import get_action_dim, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from fw_rl.agents.features import standard_extractor
from fw_rl.agents.inference import RecurrentInference, add_time
from fw_rl.agents.rollout import Observation, map_observation
from fw_rl.agents.scaling import ObservationScaling, RewardScaling
from fw_rl.arguments import require
from fw_rl.cells import Cell, CellPair, State, make_cell
from fw_rl.envs.sb3 import check_spaces
from fw_rl.linear import Linear

__all__ = ["RecurrentActorCriticPolicy"]


class RecurrentActorCriticPolicy(RecurrentInference):
    """Actor and critic with any memory cell; the network of Ba16 A.3 has one cell of 128 units for both, and no layer after it.

        observation -> features -> encoder -> cell -> heads -> distribution over actions, and a value

    Sequences are time first: observations [T, B, ...], episode starts [T, B].

    Args:
        observation_space: The space of one observation.
        action_space: The space of one action.
        lr_schedule: SB3's, for the learning rate.
        cell: A name from `fw_rl.cells`.
        hidden_size: H, units of the cell.
        cell_kwargs: Options of the cell.
        encoder_arch: Sizes of the layers before the cell.
        shared_cell: False gives the critic an encoder and a cell of its own.
        net_arch: Sizes of the layers after the cell, as in SB3: a list, or a dict with `pi` and `vf`; None is one layer of 64.
        activation_fn: Activation of the layers before and after the cell.
        ortho_init: Off, since fast weights learned Catch more reliably from Torch's default initial weights.
        log_std_init: Initial logarithm of the standard deviations of actions in a Box.
        squash_output: Squash actions into the bounds of a Box by tanh; else they are clipped.
        features_extractor_class: None takes SB3's `CombinedExtractor` for a Dict, its `NatureCNN` for an image of 36 x 36 or
            more, and its `FlattenExtractor` for anything else.
        features_extractor_kwargs: Its options.
        share_features_extractor: May be False if `shared_cell` is.
        normalize_images: Divide images by 255. With False any Box of three dimensions is an image.
        norm_obs: Scale observations by their running mean and deviation, see `fw_rl.agents.scaling.ObservationScaling`.
        optimizer_class: Class of the optimizer.
        optimizer_kwargs: Its options, without the learning rate.
        use_sde: Must be False.

    Raises:
        ValueError: For an unknown cell or option, and for a space that SB3 does not support.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        cell: str = "fast-weights",
        hidden_size: int = 64,
        cell_kwargs: dict[str, Any] | None = None,
        encoder_arch: Sequence[int] = (64,),
        shared_cell: bool = False,
        net_arch: Sequence[int] | dict[str, list[int]] | None = (64,),
        activation_fn: type[nn.Module] = nn.ReLU,
        ortho_init: bool = False,
        log_std_init: float = 0.0,
        squash_output: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        share_features_extractor: bool = True,
        normalize_images: bool = True,
        norm_obs: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
    ) -> None:
        if use_sde:
            raise ValueError("use_sde must be False, since there is no state-dependent exploration with a memory, got True")
        check_spaces(observation_space, action_space)
        if squash_output and not isinstance(action_space, spaces.Box):
            raise ValueError(f"squash_output must be False where actions are not in a Box, got True for {action_space}")
        if shared_cell and not share_features_extractor:
            raise ValueError("share_features_extractor must be True unless shared_cell=False, got False")
        parts = net_arch if isinstance(net_arch, dict) else {"pi": net_arch or ()}
        require("net_arch", net_arch, parts.keys() <= {"pi", "vf"}, "a list of sizes, or a dictionary of pi and vf")
        for name, sizes in (("encoder_arch", encoder_arch), *(("net_arch", sizes) for sizes in parts.values())):
            listed = isinstance(sizes, Sequence) and all(isinstance(size, Integral) and size >= 1 for size in sizes)
            require(name, sizes, listed, "a list of sizes, whole numbers from 1")
        self._squashes = squash_output
        self.shared_cell = shared_cell
        self.cell_name, self.hidden_size, self.cell_kwargs = cell, hidden_size, cell_kwargs or {}
        self.encoder_arch = list(encoder_arch)
        self.norm_obs = norm_obs
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch if isinstance(net_arch, dict) else [64] if net_arch is None else list(net_arch),
            activation_fn=activation_fn,
            ortho_init=ortho_init,
            log_std_init=log_std_init,
            features_extractor_class=features_extractor_class or standard_extractor(observation_space, normalize_images),
            features_extractor_kwargs=features_extractor_kwargs,
            share_features_extractor=share_features_extractor,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        if self._squashes:  # set here, since SB3's constructor takes it with state-dependent exploration only
            self._squash_output = True
            self.action_dist = SquashedDiagGaussianDistribution(get_action_dim(self.action_space))
        scaled = self.observation_space if self.norm_obs else spaces.Dict()
        self.observation_scaling = ObservationScaling(scaled, self.normalize_images)
        self.reward_scaling = RewardScaling()
        self.encoder, self.cell = self._make_memory()
        if not self.shared_cell:
            self.critic_encoder, critic_cell = self._make_memory()
            self.cell = CellPair(self.cell, critic_cell)
        super()._build(lr_schedule)

    def learn_scaling(self, observations: np.ndarray | dict[str, np.ndarray]) -> None:
        """Scale observations from now on as if these had been seen too, such as demonstrations before learning from them.

        Args:
            observations: As the environment shows them, [N, ...], or a dictionary of such arrays.
        """
        seen, _ = self.obs_to_tensor(observations)
        self.observation_scaling.update(map_observation(add_time, seen))
        self.observation_scaling.refresh()

    def _build_mlp_extractor(self) -> None:
        """SB3's hook for the layers after the memory."""
        self.mlp_extractor = MlpExtractor(self.hidden_size, self.net_arch, self.activation_fn, "cpu")

    def _make_memory(self) -> tuple[nn.Module, Cell]:
        layers = ((Linear(*sizes), self.activation_fn()) for sizes in pairwise((self.features_dim, *self.encoder_arch)))
        encoder = nn.Sequential(*chain.from_iterable(layers))
        if self.ortho_init:
            encoder.apply(partial(self.init_weights, gain=np.sqrt(2)))
        encoded_size = self.encoder_arch[-1] if self.encoder_arch else self.features_dim
        return encoder, make_cell(self.cell_name, int(encoded_size), self.hidden_size, **self.cell_kwargs)

    @property
    def actor_cell(self) -> Cell:
        """The cell that the actor sees: the only one, or the first of two."""
        return self.cell.first if isinstance(self.cell, CellPair) else self.cell

    def preprocess(self, observation: Observation) -> Observation:
        """The input of the features extractor: choices one-hot, and numbers scaled.

        Args:
            observation: [B, ...], or a dictionary of such tensors.
        """
        return self.observation_scaling(preprocess_obs(observation, self.observation_space, self.normalize_images))

    def extract_features(  # type: ignore[override]
        self, obs: Observation, features_extractor: BaseFeaturesExtractor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The features [B, F] of observations [B, ...]: separate for actor and critic if each has its own extractor."""
        seen = self.preprocess(obs)
        if features_extractor is not None or self.share_features_extractor:
            return (features_extractor or self.features_extractor)(seen)
        return self.pi_features_extractor(seen), self.vf_features_extractor(seen)

    def encode(self, observations: Observation, actor_only: bool = False) -> Tensor:
        """The cell's inputs, [T, B, I], or [T, B, 2 I] for two cells.

        Args:
            observations: [T, B, ...], or a dictionary of such tensors.
            actor_only: Only those of `actor_cell`, [T, B, I].
        """
        part = next(iter(observations.values())) if isinstance(observations, dict) else observations
        steps, batch = part.shape[:2]
        flat = map_observation(lambda part: part.flatten(0, 1), observations)
        if self.shared_cell or actor_only:
            encoded = self.encoder(self.extract_features(flat, self.pi_features_extractor))
        else:
            features = self.extract_features(flat)
            of_actor, of_critic = features if isinstance(features, tuple) else (features, features)
            encoded = torch.cat([self.encoder(of_actor), self.critic_encoder(of_critic)], dim=-1)
        return encoded.view(steps, batch, -1)

    def evaluate_actions(  # type: ignore[override]
        self,
        observations: Observation,
        actions: Tensor,
        state: State,
        episode_starts: Tensor,
        outputs: Tensor | None = None,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values, log-probabilities and entropies of actions, each [T, B].

        The entropy of squashed actions has no closed form: it is minus the log-probability of one more sample, and its gradient
        goes through that sample. `outputs` are the cell's while acting, [T, B, H], if the parameters are still the same: see
        `Cell.replay`. `action_masks` are the allowed actions, [T, B, D].
        """
        if episode_starts.dim() != 2:
            raise ValueError(f"episode_starts must be [T, B], as all that is evaluated, got {list(episode_starts.shape)}")
        latent = self.cell.replay(self.encode(observations), self.as_state(state), episode_starts, outputs)
        flat, shape = latent.flatten(0, 1), episode_starts.shape
        masks = None if action_masks is None else action_masks.flatten(0, 1)
        log_prob, entropy = self._judge_actions(flat, actions.flatten(0, 1), masks)
        return self._value(flat).view(shape), log_prob.view(shape), entropy.view(shape)

    def save(self, path: str) -> None:
        """Raises NotImplementedError: SB3 would pickle the policy."""
        raise NotImplementedError("save the agent, model.save(path), or the weights, policy.state_dict()")

    @classmethod
    def load(cls, path: str, device: torch.device | str = "auto") -> NoReturn:  # type: ignore[override]
        """Raises NotImplementedError: SB3 would unpickle the policy."""
        raise NotImplementedError("load the agent, RecurrentA2C.load(path), and take its policy")
