"""The agent that a run has trained, to be played or handed on."""

from __future__ import annotations

from pathlib import Path

from fw_rl.agents import A3C, RecurrentA2C, RecurrentPPO
from fw_rl.cells import find_cell
from fw_rl.commands.config import RunConfig
from fw_rl.commands.run_folder import RunFolder

__all__ = ["agent_class", "load_trained"]


def agent_class(config: RunConfig) -> type[RecurrentA2C]:
    """The class of a run's agent without Ray, where what RLlib has trained is a `RecurrentA2C`."""
    local: dict[str, type[RecurrentA2C]] = {"a3c": A3C, "ppo": RecurrentPPO}
    return local.get(config.algo, RecurrentA2C) if config.engine == "local" else RecurrentA2C


def load_trained(run: Path, checkpoint: Path | None = None) -> tuple[RunConfig, RecurrentA2C]:
    """The settings of a run, and its agent without an environment, from its last checkpoint or from another file.

    Raises ValueError if there is no run, no checkpoint, or a damaged one.
    """
    folder, config = RunFolder.open(run)
    find_cell(config.cell)  # a checkpoint imports nothing
    if checkpoint is None:
        saved = folder.saved_checkpoints()
        if not saved:
            raise ValueError(f"{run} has no checkpoint: its training has hardly begun")
        checkpoint = saved[-1]
    return config, agent_class(config).load(checkpoint, device="cpu")
