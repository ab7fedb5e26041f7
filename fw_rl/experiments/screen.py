"""Episodes on the screen, while they are played."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import gymnasium as gym
import numpy as np

from fw_rl.agents import RecurrentOnPolicyAlgorithm
from fw_rl.envs.rendering import Window
from fw_rl.experiments.animation import REST
from fw_rl.experiments.episodes import Episode
from fw_rl.experiments.memory_view import SIDE, MemoryView

__all__ = ["EpisodeWindow"]


class EpisodeWindow:
    """A window for the frames of an environment that draws as "rgb_array", with or without the memory beside them.

    `gymnasium.error.Error` without a screen or pygame, or if the environment has taken the only window of pygame.
    """

    def __init__(self, title: str, model: RecurrentOnPolicyAlgorithm, env: gym.Env, show_memory: bool = True) -> None:
        self.model, self.show_memory = model, show_memory
        self._window = Window(title, env.metadata.get("render_fps") or 10)
        height, width = np.asarray(env.render()).shape[:2]
        if (pygame := sys.modules.get("pygame")) and pygame.display.get_surface():
            raise gym.error.Error("the environment takes the only window of pygame to draw in; --gif FILE shows it")
        self._window.open(*((2 * SIDE, SIDE) if show_memory else (width, height)))

    @property
    def closed(self) -> bool:
        """Whether the user has closed the window."""
        return self._window.closed

    def watch(self, steps: Iterator[Episode]) -> Iterator[Episode]:
        """The steps of an episode, each shown until it is time for the next; they end when the window is closed."""
        view = MemoryView(self.model) if self.show_memory else None
        for episode in steps:
            self._window.show(view.picture(episode) if view else episode.frames[-1])
            episode.frames.clear()  # they are large
            yield episode
            if self.closed:
                return
        self._window.stay(REST)

    def close(self) -> None:
        """Close the window."""
        self._window.close()
