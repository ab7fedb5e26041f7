"""The algorithms by their names: one entry each, which the command line, the documentation and the tests read."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import NamedTuple

from fw_rl.agents.a2c import RecurrentA2C
from fw_rl.agents.a3c import A3C
from fw_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from fw_rl.agents.ppo import RecurrentPPO

__all__ = ["ALGORITHMS", "ENGINES", "Algorithm"]


class Algorithm(NamedTuple):
    """A training algorithm.

    Attributes:
        source: Its class, or "module:class" for one that is imported only when it is asked for.
        workers: Processes that it has by default.
        settings: Names of the constructor's arguments that no other algorithm has.
    """

    source: type[RecurrentOnPolicyAlgorithm] | str
    workers: int
    settings: tuple[str, ...] = ()

    @property
    def agent(self) -> type[RecurrentOnPolicyAlgorithm]:
        """Its class; raises ModuleNotFoundError where its module needs a package that is not installed."""
        agent: type[RecurrentOnPolicyAlgorithm] = resolve_name(self.source) if isinstance(self.source, str) else self.source
        return agent


ALGORITHMS = {
    "a2c": Algorithm(RecurrentA2C, workers=1),
    "ppo": Algorithm(RecurrentPPO, workers=1, settings=("n_epochs", "batch_size", "clip_range")),
    "a3c": Algorithm(A3C, workers=2),
}

ENGINES = {
    "local": ALGORITHMS,
    "ray": {name: Algorithm("fw_rl.agents.rllib:RLlibAgent", workers=2) for name in ("impala", "ppo")},
}
"""The algorithms of each engine, the first by default; on Ray the agent takes the name as `algorithm`."""
