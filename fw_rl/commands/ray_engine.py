"""Ray, where it is installed: an optional part of the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fw_rl.agents.rllib import RLlibAgent

__all__ = ["rllib_agent"]


def rllib_agent() -> type[RLlibAgent]:
    """The agent that trains on a Ray cluster; raises ValueError, with the command that installs Ray, if it is not there."""
    try:
        from fw_rl.agents.rllib import RLlibAgent
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise ValueError("the engine ray needs Ray, which is not installed: pip install 'fw-rl[ray]'") from error
    return RLlibAgent
