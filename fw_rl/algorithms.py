"""The algorithms by their names: one entry each, which the command line, the documentation and the tests read."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any, NamedTuple

__all__ = ["ALGORITHMS", "ENGINES", "Algorithm"]


class Algorithm(NamedTuple):
    """A training algorithm.

    Attributes:
        source: Its class as "module:class", which is imported only on first access.
        workers: Processes by default.
        settings: Names of the constructor's arguments that no other algorithm has.
        acts_apart: Whether each worker makes environments of its own, which no other process sees.
    """

    source: str
    workers: int
    settings: tuple[str, ...] = ()
    acts_apart: bool = False

    @property
    def agent(self) -> Any:
        """Its class; raises ModuleNotFoundError where its module needs a package that is not installed."""
        return resolve_name(self.source)


ALGORITHMS = {
    "a2c": Algorithm("fw_rl.agents.a2c:RecurrentA2C", workers=1),
    "ppo": Algorithm(
        "fw_rl.agents.ppo:RecurrentPPO", 1, settings=("n_epochs", "batch_size", "clip_range", "target_kl", "desired_kl")
    ),
    "a3c": Algorithm("fw_rl.agents.a3c:A3C", workers=2, acts_apart=True),
}

ENGINES = {
    "local": ALGORITHMS,
    "ray": {name: Algorithm("fw_rl.agents.rllib:RLlibAgent", workers=2, acts_apart=True) for name in ("impala", "ppo")},
}
"""The algorithms of each engine; on Ray the first is the default, and the agent gets the name as `algorithm`."""
