"""The pictures of Catch: what the player sees and, dimmed, what a blank frame hides."""

from __future__ import annotations

import importlib
import os
import sys
import time
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from fw_rl.envs.rules import CatchRules

Image = NDArray[np.uint8]

SEEN = {
    "border": (92, 110, 148),
    "screen": (22, 28, 43),
    "grid": (34, 43, 65),
    "ball": (255, 178, 84),
    "paddle": (89, 194, 255),
}
BLANK = {
    "border": (34, 38, 50),
    "screen": (8, 9, 13),
    "grid": (18, 20, 28),
    "ball": (138, 98, 50),
    "paddle": (36, 78, 102),
    "distractor": (214, 219, 230),
}


def picture(rules: CatchRules, row: int, ball: int, paddle: int, key: int = 0) -> Image:
    """Draw one game as an image [side, side, 3] of about 300 pixels a side, bright on a grid if seen, else dim on stripes."""
    blank = row >= rules.m
    colors = BLANK if blank else SEEN
    cell = max(4, 2 * round(144 / rules.n))  # even, as video encoders want
    margin = 6
    y, x = np.mgrid[0 : rules.n * cell, 0 : rules.n * cell]
    screen = np.full((*y.shape, 3), colors["screen"], np.float64)
    pattern = (x + y) % (2 * cell) < cell if blank else (x % cell == 0) | (y % cell == 0)
    screen[pattern] = colors["grid"]

    def paint(name: str, row: int, column: int, width: int, height: float, radius: float) -> None:
        """Paint a rounded box of `width` cells: the coverage of a pixel falls with its distance."""
        dy = np.abs((y + 0.5) / cell - row - 0.5) - height / 2 + radius
        dx = np.abs((x + 0.5) / cell - column - width / 2) - (width - 1 + height) / 2 + radius
        distance = np.hypot(dy.clip(0), dx.clip(0)) - radius
        coverage = (0.5 - distance * cell).clip(0, 1)[..., None]
        screen[:] += coverage * (np.array(colors[name]) - screen)

    paint("paddle", rules.bottom, paddle, rules.paddle_width, 0.84, 0.24)
    paint("ball", row, ball, 1, 0.8, 0.4)
    for place in _distraction(rules, row, key):
        paint("distractor", *place, 1, 0.5, 0.1)

    side = rules.n * cell + 2 * margin
    image = np.full((side, side, 3), colors["border"], np.uint8)
    image[margin:-margin, margin:-margin] = screen.round()
    return image


def text(rules: CatchRules, row: int, ball: int, paddle: int, key: int = 0) -> str:
    """Draw one game as text: "O" and "=" on dots if the player sees it, else "o" and "-", and "*" for distractors."""
    empty, ball_mark, paddle_mark = " o-" if row >= rules.m else ".O="
    screen = np.full((rules.n, rules.n), empty)
    screen[rules.bottom, paddle : paddle + rules.paddle_width] = paddle_mark
    screen[row, ball] = ball_mark
    for place in _distraction(rules, row, key):
        screen[place] = "*"
    edge = "+" + "-" * rules.n + "+"
    lines = ["|" + "".join(line) + "|" for line in screen]
    seen = "blank" if row >= rules.m else "seen"
    return "\n".join([f"frame {row + 1} of {rules.n}: {seen}", edge, *lines, edge])


def _distraction(rules: CatchRules, row: int, key: int) -> list[tuple[int, int]]:
    """The rows and columns of the distractors that the player sees."""
    if row < rules.m or not rules.distractors:
        return []
    places = rules.distraction(np.array([row]), np.array([key]))[0]
    return [divmod(place, rules.n) for place in places.tolist()]


ANSWER = 0.02
"""Seconds between two checks whether the user closes a window."""


class Window:
    """A window that shows pictures, opened by the first one if not before; needs pygame.

    It enlarges a picture as many times as the screen has room for, and can have any size. `closed` says whether the user has
    closed it: then it stays as it is.
    """

    def __init__(self, title: str, fps: float) -> None:
        self.title, self.fps = title, fps
        self.closed = False
        self._pygame: Any = None

    def open(self, width: int, height: int) -> None:
        """Open the window for pictures of this size; `gymnasium.error.Error` if there is no screen or no pygame."""
        try:
            pygame = importlib.import_module("pygame")
        except ImportError as error:
            raise gym.error.DependencyNotInstalled('a window needs pygame: pip install "fw-rl[human]"') from error
        named = [os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")]
        if sys.platform == "linux" and not any(named):  # SDL would draw where nobody sees it
            raise gym.error.Error("a window cannot be opened: there is no screen")
        try:
            pygame.display.init()
            if pygame.display.get_driver() == "offscreen" != named[-1]:
                raise pygame.error("there is no screen")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a slow renderer, which is fast enough
                self._screen = pygame.display.set_mode((width, height), pygame.SCALED | pygame.RESIZABLE)
        except pygame.error as error:
            pygame.display.quit()
            raise gym.error.Error(f"a window cannot be opened: {error}") from error
        pygame.display.set_caption(self.title)
        self._pygame, self._shown, self.closed = pygame, time.perf_counter(), False

    def show(self, image: Image) -> None:
        """Show `image` [height, width, 3] for 1 / fps; all images have the size of the first."""
        if self._pygame is None:
            self.open(image.shape[1], image.shape[0])
        self._screen.blit(self._pygame.surfarray.make_surface(image.swapaxes(0, 1)), (0, 0))
        self._pygame.display.flip()
        self.stay(self._shown + 1 / self.fps - time.perf_counter())
        self._shown = time.perf_counter()

    def stay(self, seconds: float) -> None:
        """Keep the picture for this long, or until the user closes the window."""
        end = time.perf_counter() + seconds
        while True:
            self.closed |= any(event.type == self._pygame.QUIT for event in self._pygame.event.get())
            left = end - time.perf_counter()
            if self.closed or left <= 0:
                return
            time.sleep(min(left, ANSWER))

    def close(self) -> None:
        """Close the window if it is open; the next picture opens it again."""
        if self._pygame is not None:
            self._pygame.display.quit()
            self._pygame = None
