"""Supervised tasks, each one file and one entry of `TASKS`; and the deblurring of HP87."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["TASKS", "TaskEntry"]


class TaskEntry(NamedTuple):
    """A supervised task that is a command.

    Attributes:
        summary: What `fw-rl --help` says about the command.
        path: The class of the task as module:name. It is imported when the command runs, since the help needs no Torch.
    """

    summary: str
    path: str


TASKS = {
    "retrieval": TaskEntry("associative retrieval, Table 1 and Figure 2 of Ba16", "fw_rl.tasks.retrieval:Retrieval"),
    "glimpse": TaskEntry("digits in glimpses, Table 2 of Ba16", "fw_rl.tasks.digits:Digits"),
    "faces": TaskEntry("facial expressions in glimpses, Table 3 of Ba16", "fw_rl.tasks.faces:Expressions"),
}
"""The supervised tasks by the names of their commands."""
