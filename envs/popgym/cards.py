"""What card games share: decks, and questions whose answers are known when the deck is shuffled."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fw_rl.envs.game import Game, Outcome, State

CARDS = 52
COLORS, SUITS, RANKS = 2, 4, 13

NOTHING = -1
"""The answer where nothing is asked."""


def shuffled_decks(rng: np.random.Generator, num: int, num_decks: int, kinds: int) -> NDArray[np.int64]:
    """Decks [num, 52 num_decks] in the order in which they are dealt, with as many cards of each of the kinds 0, 1, ..."""
    sorted_deck = np.arange(CARDS * num_decks) % kinds
    return rng.permuted(np.tile(sorted_deck, (num, 1)), axis=1)


def pick(table: NDArray[Any], column: NDArray[np.int64]) -> NDArray[Any]:
    """From each row of a table [num, columns, ...] the entry of its column, [num, ...]."""
    return table[np.arange(len(table)), column]


class CardGame(Game):
    """A game in which actions change nothing: all that is seen, and the right actions, follow from the shuffled deck.

    An episode has `steps` steps. A right action earns `prize`, any other costs as much, and where nothing is asked, neither.
    """

    steps: int
    prize: float

    @abstractmethod
    def deal(self, rng: np.random.Generator, num: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What is seen [num, steps + 1, ...], and the right actions [num, steps], `NOTHING` where nothing is asked."""

    def begin(self, rng: np.random.Generator, num: int) -> State:
        seen, answers = self.deal(rng, num)
        return dict(seen=seen, answers=answers)

    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        answers = pick(state["answers"], state["t"] - 1)
        rewards = np.where(actions == answers, self.prize, -self.prize)
        rewards[answers == NOTHING] = 0.0
        return rewards, state["t"] == self.steps, np.zeros(len(actions), np.bool_)

    def observe(self, state: State) -> NDArray[Any]:
        return pick(state["seen"], state["t"])
