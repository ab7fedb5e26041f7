"""RepeatFirst of POPGym (Morad et al. 2023)."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from fw_rl.envs.game import State
from fw_rl.envs.popgym.cards import CARDS, SUITS, shuffled_decks
from fw_rl.envs.questions import QuestionGame


class RepeatFirst(QuestionGame):
    """Say at every step the suit of the first card, while the rest of the deck is dealt.

    Observation: the suit of the card that was dealt last. Action: a suit. Each of the n - 1 steps, for n cards, earns
    1 / (n - 1) if the action is the suit of the first card, and costs as much if not.

    Args:
        num_decks: Decks of 52 cards that are shuffled together.
    """

    def __init__(self, num_decks: int = 1) -> None:
        self.num_decks, self.steps = num_decks, CARDS * num_decks - 1
        self.right, self.wrong = 1 / self.steps, -1 / self.steps
        self.observation_space = self.action_space = spaces.Discrete(SUITS)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        deck = shuffled_decks(rng, num, self.num_decks, SUITS)
        return dict(seen=deck, answers=np.repeat(deck[:, :1], self.steps, axis=1))
