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
    "retrieval": TaskEntry("learn associative retrieval (Ba16 Table 1 and Figure 2)", "fw_rl.tasks.retrieval:Retrieval"),
    "glimpse": TaskEntry("learn digits in glimpses (Ba16 Table 2)", "fw_rl.tasks.digits:Digits"),
    "faces": TaskEntry("learn facial expressions in glimpses (Ba16 Table 3)", "fw_rl.tasks.faces:Expressions"),
}
"""The supervised tasks by the names of their commands."""
