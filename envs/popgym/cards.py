"""Decks of cards, as arrays of what is seen of a card: its colour, suit or rank."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CARDS = 52
COLORS, SUITS, RANKS = 2, 4, 13


def shuffled_decks(rng: np.random.Generator, num: int, num_decks: int, kinds: int) -> NDArray[np.int64]:
    """Decks [num, 52 num_decks] in the order in which they are dealt, with as many cards of each of the kinds 0, 1, ..."""
    sorted_deck = np.arange(CARDS * num_decks) % kinds
    return rng.permuted(np.tile(sorted_deck, (num, 1)), axis=1)


def pick(table: NDArray[Any], column: NDArray[np.int64]) -> NDArray[Any]:
    """From each row of a table [num, ...] the entry of its column, [num]."""
    return table[np.arange(len(table)), column]


def no_cut(terminations: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The truncations of games that have no time limit, [num]."""
    return np.zeros_like(terminations)
