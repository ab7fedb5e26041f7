"""Learning rates and clip ranges that change during training, as plain values for a checkpoint."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

__all__ = ["describe_schedule", "make_schedule"]

SCHEDULES: dict[str, type] = {"constant": ConstantSchedule, "linear": LinearSchedule}
"""Schedules made of numbers, which are both the arguments and the attributes of their class."""


def describe_schedule(value: Any) -> dict[str, Any] | None:
    """The numbers of a schedule of SB3 or rl_zoo3; None for anything else, such as a function."""
    if type(value) is FloatSchedule:
        return describe_schedule(value.value_schedule)
    if type(value).__name__ == "SimpleLinearSchedule":  # rl_zoo3's `lin_`, which may not be installed
        value = LinearSchedule(value.initial_value, 0.0, 1.0)
    return next((dict(type=name) | vars(value) for name, known in SCHEDULES.items() if type(value) is known), None)


def make_schedule(description: dict[str, Any]) -> Schedule:
    """The schedule from a description; ValueError if there is no such kind."""
    if description["type"] not in SCHEDULES:
        raise ValueError(f"there is no schedule {description['type']!r}")
    numbers = {name: float(value) for name, value in description.items() if name != "type"}
    return SCHEDULES[description["type"]](**numbers)
