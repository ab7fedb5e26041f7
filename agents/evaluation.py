"""Evaluation with SB3's functions, in environments of every kind, where actions may be forbidden."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from gymnasium import Env
from gymnasium.vector import VectorEnv
from stable_baselines3.common import evaluation
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import VecEnv

from fw_rl.agents.environments import wrap_evaluation_env
from fw_rl.agents.masks import has_masks, masks_of
from fw_rl.agents.normalization import frozen_statistics, warn_of_missing_normalizer
from fw_rl.arguments import require

__all__ = ["MaskedEvalCallback", "evaluate_policy"]


class MaskedEvalCallback(EvalCallback):
    """SB3's `EvalCallback`, with its other arguments, which takes no action that an environment forbids by `action_masks`.

    Args:
        eval_env: An SB3 `VecEnv`, a Gymnasium `VectorEnv` or an `Env`.
        args: As SB3's.
        kwargs: As SB3's.

    Examples:
        >>> callback = MaskedEvalCallback(env, eval_freq=1_000, best_model_save_path="best")  # doctest: +SKIP
        >>> model.learn(total_timesteps=100_000, callback=callback)  # doctest: +SKIP
    """

    def __init__(self, eval_env: VecEnv | VectorEnv | Env, *args: Any, **kwargs: Any) -> None:
        super().__init__(wrap_evaluation_env(eval_env), *args, **kwargs)
        self._is_masked = has_masks(self.eval_env)

    def _on_step(self) -> bool:
        with _heeding_masks(self.model, self.eval_env) if self._is_masked else nullcontext():
            return super()._on_step()


def evaluate_policy(
    model: Any, env: VecEnv | VectorEnv | Env, n_eval_episodes: int = 10, deterministic: bool = True, **kwargs: Any
) -> tuple[float, float] | tuple[list[float], list[int]]:
    """SB3's `evaluate_policy`, which takes no action that an environment forbids by `action_masks`.

    A `VecNormalize` keeps its statistics as they are.

    Args:
        model: An agent, its policy, or anything with `predict`.
        env: An SB3 `VecEnv`, a Gymnasium `VectorEnv` or an `Env`.
        n_eval_episodes: Episodes over all environments.
        deterministic: Take the likeliest action; else draw one.
        kwargs: The other arguments of SB3's function.

    Returns:
        Mean and standard deviation of the returns, or with `return_episode_rewards=True` all returns and lengths.

    Raises:
        ValueError: For fewer than one episode.

    Examples:
        >>> from fw_rl import RecurrentPPO
        >>> from fw_rl.envs import CatchVectorEnv
        >>> model = RecurrentPPO("RecurrentPolicy", CatchVectorEnv(8, n=8, m=2), n_steps=14)
        >>> mean, deviation = evaluate_policy(model, CatchVectorEnv(8, n=8, m=2), n_eval_episodes=16)
    """
    require("n_eval_episodes", n_eval_episodes, n_eval_episodes >= 1, "at least 1")
    env = wrap_evaluation_env(env)
    warn_of_missing_normalizer(getattr(model, "get_vec_normalize_env", lambda: None)(), env)
    with frozen_statistics(env), _heeding_masks(model, env) if has_masks(env) else nullcontext():
        return evaluation.evaluate_policy(model, env, n_eval_episodes, deterministic, **kwargs)


@contextmanager
def _heeding_masks(model: Any, env: VecEnv) -> Iterator[None]:
    """Give a model's `predict` the masks of an environment; a nested evaluation has its own."""
    outer = vars(model).get("predict")
    model.predict = lambda *args, **kwargs: type(model).predict(model, *args, **kwargs, action_masks=masks_of(env))
    try:
        yield
    finally:
        del model.predict
        if outer is not None:
            model.predict = outer
