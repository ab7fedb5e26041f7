"""Battleship of POPGym (Morad et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fw_rl.envs.game import Game, Outcome, State


class Battleship(Game):
    """Find all ships on a hidden board, and shoot nowhere twice.

    Observation: 1 if the last shot hit a ship where none had hit before, else 0. Action: row and column. With s squares of
    ships on a board of n, a hit earns 1 / s, and any other shot costs 1 / (n - s). The episode terminates when all ships are
    found, and is truncated after n shots.

    Args:
        board_size: Rows and columns of the board.
        ship_sizes: Squares of each ship, which lies in a row or column and on no other ship.
    """

    def __init__(self, board_size: int = 10, ship_sizes: Sequence[int] = (2, 3, 3, 4)) -> None:
        self.size, self.squares, self.targets = board_size, board_size**2, sum(ship_sizes)
        self.observation_space, self.action_space = spaces.Discrete(2), spaces.MultiDiscrete([board_size, board_size])
        self._places = [_places(board_size, length) for length in ship_sizes]

    def begin(self, rng: np.random.Generator, num: int) -> State:
        ships = np.zeros((num, self.squares), np.bool_)
        for places in self._places:
            waiting = np.arange(num)[:, None]  # for a place that is free
            while len(waiting):
                ship = places[rng.integers(len(places), size=len(waiting))]
                free = ~ships[waiting, ship].any(axis=1)
                ships[waiting[free], ship[free]] = True
                waiting = waiting[~free]
        return dict(ships=ships, hit=np.zeros(num, np.bool_), hits=np.zeros(num, np.int64))

    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        shot = np.arange(len(actions)), actions[:, 0] * self.size + actions[:, 1]
        state["hit"] = hit = state["ships"][shot]
        state["ships"][shot] = False  # what is hit counts no more
        state["hits"] += hit
        rewards = np.where(hit, 1 / self.targets, -1 / (self.squares - self.targets))
        return rewards, state["hits"] == self.targets, state["t"] == self.squares

    def observe(self, state: State) -> NDArray[Any]:
        return state["hit"].astype(np.int64)


def _places(size: int, length: int) -> NDArray[np.intp]:
    """The squares of every place of a ship on a board, [places, length]."""
    board = np.arange(size**2).reshape(size, size)
    lines = (sliding_window_view(board, length, axis=axis) for axis in (0, 1))
    return np.concatenate([line.reshape(-1, length) for line in lines])
