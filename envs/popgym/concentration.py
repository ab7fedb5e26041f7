"""Concentration of POPGym (Morad et al. 2023)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fw_rl.envs.game import Game, Outcome, State
from fw_rl.envs.popgym.cards import CARDS, RANKS, shuffled_decks
from fw_rl.envs.questions import pick

NONE = -1


class Concentration(Game):
    """Turn two cards at a time, and find all pairs of one kind.

    Observation: the kind of every card that is face up, and `kinds` for every other one; a card that was just turned is seen
    even if it does not stay. Action: the place of a card. The second of two cards earns 2 / n, for n cards, if both are of one
    kind, and they stay face up; if not, it costs 2 / m, where m is the number of steps after which the episode is truncated.
    Choosing a card that is already face up costs 1 / m for each card of the turn, and ends the turn. The episode terminates
    when all are face up.

    Args:
        num_decks: Decks of 52 cards that are shuffled together.
        kinds: What must be equal in a pair: 2 for colors, 13 for ranks.
    """

    def __init__(self, num_decks: int = 1, kinds: int = RANKS) -> None:
        self.num_decks, self.kinds, self.cards = num_decks, kinds, CARDS * num_decks
        self.steps = math.ceil(2 * self.cards - self.cards / (2 * self.cards - 1))
        self.observation_space = spaces.MultiDiscrete(np.full(self.cards, kinds + 1))
        self.action_space = spaces.Discrete(self.cards)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        deck = shuffled_decks(rng, num, self.num_decks, self.kinds)
        up, seen = np.zeros((2, num, self.cards), np.bool_)
        return dict(deck=deck, up=up, seen=seen, first=np.full(num, NONE), pairs=np.zeros(num, np.int64))

    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        deck, up, first, row = state["deck"], state["up"], state["first"], np.arange(len(actions))
        again, second = up[row, actions], first != NONE
        pair = ~again & second & (first != actions) & (pick(deck, first) == pick(deck, actions))
        state["seen"] = seen = up.copy()
        seen[row, actions] = True
        seen[row[second], first[second]] = True
        up[pair] = seen[pair]
        state["pairs"] += pair

        ends_turn = again | second
        state["first"] = np.where(ends_turn, NONE, actions)
        rewards = np.where(ends_turn, np.where(second, -2.0, -1.0), 0.0) / self.steps
        rewards[pair] = 2 / self.cards
        return rewards, state["pairs"] == self.cards // 2, state["t"] == self.steps

    def observe(self, state: State) -> NDArray[Any]:
        cards = state["deck"] - self.kinds  # np.where takes three times as long if the mask has no pattern
        cards *= state["seen"]
        cards += self.kinds
        return cards
