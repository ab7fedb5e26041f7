"""The algorithms by their names: one entry each, which the command line, the documentation and the tests read."""

from __future__ import annotations

from typing import NamedTuple

from fw_rl.agents.a2c import RecurrentA2C
from fw_rl.agents.a3c import A3C
from fw_rl.agents.ppo import RecurrentPPO

__all__ = ["ALGORITHMS", "Algorithm"]


class Algorithm(NamedTuple):
    """A training algorithm.

    Attributes:
        agent: Its class.
        workers: Processes that it has by default.
        settings: Names of the constructor's arguments that no other algorithm has.
    """

    agent: type[RecurrentA2C]
    workers: int
    settings: tuple[str, ...] = ()


ALGORITHMS = {
    "a2c": Algorithm(RecurrentA2C, workers=1),
    "ppo": Algorithm(RecurrentPPO, workers=1, settings=("n_epochs", "batch_size", "clip_range")),
    "a3c": Algorithm(A3C, workers=2),
}
