"""A trained policy as an ONNX file, with its memory's state as inputs and outputs."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn
from torch.distributions import Distribution

from fw_rl.agents.masks import mask_size
from fw_rl.agents.normalization import fits
from fw_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.rollout import Observation, map_observation
from fw_rl.agents.spaces import torch_dtype
from fw_rl.files import write_file

__all__ = ["export_onnx"]

_PACKAGES = ("onnx", "onnxscript")
_EXAMPLES = 2
"""Rows of the inputs that the export is traced with; with only one, the batch would be taken for a constant."""


def export_onnx(model: RecurrentOnPolicyAlgorithm, path: str | os.PathLike[str], action_masks: bool = False) -> None:
    """Write one greedy step of an agent as an ONNX file, for any number B of environments.

    Inputs: `observation` [B, ...] as the agent's `observation_space` has it, or `observation.KEY` for each key of a Dict;
    `episode_start` [B] bool, True where the observation is the first of an episode; `state_0`, `state_1`, ... [B, ...], the
    memory's state, zero before the first step. Outputs: `action` [B, ...] as the environment takes it, and `next_state_0`,
    `next_state_1`, ..., which are `state_0`, `state_1`, ... of the next step. A cell that only the critic has is left out. The
    statistics of a `VecNormalize` are part of the step, unless they are of observations of another shape, as inside a
    `VecFrameStack`: then `observation` is what the agent sees, already normalized, and a warning says so.

    Args:
        model: A trained agent.
        path: The file to write.
        action_masks: Add an input after `episode_start`, `action_masks` [B, D] bool, the allowed actions (see
            `fw_rl.agents.masks.check_masks`); without it an agent that learned with masks may choose a forbidden one.

    Raises:
        ModuleNotFoundError: Without the packages of `pip install 'fw-rl[onnx]'`.
        ValueError: For `action_masks` if the actions cannot have any.

    Examples:
        >>> export_onnx(model, "agent.onnx")  # doctest: +SKIP
        >>> session = onnxruntime.InferenceSession("agent.onnx")  # doctest: +SKIP
        >>> action, *state = session.run(None, dict(observation=seen, episode_start=starts, state_0=state[0]))  # doctest: +SKIP
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"the export needs {' and '.join(missing)}: pip install 'fw-rl[onnx]'")
    policy = model.policy
    policy.set_training_mode(False)
    step = _GreedyStep(policy, action_masks, _normalizer(model))
    observation = _blank(policy.observation_space, policy.device)
    inputs = dict(episode_start=torch.ones(_EXAMPLES, dtype=torch.bool, device=policy.device))
    if action_masks:
        size = mask_size(policy.action_space)
        inputs["action_masks"] = torch.ones(_EXAMPLES, size, dtype=torch.bool, device=policy.device)
    state = step.cell.initial_state(_EXAMPLES)

    several = isinstance(observation, dict)
    seen = [f"observation.{key}" for key in observation] if several else ["observation"]
    parts = [f"state_{i}" for i in range(len(state))]
    batch = {0: "batch"}
    rest = (*inputs.values(), *state)
    with _traceable():
        program = torch.onnx.export(
            step,
            (observation, *rest),
            input_names=[*seen, *inputs, *parts],
            output_names=["action", *(f"next_{part}" for part in parts)],
            dynamic_shapes=({key: batch for key in observation} if several else batch, batch, tuple(batch for _ in rest[1:])),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    document = program.model_proto
    for part in (*document.graph.node, *document.graph.value_info):
        part.ClearField("metadata_props")  # where on this machine its line of code lies
    write_file(Path(path), document.SerializeToString())


def _normalizer(model: RecurrentOnPolicyAlgorithm) -> VecNormalize | None:
    """The normalizer that turns an observation into what the agent sees."""
    normalizer = model.get_vec_normalize_env()
    if normalizer is None or not normalizer.norm_obs:
        return None
    if fits(model.policy.observation_space, normalizer.obs_rms):
        return normalizer
    warnings.warn(
        "the VecNormalize is inside of other wrappers: the exported step takes observations that are normalized already",
        stacklevel=3,
    )
    return None


class _GreedyStep(nn.Module):
    """One greedy step of a policy, as a function of tensors alone."""

    def __init__(self, policy: RecurrentActorCriticPolicy, is_masked: bool, normalizer: VecNormalize | None) -> None:
        super().__init__()
        self.policy, self.cell, self.is_masked = policy, policy.actor_cell, is_masked
        self.normalizer = normalizer

    def forward(self, observation: Observation, episode_start: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        masks, state = (rest[0], rest[1:]) if self.is_masked else (None, rest)
        initial = self.cell.initial_state(episode_start.shape[0])  # len() would make a constant of it
        begun = (torch.where(_as_rows_of(episode_start, new), new, old) for new, old in zip(initial, state, strict=True))
        seen = map_observation(lambda part: part.unsqueeze(0), self._normalized(observation))
        encoded = self.policy.encode(seen, actor_only=True)
        latent, after = self.cell(encoded, tuple(begun))
        return self.policy.fit_actions(self.policy._sample_actions(latent[0], True, masks)), *after

    def _normalized(self, observation: Observation) -> Observation:
        """What the agent sees of an observation, as `VecNormalize.normalize_obs` returns it."""
        if self.normalizer is None:
            return observation
        learned = self.normalizer.obs_rms
        if isinstance(learned, dict):
            parts = dict(observation)  # type: ignore[arg-type]
            return parts | {key: _normalize(parts[key], of_part, self.normalizer) for key, of_part in learned.items()}
        return _normalize(observation, learned, self.normalizer)  # type: ignore[arg-type]


def _normalize(part: Tensor, learned: RunningMeanStd, normalizer: VecNormalize) -> Tensor:
    mean = torch.as_tensor(learned.mean, device=part.device)
    deviation = torch.as_tensor(np.sqrt(learned.var + normalizer.epsilon), device=part.device)
    return ((part - mean) / deviation).clamp(-normalizer.clip_obs, normalizer.clip_obs).float()


def _as_rows_of(rows: Tensor, part: Tensor) -> Tensor:
    """A mark for each row [B], in a shape that broadcasts with a part of the state [B, ...]."""
    return rows.view(-1, *(1,) * (part.dim() - 1))


def _blank(space: spaces.Space, device: torch.device) -> Observation:
    if isinstance(space, spaces.Dict):
        return {key: _blank(part, device) for key, part in space.spaces.items()}  # type: ignore[misc]
    assert space.shape is not None
    return torch.zeros(_EXAMPLES, *space.shape, device=device, dtype=torch_dtype(space))


@contextmanager
def _traceable() -> Iterator[None]:
    """Silence warnings of packages that are not needed; distributions do not validate their values, which would be a branch."""
    logger = logging.getLogger("torch.onnx")
    level, checked = logger.level, Distribution._validate_args  # type: ignore[attr-defined]
    logger.setLevel(logging.ERROR)
    Distribution.set_default_validate_args(False)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
        Distribution.set_default_validate_args(checked)
