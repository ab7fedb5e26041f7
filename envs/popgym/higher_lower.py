"""HigherLower of POPGym (Morad et al. 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fw_rl.envs.game import Game, Outcome, State
from fw_rl.envs.popgym.cards import CARDS, RANKS, no_cut, pick, shuffled_decks


class HigherLower(Game):
    """Bet at every step whether the next card has a higher or a lower rank than the last one.

    Observation: the rank of the card that was dealt last. Action: 0 higher, 1 lower. Each of the n - 1 steps, for n cards,
    earns 1 / n if the bet is right, costs as much if it is wrong, and neither if the ranks are equal. To count cards helps.

    Args:
        num_decks: Decks of 52 cards that are shuffled together.
    """

    def __init__(self, num_decks: int = 1) -> None:
        self.num_decks, self.cards = num_decks, CARDS * num_decks
        self.observation_space, self.action_space = spaces.Discrete(RANKS), spaces.Discrete(2)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        return dict(deck=shuffled_decks(rng, num, self.num_decks, RANKS))

    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        deck, t = state["deck"], state["t"]
        rise = np.sign(pick(deck, t) - pick(deck, t - 1))
        terminations = t == self.cards - 1
        return np.where(actions == 0, rise, -rise) / self.cards, terminations, no_cut(terminations)

    def observe(self, state: State) -> NDArray[Any]:
        return pick(state["deck"], state["t"])
