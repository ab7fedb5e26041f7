"""Games of questions, in which actions affect only the reward."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fw_rl.envs.game import Game, Outcome, State
from fw_rl.envs.rules import IntArray

NOTHING = -1
"""The answer where nothing is asked."""


class QuestionGame(Game):
    """A game whose observations and right actions are all decided when an episode begins.

    The state that `begin` returns has "seen", the observations [num, steps + 1, ...], and "answers", the right actions
    [num, steps], or `NOTHING`, where no action earns a reward.
    """

    steps: int
    """Length of an episode."""

    right: float
    """What a right action earns."""

    wrong: float = 0.0
    """What any other action earns."""

    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        answers = pick(state["answers"], state["t"] - 1)
        rewards = np.where(actions == answers, self.right, self.wrong)
        rewards[answers == NOTHING] = 0.0
        return rewards, state["t"] == self.steps, np.zeros(len(actions), np.bool_)

    def observe(self, state: State) -> NDArray[Any]:
        return pick(state["seen"], state["t"])


def pick(table: NDArray[Any], column: NDArray[Any]) -> NDArray[Any]:
    """From each row of a table [num, columns, ...] the entry of its column, [num, ...]."""
    return table[np.arange(len(table)), column]


def shuffled(rng: np.random.Generator, num: int, numbers: IntArray) -> IntArray:
    """These numbers in `num` random orders, [num, numbers]."""
    return rng.permuted(np.tile(numbers, (num, 1)), axis=1)
