"""RepeatPrevious of POPGym (Morad et al. 2023)."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from fw_rl.envs.game import State
from fw_rl.envs.popgym.cards import CARDS, SUITS, shuffled_decks
from fw_rl.envs.questions import NOTHING, QuestionGame


class RepeatPrevious(QuestionGame):
    """Say at every step the suit of a card that was dealt some time ago.

    Observation: the suit of the card that was dealt last. Action: a suit. Once k of n cards are dealt, a step earns 1 / (n - k)
    if the action is the suit of the k-th last card, which lay k - 1 steps before the last one, and costs as much if not.

    Args:
        num_decks: Decks of 52 cards that are shuffled together.
        k: Cards to look back, including the last one; from 1 to 52 num_decks - 1.

    Raises:
        ValueError: If k is out of this range.
    """

    def __init__(self, num_decks: int = 1, k: int = 4) -> None:
        self.num_decks, self.k, self.steps = num_decks, k, CARDS * num_decks - 1
        if not 1 <= k <= self.steps:
            raise ValueError(f"k must be from 1 to {self.steps}, got {k}")
        self.right, self.wrong = 1 / (self.steps + 1 - k), -1 / (self.steps + 1 - k)
        self.observation_space = self.action_space = spaces.Discrete(SUITS)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        deck = shuffled_decks(rng, num, self.num_decks, SUITS)
        answers = np.full((num, self.steps), NOTHING)
        answers[:, self.k - 1 :] = deck[:, : -self.k]
        return dict(seen=deck, answers=answers)
