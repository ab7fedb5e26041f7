"""Evaluation during training where actions are forbidden."""

from __future__ import annotations

from typing import Any

from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import VecEnv

__all__ = ["MaskedEvalCallback"]


class MaskedEvalCallback(EvalCallback):
    """SB3's `EvalCallback`, with its arguments, for environments with `action_masks`; without masks SB3's own does.

    Example:
        >>> callback = MaskedEvalCallback(env, eval_freq=1_000, best_model_save_path="best")  # doctest: +SKIP
        >>> model.learn(total_timesteps=100_000, callback=callback)  # doctest: +SKIP
    """

    def _on_step(self) -> bool:
        agent = self.model
        self.model = _MaskedAgent(agent, self.eval_env)  # type: ignore[assignment]
        try:
            return super()._on_step()
        finally:
            self.model = agent


class _MaskedAgent:
    """An agent that predicts under the masks of an environment."""

    def __init__(self, agent: Any, env: VecEnv) -> None:
        self._agent, self._env = agent, env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def predict(self, *arguments: Any, **options: Any) -> Any:
        return self._agent.predict(*arguments, **options, action_masks=get_action_masks(self._env))
