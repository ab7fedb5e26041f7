"""What runs on Ray, an optional part of the package; it is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fw_rl.agents.rllib import RLlibAgent
    from fw_rl.commands.search.on_ray import OnRay

__all__ = ["rllib_agent", "trainings_on_ray"]


def rllib_agent() -> type[RLlibAgent]:
    """The agent that trains on a Ray cluster; raises ValueError, with the command that installs Ray, if it is not there."""
    with _ray_needed():
        from fw_rl.agents.rllib import RLlibAgent
    return RLlibAgent


def trainings_on_ray() -> type[OnRay]:
    """Trainings as tasks of a Ray cluster; raises ValueError, with the command that installs Ray, if it is not there."""
    with _ray_needed():
        from fw_rl.commands.search.on_ray import OnRay
    return OnRay


@contextmanager
def _ray_needed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        install = "pip install 'fw-rl[ray]', in an environment of its own"
        raise ValueError(f"the engine ray needs Ray, which is not installed: {install}") from error
