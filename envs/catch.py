"""Catch as a Gymnasium environment: one game (Ba16 §4.4)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import DTypeLike, NDArray

from fw_rl.envs.catch_vector import CatchVectorEnv, check_render_mode
from fw_rl.envs.rendering import Window
from fw_rl.envs.rules import PaddleStart


class CatchEnv(gym.Env[NDArray[Any], int | np.integer]):
    """One game of partially observable Catch (Ba16 §4.4).

    The screen has n x n binary pixels. The ball, one pixel, appears in a random column of the first row and falls one row per
    step; the paddle, `paddle_width` pixels, lies in the bottom row. In a step the paddle moves, then the ball falls. When it
    reaches the bottom row the episode terminates, with reward +1 if the paddle touches the ball and -1 if not; every other
    reward is 0. The first m frames are seen. All later ones are zeros, or with `distractors`, a variant not in the paper, have
    that many ones at random places: the player has to remember where the ball and the paddle are.

    An episode has n frames, so n - 1 steps, and needs no time limit. A perfect player always scores +1: the farthest the paddle
    has to move in its n - 1 moves is n - paddle_width, from wall to wall.

    Observation: zeros and ones of `dtype`, [n * n] row by row, or [n, n] if not `flatten`. Action: `Discrete(3)`: 0 stay, 1
    right, 2 left, in the paper's order.

    `reset(options={"ball": column, "paddle": column})` fixes the start of one episode or a part of it. The random columns are
    still drawn, so later episodes don't depend on it.

    Args:
        n: Rows and columns of the screen, at least 3.
        m: Visible frames, from 1 to n.
        paddle_width: Pixels of the paddle, from 1 to n - 1.
        paddle_start: Leftmost column of the paddle at the start: "random", "center" or a column from 0 to n - paddle_width.
        distractors: Pixels that light up at random in every frame after the first m, at least 0.
        flatten: Whether an observation is a vector [n * n] or an image [n, n].
        dtype: A boolean, integer or float type, or its name.
        render_mode: "rgb_array", "ansi", "human" (a window; needs pygame) or None.

    Raises:
        ValueError: If an argument, action or option is not one of those above.
        gymnasium.error.ResetNeeded: For a step or picture before `reset`, and a step after the end.
        gymnasium.error.DependencyNotInstalled: For "human" without pygame.

    Examples:
        >>> env = CatchEnv(n=16, m=3)
        >>> observation, info = env.reset(seed=0, options={"ball": 5, "paddle": 4})
        >>> observation, reward, terminated, truncated, info = env.step(1)
        >>> observation.reshape(16, 16).nonzero()  # the ball at (1, 5), the paddle from (15, 5)
        (array([ 1, 15, 15]), array([5, 5, 6]))
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (gymnasium.Env declares its type)
        "render_modes": ["rgb_array", "ansi", "human"],
        "render_fps": 8,
    }

    def __init__(
        self,
        n: int = 16,
        m: int = 3,
        *,
        paddle_width: int = 2,
        paddle_start: PaddleStart = "random",
        distractors: int = 0,
        flatten: bool = True,
        dtype: DTypeLike = np.float32,
        render_mode: str | None = None,
    ) -> None:
        check_render_mode(render_mode, self.metadata)
        self._game = CatchVectorEnv(
            1,
            n,
            m,
            paddle_width=paddle_width,
            paddle_start=paddle_start,
            distractors=distractors,
            flatten=flatten,
            dtype=dtype,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode="rgb_array" if render_mode == "human" else render_mode,
        )
        self.rules = self._game.rules
        self.observation_space, self.action_space = self._game.single_observation_space, self._game.single_action_space
        self.render_mode = render_mode
        self._window = Window("Catch", self.metadata["render_fps"])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[NDArray[Any], dict[str, Any]]:
        super().reset(seed=seed)
        self._game.np_random = self.np_random
        observations, info = self._game.reset(options=options)
        if self.render_mode == "human":
            self.render()
        return observations[0], info

    def step(self, action: int | np.integer) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"action must be 0 (stay), 1 (right) or 2 (left), got {action!r}")
        observations, rewards, terminations, _, info = self._game.step(np.array([action]))
        if self.render_mode == "human":
            self.render()
        return observations[0], float(rewards[0]), bool(terminations[0]), False, info

    def render(self) -> NDArray[np.uint8] | str | None:
        """The picture of the frame, with what a blank frame hides dimmed: an image [height, width, 3], text, or a window."""
        pictures = self._game.render()
        if pictures is None or self.render_mode != "human":
            return None if pictures is None else pictures[0]
        self._window.show(pictures[0])
        return None

    def close(self) -> None:
        self._window.close()
