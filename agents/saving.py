"""Saving and loading of agents, with SB3's arguments and without its pickle."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, BinaryIO, Self

import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import unwrap_vec_normalize

from fw_rl.agents.checkpoint import print_versions, read_checkpoint, write_checkpoint
from fw_rl.agents.devices import require_device
from fw_rl.agents.environments import MakeEnv
from fw_rl.agents.masks import has_masks
from fw_rl.agents.normalization import describe_normalization, normalize_as
from fw_rl.agents.restore import build_agent, continue_training, require_stored_arguments
from fw_rl.agents.running_episodes import describe_episodes
from fw_rl.document import problems_named

__all__ = ["SavedAgent"]


class SavedAgent(OnPolicyAlgorithm):
    """An SB3 `OnPolicyAlgorithm` whose file holds tensors and JSON, not a pickle."""

    monitor_wrapper: bool
    _masked: bool

    def save(  # type: ignore[override]
        self,
        path: str | os.PathLike[str] | BinaryIO,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
        include_state: bool | None = None,
    ) -> None:
        """Write the agent into one file, completely or not at all, with settings and statistics of a `VecNormalize`.

        A file with the environment's state that was written between two rollouts (after `learn`, or by a callback's
        `_on_rollout_start`) lets training continue bit for bit; one written during a rollout, as by SB3's `CheckpointCallback`,
        lacks the steps of that rollout. It warns of what a file cannot hold, such as a learning rate that is a function; a
        schedule of SB3 or rl_zoo3 that holds numbers is kept.

        Args:
            path: The file, or one opened in binary mode. A name without an extension gets .zip, as in SB3. A name that ends
                with .safetensors gives a safetensors file, and any other a zip archive that contains one.
            exclude: Names of what to leave out: arguments of the constructor, fields of `Checkpoint` such as "optimizer_state",
                and attributes by SB3's names such as "num_timesteps" or "ep_info_buffer". After loading they are as in a new
                agent. Other names are ignored, as in SB3.
            include: Names that are kept although they are in `exclude`. It warns of those that no file holds, such as "env".
            include_state: Whether the file has the running episodes (`read_checkpoint(path).episodes`): the memory's state,
                with its observations and episode starts. None: if the environment has the methods `get_state` and `set_state`,
                as `CatchVectorEnv` has. True: with any environment; see `force_reset` of `load`. False: never. Workers of A3C
                and of Ray keep their episodes to themselves.
        """
        write_checkpoint(path, self, describe_episodes(self, include_state), exclude or (), include or ())

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | os.PathLike[str] | BinaryIO,
        env: GymEnv | VectorEnv | MakeEnv | str | None = None,
        device: torch.device | str = "auto",
        custom_objects: Mapping[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **overrides: Any,
    ) -> Self:
        """Load an agent from a file written by `save`, on any device; nothing in the file is run.

        With `env`, `learn(..., reset_num_timesteps=False)` continues where the file stops, with the same random numbers: in the
        same episodes if the file holds them and `env` takes them and has as many, else in new ones. If the agent learned with a
        `VecNormalize`, that of `env` takes over its statistics; if there is none, `env` gets one like it, around the layer
        whose observations the statistics describe (`get_env()` then is what the agent sees). Without `env` the agent can
        predict, and `get_vec_normalize_env().normalize_obs` turns an environment's observations into what `predict` takes;
        `set_env` later gives it an environment to learn from.

        Args:
            path: The file, with or without its ending .zip, or one opened in binary mode.
            env: As for a new agent, with the same spaces.
            device: "cpu", "cuda", or "auto".
            custom_objects: As in SB3, replacements for objects in the file: arguments of the constructor, and
                "observation_space" and "action_space". Unlike `overrides`, other names are ignored.
            print_system_info: Print the versions the file was saved with, and the installed ones.
            force_reset: As in SB3, reset `env` before it learns, unless it takes its episodes from the file. False assumes that
                it is in the episodes of a file saved with `include_state=True`, which then continue with the memory's state.
            **overrides: Arguments of the constructor to change. What `policy_kwargs` leaves out stays as it was; an optimizer
                or its options reset its state; a `seed` starts new random numbers and episodes, other `cell_kwargs` new
                episodes. What a file cannot hold must be given again: classes of the policy that are not from Torch or SB3; and
                to learn, a learning rate or clip range that is a function.

        Raises:
            CheckpointError: For a file that is not a complete checkpoint or does not fit `env` and `overrides`; and from
                `learn` if the file could not hold an argument that was not given again. It is a ValueError.
            ValueError: For an unknown override.

        Examples:
            >>> model = RecurrentA2C.load("agent", env)  # doctest: +SKIP
            >>> model = model.learn(1_000_000 - model.num_timesteps, reset_num_timesteps=False)  # doctest: +SKIP
        """
        checkpoint = read_checkpoint(path)
        if print_system_info:
            print_versions(checkpoint)
        if force_reset and checkpoint.episodes is not None and checkpoint.episodes.get("env") is None:
            checkpoint = replace(checkpoint, episodes=None)
        model = build_agent(cls, checkpoint, env, device, overrides, custom_objects)
        if env is not None and "seed" not in overrides:
            with problems_named(f"{checkpoint.path}: its agent cannot be restored"):
                continue_training(model, checkpoint)
        return model

    def set_env(self, env: GymEnv | VectorEnv | str, force_reset: bool = True) -> None:  # type: ignore[override]
        """Learn from another environment, as a new agent would; a `VecNormalize` comes along if the environment has none.

        Args:
            env: As for a new agent, with the same spaces and as many environments as before.
            force_reset: Reset it before it learns.

        Raises:
            ValueError: For an environment that does not fit, or has tensors on another device.
        """
        wrapped = self._wrap_env(env, self.verbose, self.monitor_wrapper)  # type: ignore[arg-type]
        require_device(self.device, wrapped)
        normalizer = self._vec_normalize_env
        if normalizer is not None and (self.env is None or unwrap_vec_normalize(wrapped) is None):
            wrapped = normalize_as(wrapped, describe_normalization(normalizer))
        super().set_env(wrapped, force_reset)
        assert self.env is not None
        self._masked = has_masks(self.env)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        require_stored_arguments(self)
        return super()._setup_learn(*args, **kwargs)

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: torch.device | str = "auto") -> None:
        """Set the parameters of policy and optimizer, and change nothing else.

        Args:
            load_path_or_dict: What `get_parameters` returned, or a file as for `load`.
            exact_match: Whether all parameters must be present.
            device: "cpu", "cuda", or "auto", for reading a file.

        Raises:
            CheckpointError: For a file that is not a complete checkpoint.
            RuntimeError: For parameters that do not fit.
        """
        if not isinstance(load_path_or_dict, dict):
            # What the file could not hold, this agent has.
            lost = read_checkpoint(load_path_or_dict).not_stored
            again: dict[str, Any] = dict(policy=self.policy_class) if "policy" in lost else {}
            own = {name: value for name, value in self.policy_kwargs.items() if f"policy_kwargs.{name}" in lost}
            again |= dict(policy_kwargs=own) if own else {}
            load_path_or_dict = type(self).load(load_path_or_dict, device=device, **again).get_parameters()
        super().set_parameters(load_path_or_dict, exact_match, device)
