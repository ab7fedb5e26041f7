"""Evaluation during training where actions are forbidden."""

from __future__ import annotations

from typing import Any

from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.callbacks import EvalCallback

__all__ = ["MaskedEvalCallback"]


class MaskedEvalCallback(EvalCallback):
    """SB3's `EvalCallback`, with its arguments, for environments with `action_masks`; without masks SB3's own does.

    Examples:
        >>> callback = MaskedEvalCallback(env, eval_freq=1_000, best_model_save_path="best")  # doctest: +SKIP
        >>> model.learn(total_timesteps=100_000, callback=callback)  # doctest: +SKIP
    """

    def _on_step(self) -> bool:
        agent: Any = self.model
        predict = agent.predict
        agent.predict = lambda *args, **kwargs: predict(*args, **kwargs, action_masks=get_action_masks(self.eval_env))
        try:
            return super()._on_step()
        finally:
            del agent.predict
