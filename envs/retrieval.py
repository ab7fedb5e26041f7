"""The retrieval game: key-value pairs are shown, then the values of the keys are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fw_rl.envs.game import State
from fw_rl.envs.questions import NOTHING, QuestionGame, shuffled
from fw_rl.envs.retrieval_picture import draw_retrieval
from fw_rl.envs.rules import IntArray, is_integer


class RetrievalGame(QuestionGame):
    """The retrieval task of Ba16 §4.1 as a game, in which only a right answer is rewarded.

    First `pairs` steps each show a key and its value, then `gap` steps are blank, then each key is asked for once, in random
    order. The keys of an episode differ; its values are drawn independently, and some may be equal. A right answer earns 1 /
    `pairs`, so the maximum is 1. A player that knows which values were shown, but not with which keys, does best with the most
    frequent value: on average that earns 0.41 with 4 pairs, and 0.32 with 8.

    Observation: `MultiDiscrete`, the key and the value, from 1 on; 0 is none, so a key without a value is a question.
    Action: `Discrete(values)`, the answer: the value less 1; ignored where nothing is asked.

    Args:
        pairs: Number of pairs, from 1 to `keys`.
        gap: Blank steps between the last pair and the first question, at least 0.
        keys: Different keys, at least 1.
        values: Different values, at least 2.

    Raises:
        ValueError: If an argument is not one of those above.

    Examples:
        >>> import gymnasium
        >>> env = gymnasium.make("fw_rl:fw_rl/Retrieval-4-v0")
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(0)
    """

    render_fps = 1

    def __init__(self, pairs: int = 8, gap: int = 0, *, keys: int = 16, values: int = 8) -> None:
        for name, number, least in (("keys", keys, 1), ("values", values, 2), ("gap", gap, 0)):
            if not (is_integer(number) and number >= least):
                raise ValueError(f"{name} must be an integer of at least {least}, got {number!r}")
        if not (is_integer(pairs) and 1 <= pairs <= keys):
            raise ValueError(f"pairs must be an integer from 1 to keys = {keys}, got {pairs!r}")
        self.pairs, self.gap, self.keys, self.values = pairs, gap, keys, values
        self.steps, self.right = 2 * pairs + gap, 1 / pairs
        self.observation_space = spaces.MultiDiscrete([keys + 1, values + 1])
        self.action_space = spaces.Discrete(values)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        keys = shuffled(rng, num, np.arange(1, self.keys + 1))[:, : self.pairs]
        values = 1 + rng.integers(self.values, size=(num, self.pairs))
        return self.deal(keys, values, shuffled(rng, num, np.arange(self.pairs)))

    def deal(self, keys: IntArray, values: IntArray, order: IntArray) -> State:
        """The state of episodes with these pairs, asked for in this order.

        Args:
            keys: The keys in the order in which they are shown, [num, K], from 1 on.
            values: Their values, [num, K], from 1 on.
            order: Which of the pairs is asked for first, second and so on, [num, K], from 0 on.
        """
        first = self.pairs + self.gap
        seen = np.zeros((len(keys), self.steps + 1, 2), np.int64)  # the last observation is blank
        seen[:, : self.pairs] = np.stack([keys, values], axis=2)
        seen[:, first:-1, 0] = np.take_along_axis(keys, order, axis=1)
        answers = np.full((len(keys), self.steps), NOTHING)
        answers[:, first:] = np.take_along_axis(values, order, axis=1) - 1
        return dict(seen=seen, answers=answers)

    def picture(self, state: State, actions: Sequence[Any]) -> NDArray[np.uint8]:
        """The key and its value or a question mark on cards, and below them the answers given so far, [300, 300, 3]."""
        (answers,), (seen,), (t,) = (state[name].tolist() for name in ("answers", "seen", "t"))
        key, value = seen[t]
        return draw_retrieval(key, value, answers, [int(one) for one in actions], [one for one, _ in seen], self.values)
