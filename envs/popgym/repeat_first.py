"""RepeatFirst of POPGym (Morad et al. 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fw_rl.envs.game import Game, Outcome, State
from fw_rl.envs.popgym.cards import CARDS, SUITS, no_cut, pick, shuffled_decks


class RepeatFirst(Game):
    """Say at every step the suit of the first card, while the others of the deck are dealt.

    Observation: the suit of the card that was dealt last. Action: a suit. Each of the n - 1 steps, for n cards, earns
    1 / (n - 1) if the action is the suit of the first card, and costs as much if not.

    Args:
        num_decks: Decks of 52 cards that are shuffled together.
    """

    def __init__(self, num_decks: int = 1) -> None:
        self.num_decks, self.last = num_decks, CARDS * num_decks - 1
        self.observation_space = self.action_space = spaces.Discrete(SUITS)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        return dict(deck=shuffled_decks(rng, num, self.num_decks, SUITS))

    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        rewards = np.where(actions == state["deck"][:, 0], 1.0, -1.0) / self.last
        terminations = state["t"] == self.last
        return rewards, terminations, no_cut(terminations)

    def observe(self, state: State) -> NDArray[Any]:
        return pick(state["deck"], state["t"])
