"""The rules of Catch (Ba16 §4.4), stated once for one game and for many at a time, in NumPy or in Torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

IntArray = NDArray[np.int64]
PaddleStart = Literal["random", "center"] | int

HIGHEST_KEY = 2**32 - 1

# What each action adds to the paddle's column: stay, right, left.
MOVES = np.array([0, 1, -1])


@dataclass(frozen=True)
class CatchRules:
    """The rules of Catch on arrays of games (Ba16 §4.4).

    A game is four integers: the row of the ball, the column of the ball, the leftmost column of the paddle, which lies in the
    bottom row, and the key of its distractors. The methods take and return them as arrays `row`, `ball`, `paddle` and `key`
    [num], one entry per game. `start`, `move`, `reward` and `draw` also take Torch tensors.

    Args:
        n: Rows and columns of the screen, and frames of an episode; at least 3.
        m: Visible frames before the screen goes blank, from 1 to n.
        paddle_width: Pixels of the paddle, from 1 to n - 1.
        paddle_start: Leftmost column of the paddle at the start, which the paper leaves open: "random" (uniform), "center", or
            a column from 0 to n - paddle_width.
        distractors: Pixels that light up at random in every later frame, at least 0; those of the paper's game stay blank.

    Raises:
        ValueError: If an argument is not one of those above.
    """

    n: int = 16
    m: int = 3
    paddle_width: int = 2
    paddle_start: PaddleStart = "random"
    distractors: int = 0

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
            known = f"'random', 'center' or a column from 0 to n - paddle_width = {self.rightmost}"
            raise ValueError(f"paddle_start must be {known}, got {self.paddle_start!r}")
        if not (is_integer(self.distractors) and 0 <= self.distractors < self.n**2):
            raise ValueError(f"distractors must be an integer from 0 to n * n - 1 = {self.n**2 - 1}, got {self.distractors!r}")

    @property
    def bottom(self) -> int:
        """The last row, where the paddle lies and a game ends."""
        return self.n - 1

    @property
    def rightmost(self) -> int:
        """The highest column that the paddle can have."""
        return self.n - self.paddle_width

    def start(self, integers: Callable[[int], Any]) -> tuple[Any, Any, Any]:
        """Draw the columns of balls [num], then those of paddles [num], then the keys [num] of distractors, if there are any.

        Args:
            integers: Draws [num] integers from 0 to less than its argument.
        """
        ball = integers(self.n)
        if self.paddle_start == "random":
            paddle = integers(self.rightmost + 1)
        else:
            paddle = 0 * ball + (self.rightmost // 2 if self.paddle_start == "center" else self.paddle_start)
        return ball, paddle, integers(HIGHEST_KEY + 1) if self.distractors else 0 * ball

    def move(self, paddle: Any, actions: Any) -> Any:
        """The columns of the paddles after their moves, [num]; walls stop them.

        Args:
            paddle: Leftmost columns, [num].
            actions: 0 stay, 1 right or 2 left, [num].
        """
        if isinstance(paddle, np.ndarray):  # the same by a table, in a third of the time
            return np.minimum(np.maximum(paddle + MOVES[actions], 0), self.rightmost)
        return (paddle + (actions == 1) + -1 * (actions == 2)).clip(0, self.rightmost)

    def reward(self, row: Any, ball: Any, paddle: Any) -> Any:
        """At the bottom row +1 if the paddle touches the ball and -1 if not; 0 above it.

        Args:
            row: Rows of the balls, [num].
            ball: Columns of the balls, [num].
            paddle: Leftmost columns of the paddles, [num].
        """
        lands, touched = row == self.bottom, (paddle <= ball) & (ball < paddle + self.paddle_width)
        return 1.0 * (lands & touched) - 1.0 * (lands & ~touched)

    def draw(self, frames: Any, games: Any, row: Any, ball: Any, paddle: Any) -> None:
        """Light balls and paddles in dark frames, up to row m.

        Args:
            frames: Zeros [num, n, n], which are written to.
            games: 0 to num - 1, [num].
            row: Rows of the balls, [num].
            ball: Columns of the balls, [num].
            paddle: Leftmost columns of the paddles, [num].
        """
        frames[games, row, ball] = 1
        for pixel in range(self.paddle_width):
            frames[games, self.bottom, paddle + pixel] = 1
        frames[row >= self.m] = 0

    def screen(self, row: IntArray, ball: IntArray, paddle: IntArray, key: IntArray, dtype: DTypeLike) -> NDArray[Any]:
        """The frames [num, n, n] that the players see: zeros and ones, with only distractors from row m on.

        Args:
            row: Rows of the balls, [num].
            ball: Columns of the balls, [num].
            paddle: Leftmost columns of the paddles, [num].
            key: Keys of the distractors, [num].
            dtype: The type of the pixels.
        """
        frames = np.zeros((len(row), self.n, self.n), dtype)
        if (row < self.m).any():  # most frames of a game are dark
            self.draw(frames, np.arange(len(row)), row, ball, paddle)
        if self.distractors:
            game = np.flatnonzero(row >= self.m)
            frames.reshape(len(row), -1)[game[:, None], self.distraction(row[game], key[game])] = 1
        return frames

    def distraction(self, row: IntArray, key: IntArray) -> IntArray:
        """The pixels [num, distractors] that are lit, row by row from 0 to n * n - 1; some may coincide.

        They are a function of key and row, so a game looks the same when it is drawn again.

        Args:
            row: Rows of the balls, [num].
            key: Keys of the distractors, [num].
        """
        number = row[:, None] * self.distractors + np.arange(self.distractors)
        return (_scramble(key[:, None].astype(np.uint64), number.astype(np.uint64)) % np.uint64(self.n**2)).astype(np.int64)

    def fixed_start(self, options: Mapping[str, Any] | None, num: int) -> dict[str, IntArray]:
        """The columns [num] that reset options fix, by name: "ball", "paddle" or both.

        Args:
            options: Options of `reset`; a column, or [num] of them, by name.
            num: Number of games that start.

        Raises:
            ValueError: If an option has another name, or columns are not integers, off the screen or not `num`.
        """
        highest = {"ball": self.bottom, "paddle": self.rightmost}
        fixed = {}
        for name, value in (options or {}).items():
            if name not in highest:
                raise ValueError(f"options must be among {', '.join(highest)}, got {name!r}")
            columns = np.asarray(value)
            if columns.shape not in ((), (num,)) or not are_integers(columns, highest[name]):
                many = " or an array of them" if num > 1 else ""
                raise ValueError(f"{name} must be a column from 0 to {highest[name]}{many}, got {describe(value)}")
            fixed[name] = np.full(num, columns, np.int64)
        return fixed


def _scramble(key: NDArray[np.uint64], number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Random bits for each number under a key: those of the SplitMix64 generator (Steele et al. 2014) after that many steps."""
    bits = (key << np.uint64(32)) + (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def describe(value: ArrayLike) -> str:
    """`value` in one short line, for an error message."""
    array = np.asarray(value)
    if array.ndim == 0:
        return repr(value)
    numbers = array.size and array.dtype.kind in "biuf"
    limits = f" from {array.min()} to {array.max()}" if numbers else ""
    return f"{array.dtype} of shape {array.shape}{limits}"


def are_integers(array: NDArray[Any], highest: int) -> bool:
    """Whether `array` holds integers from 0 to `highest`."""
    return array.dtype.kind in "iu" and np.minimum.reduce(array, None) >= 0 and np.maximum.reduce(array, None) <= highest


def is_integer(value: object) -> bool:
    """Whether `value` is a Python or NumPy integer; True and False are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
