"""CountRecall of POPGym (Morad et al. 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fw_rl.envs.game import Game, Outcome, State
from fw_rl.envs.popgym.cards import CARDS, COLORS, no_cut, pick, shuffled_decks


class CountRecall(Game):
    """Say at every step how many cards of a kind were dealt so far.

    Observation: the kind of the card that was dealt last, and the kind that is asked for, from a second deck. Action: the
    count, that of the last card included. Each of the n - 1 steps, for n cards, earns 1 / (n - 1) if it is right, and costs as
    much if not.

    Args:
        num_decks: Decks of 52 cards that are shuffled together, once to be dealt and once to be asked for.
        kinds: What is told of a card: one of 2 colors, 4 suits or 13 ranks.
    """

    def __init__(self, num_decks: int = 1, kinds: int = COLORS) -> None:
        self.num_decks, self.kinds, self.last = num_decks, kinds, CARDS * num_decks - 1
        self.observation_space = spaces.MultiDiscrete([kinds, kinds])
        self.action_space = spaces.Discrete(CARDS * num_decks // kinds + 1)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        dealt, asked = (shuffled_decks(rng, num, self.num_decks, self.kinds) for _ in range(2))
        return dict(dealt=dealt, asked=asked, counts=np.eye(self.kinds, dtype=np.int64)[dealt[:, 0]])

    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        t, counts = state["t"], state["counts"]
        right = pick(counts, pick(state["asked"], t - 1))
        counts[np.arange(len(t)), pick(state["dealt"], t)] += 1
        terminations = t == self.last
        return np.where(actions == right, 1.0, -1.0) / self.last, terminations, no_cut(terminations)

    def observe(self, state: State) -> NDArray[Any]:
        return np.stack([pick(state["dealt"], state["t"]), pick(state["asked"], state["t"])], axis=1)
