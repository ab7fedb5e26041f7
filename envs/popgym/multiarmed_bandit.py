"""MultiarmedBandit of POPGym (Morad et al. 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fw_rl.envs.game import Game, Outcome, State
from fw_rl.envs.questions import pick


class MultiarmedBandit(Game):
    """Find the arm that pays most often, and stay with it.

    Each arm pays with a probability of its own, drawn from [0, 1) for the episode. Observation: 1 if the last arm paid, else 0.
    Action: an arm. A step earns 1 / steps if the arm pays, and costs as much if not. The episode is truncated after its steps.

    Args:
        arms: Arms to choose from.
        steps: Length of an episode.
    """

    def __init__(self, arms: int = 10, steps: int = 200) -> None:
        self.arms, self.steps = arms, steps
        self.observation_space, self.action_space = spaces.Discrete(2), spaces.Discrete(arms)

    def begin(self, rng: np.random.Generator, num: int) -> State:
        return dict(chances=rng.random((num, self.arms), np.float32), paid=np.zeros(num, np.bool_))

    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        paid = rng.random(len(actions)) < pick(state["chances"], actions)
        state["paid"] = paid
        return np.where(paid, 1.0, -1.0) / self.steps, np.zeros_like(paid), state["t"] == self.steps

    def observe(self, state: State) -> NDArray[Any]:
        return state["paid"].astype(np.int64)
