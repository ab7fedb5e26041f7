"""Episodes that a trained agent plays, with everything that pictures of them need."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from sb3_contrib.common.maskable.utils import is_masking_supported

from fw_rl.agents import Player, RecurrentOnPolicyAlgorithm
from fw_rl.agents.features import channels_first
from fw_rl.envs import PreviousStep
from fw_rl.experiments.environments import make_env
from fw_rl.experiments.settings import RunSettings
from fw_rl.modules import reason

__all__ = ["Episode", "open_env", "play_episode", "play_steps"]


_UNDRAWN: dict[str, str] = {}
"""Why environments could not be drawn. None is tried twice: MuJoCo ends the process if OpenGL fails a second time."""


@dataclass
class Episode:
    """An episode of T steps: T observations, T rewards, and T + 1 frames [height, width, 3].

    There are no frames if the environment shows itself or does not draw. `fps` is the environment's own rate. `ended` is False
    if the episode was cut off.
    """

    observations: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    fps: float = 10.0
    ended: bool = True

    def __len__(self) -> int:
        return len(self.rewards)


def open_env(config: RunSettings, render_mode: str | None, model: RecurrentOnPolicyAlgorithm | None = None) -> gym.Env:
    """One environment of a run, which draws itself as "rgb_array" or "human", or not at all.

    ValueError if it does not exist, cannot be drawn that way, or does not fit the model that will act in it.
    """
    how = dict(rgb_array="draw itself", human="be shown in a window").get(render_mode or "", "be played")
    if render_mode is not None and config.env in _UNDRAWN:
        raise ValueError(f"{config.env} cannot {how}: {_UNDRAWN[config.env]}")
    mode: dict[str, Any] = {} if render_mode is None else dict(render_mode=render_mode)  # which not every one accepts
    with ExitStack() as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a missing mode, which the error reports
        try:
            env = make_env(config.env, training=False, **mode)
            opened.callback(_close, env)
            modes = env.metadata.get("render_modes") or []
            if render_mode is not None and render_mode not in modes:
                raise ValueError(f"its render modes are {', '.join(modes) or 'none'}")
            env.reset(seed=0)  # opens the window, if there is one to be opened
            _draw(env)
        except Exception as error:  # whatever an environment may do without a screen, or without what it draws with
            why = "it takes no render_mode" if _takes_no_mode(error) else reason(error)
            if render_mode is not None:
                _UNDRAWN[config.env] = why
            raise ValueError(f"{config.env} cannot {how}: {why}") from error
        opened.pop_all()
    env = PreviousStep(env, reward=config.previous_reward) if config.previous_step else env
    if model and (channels_first(env.observation_space), env.action_space) != (model.observation_space, model.action_space):
        raise ValueError(f"the checkpoint is of another environment: its spaces are not those of {config.env}")
    return env


def _takes_no_mode(error: Exception) -> bool:
    """Whether the error says that a constructor has no argument `render_mode`."""
    told = ("unexpected keyword argument 'render_mode'", "takes no arguments")
    return isinstance(error, TypeError) and any(words in str(error) for words in told)


def _close(env: gym.Env) -> None:
    with suppress(Exception):  # one that failed to draw may fail here again
        env.close()


def play_episode(
    model: RecurrentOnPolicyAlgorithm, env: gym.Env, seed: int, greedy: bool = True, max_steps: int | None = None
) -> Episode:
    """One episode."""
    return list(play_steps(model, env, seed, greedy, max_steps))[-1]


def play_steps(
    model: RecurrentOnPolicyAlgorithm, env: gym.Env, seed: int, greedy: bool = True, max_steps: int | None = None
) -> Iterator[Episode]:
    """One episode, yielded before each step with what the player has observed so far, and at its end."""
    player = Player(model)
    episode = Episode(fps=float(env.metadata.get("render_fps") or 10), ended=False)
    allowed = env.get_wrapper_attr("action_masks") if is_masking_supported(env) else lambda: None
    observation, _ = env.reset(seed=seed)
    episode.frames += _draw(env)
    while not episode.ended and len(episode) != max_steps:
        episode.observations.append(observation)
        action = player.act(observation, greedy, allowed())
        yield episode
        observation, reward, terminated, truncated, _ = env.step(action)
        episode.rewards.append(float(reward))
        episode.frames += _draw(env)
        episode.ended = bool(terminated or truncated)
        player.observe(episode.ended)
    yield episode


def _draw(env: gym.Env) -> list[NDArray[np.uint8]]:
    """The picture of the environment, or none if it shows itself or does not draw."""
    if env.render_mode != "rgb_array":
        return []
    try:
        picture = np.asarray(env.render())
    except Exception as error:
        raise ValueError(f"its render() fails: {reason(error)}") from error
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"its render() must give pictures of the shape [height, width, 3], got {picture.shape}")
    return [picture.astype(np.uint8, copy=False)]
