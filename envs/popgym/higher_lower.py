"""HigherLower of POPGym (Morad et al. 2023)."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from fw_rl.envs.game import State
from fw_rl.envs.popgym.cards import CARDS, RANKS, shuffled_decks
from fw_rl.envs.questions import NOTHING, QuestionGame

HIGHER, LOWER = 0, 1


class HigherLower(QuestionGame):
    """Bet at every step whether the next card has a higher or a lower rank than the last one.

    Observation: the rank of the card that was dealt last. Action: 0 higher, 1 lower. Each of the n - 1 steps, for n cards,
    earns 1 / n if the bet is right, costs as much if it is wrong, and neither if the ranks are equal. Counting cards helps.

    Args:
        num_decks: Decks of 52 cards that are shuffled together.
    """

    def __init__(self, num_decks: int = 1) -> None:
        self.num_decks, self.steps = num_decks, CARDS * num_decks - 1
        self.right, self.wrong = 1 / (self.steps + 1), -1 / (self.steps + 1)
        self.observation_space, self.action_space = spaces.Discrete(RANKS), spaces.Discrete(2)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        deck = shuffled_decks(rng, num, self.num_decks, RANKS)
        rises = np.diff(deck, axis=1)
        return dict(seen=deck, answers=np.select([rises > 0, rises < 0], [HIGHER, LOWER], NOTHING))
