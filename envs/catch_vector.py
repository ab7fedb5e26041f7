"""Catch as a Gymnasium vector environment: many games in arrays (Ba16 §4.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fw_rl.envs.rendering import picture, text
from fw_rl.envs.rules import HIGHEST_KEY, MOVES, CatchRules, IntArray, PaddleStart, are_integers, describe
from fw_rl.envs.vector import check_mask, check_num_envs, generator_in, seed_one_generator

BoolArray = NDArray[np.bool_]


class CatchVectorEnv(gym.vector.VectorEnv[NDArray[Any], ArrayLike, NDArray[Any]]):
    """Many games of Catch in arrays; each plays by the rules of `CatchEnv` (Ba16 §4.4).

    Observations [num_envs, n * n] (or [num_envs, n, n]), actions [num_envs] of 0 stay, 1 right and 2 left, rewards [num_envs]
    of float64, terminations and truncations [num_envs] of bool. Every observation is a new array, which later calls do not
    write to.

    An episode that has ended begins again, as in `gymnasium.vector.SyncVectorEnv`,

    - `SAME_STEP`: at once. The observation is the first frame of the next episode; `infos["final_obs"]` holds the last frame of
      the old one. Last frames that are blank are one read-only array.
    - `NEXT_STEP`: in the next step, which ignores the action and has reward 0.
    - `DISABLED`: only by `reset`; a step after the end of an episode raises an error.

    `reset(options={"reset_mask": mask})` with a boolean array [num_envs] begins only the episodes of the mask, in every mode.
    "ball" and "paddle" fix the start: a column, or [num_envs] of them.

    One generator, `np_random`, serves all games, so a seed fixes everything for one `num_envs`, and game i is not the game that
    `CatchEnv` plays with some seed (except for `num_envs=1`).

    Args:
        num_envs: Games, at least 1.
        n: Rows and columns of the screen, at least 3.
        m: Visible frames, from 1 to n.
        paddle_width: Pixels of the paddle, from 1 to n - 1.
        paddle_start: Leftmost column of the paddle at the start: "random", "center" or a column from 0 to n - paddle_width.
        distractors: Pixels that light up at random in every frame after the first m, at least 0.
        flatten: Whether an observation of a game is [n * n] or [n, n].
        dtype: A boolean, integer or float type, or its name.
        autoreset_mode: An `AutoresetMode` or its value, such as "SameStep".
        render_mode: "rgb_array" or "ansi" (a tuple of pictures, one per game), or None.

    Raises:
        ValueError: If an argument, action, option or seed is not one of those above.
        gymnasium.error.ResetNeeded: For a step before all games were reset and, with `DISABLED`, after the end of an episode.

    Examples:
        >>> envs = CatchVectorEnv(num_envs=64, n=16, m=3)
        >>> observations, infos = envs.reset(seed=0)
        >>> actions = envs.action_space.sample()
        >>> observations, rewards, terminations, truncations, infos = envs.step(actions)
        >>> observations.shape, rewards.shape
        ((64, 256), (64,))
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (gymnasium's VectorEnv declares its type)
        "render_modes": ["rgb_array", "ansi"],
        "render_fps": 8,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        n: int = 16,
        m: int = 3,
        *,
        paddle_width: int = 2,
        paddle_start: PaddleStart = "random",
        distractors: int = 0,
        flatten: bool = True,
        dtype: DTypeLike = np.float32,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        check_render_mode(render_mode, self.metadata)
        self.num_envs = check_num_envs(num_envs)
        self.rules = CatchRules(n, m, paddle_width, paddle_start, distractors)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode

        self._shape = (n * n,) if flatten else (n, n)
        self._dtype = _pixel_type(dtype)
        self.single_observation_space = gym.spaces.Box(0, 1, self._shape, self._dtype.type)
        self.single_action_space = gym.spaces.Discrete(len(MOVES))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        # The last frame of nearly every episode, as one object that all of them share.
        blank = np.zeros(self._shape, self._dtype)
        blank.flags.writeable = False
        self._blank = np.array(None, object)
        self._blank[()] = blank

        # A ball's row is the time since its episode began. At first all are below the screen: no episode has begun. The first
        # and the last beginning tell in two comparisons of integers whether any game ends, and whether any is seen.
        self._clock = n
        self._begun, self._ball, self._paddle, self._key = np.zeros((4, num_envs), np.int64)
        self._first_begun = self._last_begun = 0

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin the episodes of all games, or of `options["reset_mask"]`; the frames are those of all games.

        Args:
            seed: Seeds the one generator: an int, or a list of `num_envs` ints taken as a whole.
            options: "ball", "paddle" and "reset_mask", each optional.
        """
        options = dict(options or {})
        mask = check_mask(options.pop("reset_mask", np.ones(self.num_envs, np.bool_)), self.num_envs)
        if self._lowest > self.rules.bottom and not mask.all():
            raise gym.error.ResetNeeded("the first reset must begin all games")
        fixed = self.rules.fixed_start(options, self.num_envs)
        seed_one_generator(self, seed)
        self._begin(mask)
        for name, columns in fixed.items():
            (self._ball if name == "ball" else self._paddle)[mask] = columns[mask]
        return self._observe(), {}

    def step(self, actions: ArrayLike) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        moves = self._check_actions(actions)
        bottom = self.rules.bottom
        if self._lowest > bottom:
            raise gym.error.ResetNeeded("no episode is under way: call reset() first")
        waiting = self._row == bottom if self._lowest == bottom else None
        if waiting is not None and self.autoreset_mode == AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded("some episodes have ended: reset them (autoreset is off)")

        self._paddle = self.rules.move(self._paddle, moves)
        self._clock += 1
        if waiting is not None:
            self._begin(waiting)

        rewards = np.zeros(self.num_envs)
        terminations = np.zeros(self.num_envs, np.bool_)
        infos: dict[str, Any] = {}
        if self._lowest == bottom:
            rewards = self.rules.reward(self._row, self._ball, self._paddle)
            terminations = self._row == bottom
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                infos = self._final_infos(terminations)
                self._begin(terminations)
        return self._observe(), rewards, terminations, np.zeros(self.num_envs, np.bool_), infos

    def render(self) -> tuple[Any, ...] | None:
        if self._lowest > self.rules.bottom:
            raise gym.error.ResetNeeded("there is nothing to render: call reset() first")
        if self.render_mode is None:
            gym.logger.warn("render() shows nothing: the envs were made without a render_mode")
            return None
        draw = picture if self.render_mode == "rgb_array" else text
        games = np.stack([self._row, self._ball, self._paddle, self._key], axis=1).tolist()
        return tuple(draw(self.rules, *game) for game in games)

    def get_state(self) -> dict[str, Any]:
        """Everything the games depend on, for JSON: lists [num_envs] "rows", "balls", "paddles" and "keys", and "random"."""
        columns = dict(rows=self._row, balls=self._ball, paddles=self._paddle, keys=self._key)
        return {name: column.tolist() for name, column in columns.items()} | {"random": self.np_random.bit_generator.state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where other envs were, which must have the same number and size.

        Args:
            state: From their `get_state`.

        Raises:
            ValueError: If `state` is not one that these envs can have. The envs are left unchanged.

        Examples:
            >>> envs = CatchVectorEnv(num_envs=2)
            >>> _ = envs.reset(seed=0)
            >>> others = CatchVectorEnv(num_envs=2)
            >>> others.set_state(envs.get_state())
        """
        highest_key = HIGHEST_KEY if self.rules.distractors else 0
        highest = dict(rows=self.rules.n, balls=self.rules.bottom, paddles=self.rules.rightmost, keys=highest_key)
        for name in (*highest, "random"):
            if not isinstance(state, Mapping) or name not in state:
                raise ValueError(
                    f"state must be a dict with {name!r}, got {list(state) if isinstance(state, Mapping) else state}"
                )
        row, ball, paddle, key = (self._check_column(name, state[name], limit) for name, limit in highest.items())
        if row.min() <= self.rules.bottom < row.max():
            raise ValueError(f"state['rows'] must be {self.rules.n} (before the first reset) for all games or none, got {row}")
        generator = generator_in(state)
        self._begun = self._clock - row
        self._first_begun, self._last_begun = int(self._begun.min()), int(self._begun.max())
        self._ball, self._paddle, self._key = ball, paddle, key
        self.np_random = generator

    @property
    def _row(self) -> IntArray:
        """The row of every ball."""
        return self._clock - self._begun

    @property
    def _lowest(self) -> int:
        """The row of the lowest ball."""
        return self._clock - self._first_begun

    def _begin(self, mask: BoolArray) -> None:
        """Begin the episodes of the mask."""
        ball, paddle, key = self.rules.start(partial(self.np_random.integers, size=int(np.count_nonzero(mask))))
        self._begun[mask] = self._clock
        self._ball[mask] = ball
        self._paddle[mask] = paddle
        self._key[mask] = key
        self._first_begun, self._last_begun = int(self._begun.min()), self._clock

    def _observe(self) -> NDArray[Any]:
        if self._clock - self._last_begun >= self.rules.m and not self.rules.distractors:  # blank: spare the drawing
            return np.zeros((self.num_envs, *self._shape), self._dtype)
        return self._screen(slice(None))

    def _final_infos(self, ended: BoolArray) -> dict[str, Any]:
        """The last frames of the ended episodes, in the form of Gymnasium's `SAME_STEP`."""
        final_obs = np.full(self.num_envs, None, object)
        if self.rules.m < self.rules.n and not self.rules.distractors:
            final_obs[ended] = self._blank
        else:
            frames = self._screen(ended)
            final_obs[ended] = np.fromiter(frames, object, len(frames))
        return {"final_obs": final_obs, "_final_obs": ended.copy(), "final_info": {}, "_final_info": ended.copy()}

    def _screen(self, games: slice | BoolArray) -> NDArray[Any]:
        row, ball, paddle, key = (part[games] for part in (self._row, self._ball, self._paddle, self._key))
        frames = self.rules.screen(row, ball, paddle, key, self._dtype)
        return frames.reshape(len(frames), *self._shape)

    def _check_column(self, name: str, value: Any, highest: int) -> IntArray:
        column = np.asarray(value)
        if column.shape != (self.num_envs,) or not are_integers(column, highest):
            wanted = f"{self.num_envs} integers from 0 to {highest}"
            raise ValueError(f"state[{name!r}] must be {wanted}, got {describe(column)}")
        return column.astype(np.int64)

    def _check_actions(self, actions: ArrayLike) -> NDArray[np.integer]:
        moves = np.asarray(actions)
        if moves.shape != (self.num_envs,) or not are_integers(moves, len(MOVES) - 1):
            wanted = f"{self.num_envs} integers of 0 (stay), 1 (right) or 2 (left)"
            raise ValueError(f"actions must be {wanted}, got {describe(actions)}")
        return moves


def _pixel_type(dtype: DTypeLike) -> np.dtype[Any]:
    """The NumPy type of `dtype`; ValueError unless it is boolean, integer or float."""
    try:
        pixel = np.dtype(dtype)
    except TypeError:
        pixel = np.dtype(object)
    if pixel.kind not in "biuf":
        raise ValueError(f"dtype must be a boolean, integer or float type, got {dtype!r}")
    return pixel


def check_render_mode(render_mode: str | None, metadata: dict[str, Any]) -> None:
    """Raise ValueError unless `metadata` offers `render_mode`, or it is None."""
    modes = metadata["render_modes"]
    if render_mode not in (*modes, None):
        raise ValueError(f"render_mode must be one of {', '.join(modes)} or None, got {render_mode!r}")
