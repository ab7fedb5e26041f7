"""Autoencode of POPGym (Morad et al. 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fw_rl.envs.game import Game, Outcome, State
from fw_rl.envs.popgym.cards import CARDS, SUITS, no_cut, pick, shuffled_decks

PLAY, WATCH = 0, 1


class Autoencode(Game):
    """Watch all cards of a deck, then say their suits from the last to the first.

    Observation: the phase, 1 to watch and 0 to play, and the suit of the card that was dealt last. The last card already comes
    with phase 0; after it the suit is 0. Action: a suit. While playing, each of n steps, for n cards, earns 1 / n if the action
    is right and costs as much if not.

    Args:
        num_decks: Decks of 52 cards that are shuffled together.
    """

    def __init__(self, num_decks: int = 1) -> None:
        self.num_decks, self.cards = num_decks, CARDS * num_decks
        self.observation_space = spaces.MultiDiscrete([2, SUITS])
        self.action_space = spaces.Discrete(SUITS)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        return dict(deck=shuffled_decks(rng, num, self.num_decks, SUITS))

    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        t = state["t"]
        asked = np.minimum(2 * self.cards - 1 - t, self.cards - 1)
        signs = np.where(actions == pick(state["deck"], asked), 1.0, -1.0)
        rewards = np.where(t >= self.cards, signs, 0.0) / self.cards
        terminations = t == 2 * self.cards - 1
        return rewards, terminations, no_cut(terminations)

    def observe(self, state: State) -> NDArray[Any]:
        t, last = state["t"], self.cards - 1
        suits = np.where(t <= last, pick(state["deck"], np.minimum(t, last)), 0)
        return np.stack([np.where(t < last, WATCH, PLAY), suits], axis=1)
