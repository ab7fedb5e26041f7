"""Episodes that a trained agent plays, with everything that pictures of them need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from sb3_contrib.common.maskable.utils import is_masking_supported

from fw_rl.agents import Player, RecurrentA2C
from fw_rl.envs import PreviousStep
from fw_rl.experiments.environments import environment_id
from fw_rl.experiments.settings import RunSettings

__all__ = ["Episode", "frames_per_second", "open_env", "play_episode"]


@dataclass
class Episode:
    """What was seen, earned and drawn in an episode of T steps.

    `observations`: T, without the last, at which nobody acts. `rewards`: T. `frames`: T + 1 with the last, each a picture
    [height, width, 3] uint8; none if the environment shows itself or does not draw.
    """

    observations: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    frames: list[NDArray[np.uint8]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rewards)


def open_env(config: RunSettings, render_mode: str | None) -> gym.Env:
    """One environment of a run that draws itself in this way: "rgb_array", "human" or None.

    Raises ValueError if it does not exist or cannot be drawn so, in one line.
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
    return PreviousStep(env) if config.previous_step else env


def play_episode(model: RecurrentA2C, env: gym.Env, seed: int, greedy: bool = True, max_steps: int | None = None) -> Episode:
    """One episode from a seed, to its end or for `max_steps` steps; the agent's most probable actions, or else random ones.

    Its observations are those that the agent sees, normalized if it has learned so.
    """
    episode, player, normalizer = Episode(), Player(model), model.get_vec_normalize_env()
    allowed = env.get_wrapper_attr("action_masks") if is_masking_supported(env) else lambda: None
    observation, _ = env.reset(seed=seed)
    _draw(env, episode)
    ended = False
    while not ended and len(episode) != max_steps:
        seen = observation if normalizer is None else normalizer.normalize_obs(observation)
        episode.observations.append(seen)
        observation, reward, terminated, truncated, _ = env.step(player.act(seen, greedy, allowed()))
        episode.rewards.append(float(reward))
        _draw(env, episode)
        ended = terminated or truncated
        player.observe(ended)
    return episode


def _draw(env: gym.Env, episode: Episode) -> None:
    if env.render_mode == "rgb_array":
        episode.frames.append(np.asarray(env.render()))


def frames_per_second(env: gym.Env) -> float:
    """How fast the environment wants to be watched."""
    return float(env.metadata.get("render_fps") or 10)
