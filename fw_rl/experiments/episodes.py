"""Episodes that a trained agent plays, with everything that pictures of them need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from sb3_contrib.common.maskable.utils import is_masking_supported

from fw_rl.agents import Player, RecurrentOnPolicyAlgorithm
from fw_rl.agents.batch_first import channels_first
from fw_rl.envs import PreviousStep
from fw_rl.experiments.environments import environment_id
from fw_rl.experiments.settings import RunSettings

__all__ = ["Episode", "open_env", "play_episode"]


@dataclass
class Episode:
    """An episode of T steps: T observations, T rewards, and T + 1 frames [height, width, 3].

    There are no frames if the environment shows itself or does not draw; it wants to be watched at so many `fps`.
    """

    observations: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    fps: float = 10.0

    def __len__(self) -> int:
        return len(self.rewards)


def open_env(config: RunSettings, render_mode: str | None, model: RecurrentOnPolicyAlgorithm | None = None) -> gym.Env:
    """One environment of a run, which draws itself as "rgb_array" or "human", or not at all.

    ValueError if it does not exist, cannot be drawn so, or is none for the model that is going to act in it.
    """
    env_id = environment_id(config.env)
    mode: dict[str, Any] = {} if render_mode is None else dict(render_mode=render_mode)  # which not every one takes
    try:
        env = gym.make(env_id, **mode)
        modes = env.metadata.get("render_modes") or []
        if render_mode is not None and render_mode not in modes:
            env.close()
            raise ValueError(f"its render modes are {', '.join(modes) or 'none'}")
        env.reset(seed=0)  # opens the window, if there is one to be opened
        if render_mode == "rgb_array" and env.render() is None:
            raise ValueError("its render() gives no picture")
    except (gym.error.Error, ValueError, TypeError, RuntimeError, NotImplementedError) as error:  # pygame's are RuntimeErrors
        how = dict(rgb_array="draw itself", human="be shown in a window").get(render_mode or "", "be played")
        raise ValueError(f"{env_id} cannot {how}: {error}") from error
    env = PreviousStep(env) if config.previous_step else env
    if model and (channels_first(env.observation_space), env.action_space) != (model.observation_space, model.action_space):
        raise ValueError(f"the checkpoint is of another environment: its spaces are not those of {config.env}")
    return env


def play_episode(
    model: RecurrentOnPolicyAlgorithm, env: gym.Env, seed: int, greedy: bool = True, max_steps: int | None = None
) -> Episode:
    """One episode."""
    player = Player(model)
    episode = Episode(fps=float(env.metadata.get("render_fps") or 10))
    allowed = env.get_wrapper_attr("action_masks") if is_masking_supported(env) else lambda: None
    observation, _ = env.reset(seed=seed)
    _draw(env, episode)
    ended = False
    while not ended and len(episode) != max_steps:
        episode.observations.append(observation)
        observation, reward, terminated, truncated, _ = env.step(player.act(observation, greedy, allowed()))
        episode.rewards.append(float(reward))
        _draw(env, episode)
        ended = terminated or truncated
        player.observe(ended)
    return episode


def _draw(env: gym.Env, episode: Episode) -> None:
    if env.render_mode == "rgb_array":
        episode.frames.append(np.asarray(env.render()))
