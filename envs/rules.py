"""The rules of Catch (Ba16 §4.4), stated once for one game and for many at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

IntArray = NDArray[np.int64]
PaddleStart = Literal["random", "center"] | int

# What each action adds to the paddle's column: stay, right, left.
MOVES = np.array([0, 1, -1])


@dataclass(frozen=True)
class CatchRules:
    """The rules of Catch on arrays of games (Ba16 §4.4).

    A game is three integers: the row of the ball, the column of the ball, and the leftmost column
    of the paddle, which lies in the bottom row. The methods take and return them as arrays `row`,
    `ball` and `paddle` of shape [num], one entry a game.

    Args:
        n: Rows and columns of the screen, and frames of an episode; at least 3.
        m: Frames that are seen before the screen goes blank, from 1 to n.
        paddle_width: Pixels of the paddle, from 1 to n - 1.
        paddle_start: Leftmost column of the paddle at the start: "random" (uniform), "center", or
            a column from 0 to n - paddle_width. The paper leaves it open.

    Raises:
        ValueError: An argument is none of those above.
    """

    n: int = 16
    m: int = 3
    paddle_width: int = 2
    paddle_start: PaddleStart = "random"

    def __post_init__(self) -> None:
        if not (is_integer(self.n) and self.n >= 3):
            raise ValueError(f"n must be an integer of at least 3, got {self.n!r}")
        if not (is_integer(self.m) and 1 <= self.m <= self.n):
            raise ValueError(f"m must be an integer from 1 to n = {self.n}, got {self.m!r}")
        if not (is_integer(self.paddle_width) and 1 <= self.paddle_width < self.n):
            raise ValueError(f"paddle_width must be an integer from 1 to n - 1 = {self.n - 1}, got {self.paddle_width!r}")
        if self.paddle_start not in ("random", "center") and not (
            is_integer(self.paddle_start) and 0 <= int(self.paddle_start) <= self.rightmost
        ):
            raise ValueError(
                "paddle_start must be 'random', 'center' or a column from 0 to "
                f"n - paddle_width = {self.rightmost}, got {self.paddle_start!r}"
            )

    @property
    def bottom(self) -> int:
        """The last row, where the paddle lies and a game ends."""
        return self.n - 1

    @property
    def rightmost(self) -> int:
        """The highest column that the paddle can have."""
        return self.n - self.paddle_width

    def start(self, rng: np.random.Generator, num: int) -> tuple[IntArray, IntArray]:
        """Draw the columns of `num` balls, then those of `num` paddles."""
        ball = rng.integers(self.n, size=num)
        if self.paddle_start == "random":
            return ball, rng.integers(self.rightmost + 1, size=num)
        column = self.rightmost // 2 if self.paddle_start == "center" else self.paddle_start
        return ball, np.full(num, column)

    def move(self, paddle: IntArray, actions: NDArray[np.integer]) -> IntArray:
        """Move each paddle by its action, 0 stay, 1 right or 2 left; the walls stop it."""
        moved: IntArray = np.minimum(np.maximum(paddle + MOVES[actions], 0), self.rightmost)
        return moved

    def reward(self, row: IntArray, ball: IntArray, paddle: IntArray) -> NDArray[np.float64]:
        """At the bottom row +1 if the paddle touches the ball and -1 if not; 0 above it."""
        touched = (paddle <= ball) & (ball < paddle + self.paddle_width)
        return np.where(row == self.bottom, np.where(touched, 1.0, -1.0), 0.0)

    def screen(self, row: IntArray, ball: IntArray, paddle: IntArray, dtype: DTypeLike) -> NDArray[Any]:
        """The frames [num, n, n] that the players see: zeros and ones, blank from row m on."""
        frames = np.zeros((len(row), self.n, self.n), dtype)
        seen = row < self.m
        if not seen.any():
            return frames
        game = np.arange(len(row))
        frames[game, row, ball] = seen
        for pixel in range(self.paddle_width):
            frames[game, self.bottom, paddle + pixel] = seen
        return frames

    def fixed_start(self, options: Mapping[str, Any] | None, num: int) -> dict[str, IntArray]:
        """The columns [num] that `reset(options=...)` fixes, by name: "ball", "paddle" or both.

        Raises:
            ValueError: An option of another name, or columns that are no integers, off the screen
                or not `num`.
        """
        highest = {"ball": self.bottom, "paddle": self.rightmost}
        fixed = {}
        for name, value in (options or {}).items():
            if name not in highest:
                raise ValueError(f"the reset options are 'ball' and 'paddle', got {name!r}")
            columns = np.asarray(value)
            if (
                columns.dtype.kind not in "iu"
                or columns.shape not in ((), (num,))
                or not 0 <= columns.min() <= columns.max() <= highest[name]
            ):
                raise ValueError(
                    f"the reset option {name!r} must be a column from 0 to {highest[name]}"
                    f"{' or an array of them' if num > 1 else ''}, got {describe(value)}"
                )
            fixed[name] = np.full(num, columns, np.int64)
        return fixed


def describe(value: ArrayLike) -> str:
    """`value` in one short line, for the message of an error."""
    array = np.asarray(value)
    if array.ndim == 0:
        return repr(value)
    numbers = array.size and array.dtype.kind in "biuf"
    limits = f" from {array.min()} to {array.max()}" if numbers else ""
    return f"{array.dtype} of shape {array.shape}{limits}"


def is_integer(value: object) -> bool:
    """Whether `value` is a Python or NumPy integer; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
