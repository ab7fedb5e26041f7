"""Decks of cards, as arrays of one property of the cards: colour, suit or rank."""

from __future__ import annotations

import numpy as np

from fw_rl.envs.questions import shuffled
from fw_rl.envs.rules import IntArray

CARDS = 52
COLORS, SUITS, RANKS = 2, 4, 13


def shuffled_decks(rng: np.random.Generator, num: int, num_decks: int, kinds: int) -> IntArray:
    """Decks [num, 52 num_decks] in the order in which they are dealt, with as many cards of each of the kinds 0, 1, ..."""
    return shuffled(rng, num, np.arange(CARDS * num_decks) % kinds)
