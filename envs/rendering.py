"""The pictures of Catch: what the player sees and, dimmed, what a blank frame hides."""

from __future__ import annotations

import importlib
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


class Window:
    """A window that shows pictures, opened by the first one; needs pygame."""

    def __init__(self, title: str, fps: int) -> None:
        self.title = title
        self.fps = fps
        self._pygame: Any = None

    def show(self, image: Image) -> None:
        """Show `image` [height, width, 3], no sooner than 1 / fps after the last one."""
        if self._pygame is None:
            self._open(image.shape[1], image.shape[0])
        pygame = self._pygame
        pygame.event.pump()  # keeps the window answering to the desktop
        self._screen.blit(pygame.surfarray.make_surface(image.swapaxes(0, 1)), (0, 0))
        pygame.display.flip()
        self._clock.tick(self.fps)

    def close(self) -> None:
        """Close the window if it is open; the next picture opens it again."""
        if self._pygame is not None:
            self._pygame.display.quit()
            self._pygame = None

    def _open(self, width: int, height: int) -> None:
        try:
            pygame = importlib.import_module("pygame")
        except ImportError as error:
            raise gym.error.DependencyNotInstalled('render_mode="human" needs pygame: pip install "fw-rl[human]"') from error
        pygame.display.init()
        pygame.display.set_caption(self.title)
        self._screen = pygame.display.set_mode((width, height))
        self._clock = pygame.time.Clock()
        self._pygame = pygame
