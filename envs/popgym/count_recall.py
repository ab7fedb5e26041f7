"""CountRecall of POPGym (Morad et al. 2023)."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from fw_rl.envs.game import State
from fw_rl.envs.popgym.cards import CARDS, COLORS, shuffled_decks
from fw_rl.envs.questions import QuestionGame


class CountRecall(QuestionGame):
    """Say at every step how many cards of a kind have been dealt so far.

    Observation: the kind of the card that was dealt last, and the queried kind, from a second deck. Action: the count,
    including the last card. Each of the n - 1 steps, for n cards, earns 1 / (n - 1) if it is right, and costs as much if not.

    Args:
        num_decks: Decks of 52 cards that are shuffled together, once to be dealt and once to be queried.
        kinds: What is seen of a card: 2 for its color, 4 for its suit or 13 for its rank.
    """

    def __init__(self, num_decks: int = 1, kinds: int = COLORS) -> None:
        self.num_decks, self.kinds, self.steps = num_decks, kinds, CARDS * num_decks - 1
        self.right, self.wrong = 1 / self.steps, -1 / self.steps
        self.observation_space = spaces.MultiDiscrete([kinds, kinds])
        self.action_space = spaces.Discrete(CARDS * num_decks // kinds + 1)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        dealt, asked = (shuffled_decks(rng, num, self.num_decks, self.kinds) for _ in range(2))
        game, counts = np.arange(num), np.zeros((num, self.kinds), np.int64)
        answers = np.empty((num, self.steps), np.int64)
        for t in range(self.steps):
            counts[game, dealt[:, t]] += 1
            answers[:, t] = counts[game, asked[:, t]]
        return dict(seen=np.stack([dealt, asked], axis=2), answers=answers)
