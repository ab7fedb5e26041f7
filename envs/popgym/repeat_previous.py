"""RepeatPrevious of POPGym (Morad et al. 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fw_rl.envs.game import Game, Outcome, State
from fw_rl.envs.popgym.cards import CARDS, SUITS, no_cut, pick, shuffled_decks


class RepeatPrevious(Game):
    """Say at every step the suit of a card that was dealt some time ago.

    Observation: the suit of the card that was dealt last. Action: a suit. As soon as k cards are dealt, of n, a step earns
    1 / (n - k) if the action is the suit of the k-th last card, which lay k - 1 steps before the last one, and costs as much if
    not.

    Args:
        num_decks: Decks of 52 cards that are shuffled together.
        k: Cards to look back, the last one counted; from 1 to 52 num_decks - 1.

    Raises:
        ValueError: If k is none of those above.
    """

    def __init__(self, num_decks: int = 1, k: int = 4) -> None:
        self.num_decks, self.k, self.cards = num_decks, k, CARDS * num_decks
        if not 1 <= k < self.cards:
            raise ValueError(f"k must be from 1 to {self.cards - 1}, got {k}")
        self.observation_space = self.action_space = spaces.Discrete(SUITS)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        return dict(deck=shuffled_decks(rng, num, self.num_decks, SUITS))

    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        asked = state["t"] - self.k
        signs = np.where(actions == pick(state["deck"], asked), 1.0, -1.0)
        rewards = np.where(asked >= 0, signs, 0.0) / (self.cards - self.k)
        terminations = state["t"] == self.cards - 1
        return rewards, terminations, no_cut(terminations)

    def observe(self, state: State) -> NDArray[Any]:
        return pick(state["deck"], state["t"])
