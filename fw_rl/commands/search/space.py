"""What a sweep searches: settings of a training with the ranges they are drawn from, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fw_rl.commands.config import ONLY_PPO, RunConfig

__all__ = ["SearchSpace", "search_space"]

_FIXED = {"env", "cell", "cell_options", "algo", "engine", "workers", "seed", "timesteps", *ONLY_PPO}
_SETTINGS = {field.name for field in dataclasses.fields(RunConfig)} - _FIXED


@dataclass(frozen=True)
class SearchSpace:
    """The ranges of settings of every cell, `shared`, and of the options of one cell, `own`, as in `spaces.yaml`."""

    shared: dict[str, dict[str, Any]]
    own: dict[str, dict[str, Any]]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """As Optuna takes them, by name; raises ValueError for a range that is none."""
        return {name: _distribution(name, entry) for name, entry in (self.shared | self.own).items()}

    def apply(self, config: RunConfig, parameters: dict[str, Any]) -> RunConfig:
        """The settings with what was drawn in its place."""
        shared = {name: value for name, value in parameters.items() if name in self.shared}
        own = {name: value for name, value in parameters.items() if name in self.own}
        return replace(config, **shared, cell_options=config.cell_options | own)


def search_space(cell: str, path: Path | None = None) -> SearchSpace:
    """The search space for a cell, from a YAML file of the form of `spaces.yaml`, which is that of the package if None.

    Raises ValueError for a file of another form, and OSError for one that can't be read.
    """
    text = (resources.files("fw_rl.commands.search").joinpath("spaces.yaml") if path is None else path).read_text()
    name = "spaces.yaml" if path is None else str(path)
    try:
        spaces = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(spaces, dict) or not set(spaces) <= {"shared", "cells"}:
        raise ValueError(f"{name} must have the entries shared and cells, and no others")
    space = SearchSpace(spaces.get("shared") or {}, (spaces.get("cells") or {}).get(cell) or {})
    unknown = sorted(set(space.shared) - _SETTINGS)
    if unknown:
        raise ValueError(f"{name} has no setting {unknown[0]!r} to search: choose from {', '.join(sorted(_SETTINGS))}")
    both = sorted(set(space.shared) & set(space.own))
    if both:
        raise ValueError(f"{name} has {both[0]!r} for every cell and for {cell}: give it once")
    if not space.distributions:
        raise ValueError(f"{name} has nothing to search for {cell}")
    return space


def _distribution(name: str, entry: Any) -> BaseDistribution:
    if isinstance(entry, dict) and set(entry) == {"choices"} and isinstance(entry["choices"], list) and entry["choices"]:
        return CategoricalDistribution(entry["choices"])
    if not (isinstance(entry, dict) and {"low", "high"} <= set(entry) <= {"low", "high", "log"}):
        raise ValueError(f"the range of {name} is {entry}: it must be {{choices: [...]}} or {{low: .., high: .., log: true}}")
    low, high, log = entry["low"], entry["high"], bool(entry.get("log", False))
    try:
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the range of {name} is {entry}: {error}") from error
