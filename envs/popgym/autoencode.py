"""Autoencode of POPGym (Morad et al. 2023)."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from fw_rl.envs.game import State
from fw_rl.envs.popgym.cards import CARDS, SUITS, shuffled_decks
from fw_rl.envs.questions import NOTHING, QuestionGame

PLAY, WATCH = 0, 1


class Autoencode(QuestionGame):
    """Watch all cards of a deck, then say their suits from the last to the first.

    Observation: the phase, 1 to watch and 0 to play, and the suit of the card that was dealt last. The last card already comes
    with phase 0; after it the suit is 0. Action: a suit. While playing, each of n steps, for n cards, earns 1 / n if the action
    is right and costs as much if not.

    Args:
        num_decks: Decks of 52 cards that are shuffled together.
    """

    def __init__(self, num_decks: int = 1) -> None:
        self.num_decks, self.cards = num_decks, CARDS * num_decks
        self.steps = 2 * self.cards - 1
        self.right, self.wrong = 1 / self.cards, -1 / self.cards
        self.observation_space = spaces.MultiDiscrete([2, SUITS])
        self.action_space = spaces.Discrete(SUITS)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        deck = shuffled_decks(rng, num, self.num_decks, SUITS)
        seen = np.full((num, self.steps + 1, 2), (PLAY, 0))
        seen[:, : self.cards - 1, 0] = WATCH
        seen[:, : self.cards, 1] = deck
        answers = np.full((num, self.steps), NOTHING)
        answers[:, self.cards - 1 :] = deck[:, ::-1]
        return dict(seen=seen, answers=answers)
