"""What a sweep searches: settings of a training with the ranges they are drawn from, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fw_rl.algorithms import ALGORITHMS
from fw_rl.cells import available_cells, make_cell
from fw_rl.experiments.settings import RunSettings

__all__ = ["SearchSpace", "search_space"]

_FIXED = {"env", "cell", "cell_options", "algo", "engine", "workers", "seed", "timesteps", "encoder_arch", "net_arch"}
_FIXED |= {name for algorithm in ALGORITHMS.values() for name in algorithm.settings}
_TYPES = {name: (get_args(kind) or (kind,))[0] for name, kind in get_type_hints(RunSettings).items()}  # str of str | None
_SETTINGS = {name: kind.__name__ for name, kind in _TYPES.items() if name not in _FIXED}
"""The settings that can be searched for every cell, with their types."""


@dataclass(frozen=True)
class SearchSpace:
    """The ranges of a search, as in `spaces.yaml`: of settings for every cell, and of the own options of one cell."""

    shared: dict[str, dict[str, Any]]
    own: dict[str, dict[str, Any]]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The ranges as Optuna's distributions, by name; raises ValueError for an invalid one."""
        return {name: _distribution(name, entry) for name, entry in (self.shared | self.own).items()}

    def apply(self, config: RunSettings, parameters: dict[str, Any]) -> RunSettings:
        """The settings with the drawn values."""
        shared = {name: value for name, value in parameters.items() if name in self.shared}
        own = {name: value for name, value in parameters.items() if name in self.own}
        return replace(config, **shared, cell_options=config.cell_options | own)

    def check(self, config: RunSettings) -> None:
        """Try the ends of all ranges, and all choices; ValueError if one is not allowed."""
        for name, entry in (self.shared | self.own).items():
            for value in entry.get("choices") or (entry["low"], entry["high"]):
                try:
                    if name in self.shared and not _fits(value, _SETTINGS[name]):
                        raise ValueError(f"{name} must be of type {_SETTINGS[name]}")
                    tried = self.apply(config, {name: value})
                    tried.check()
                    make_cell(tried.cell, 1, tried.hidden_size, **tried.cell_options)
                except (ValueError, TypeError) as error:
                    raise ValueError(f"the range of {name} must have allowed values, got {value}: {error}") from error


def search_space(cell: str, path: Path | None = None) -> SearchSpace:
    """The search space for a cell, from a YAML file or else the package's; ValueError if the file has another form."""
    file = resources.files("fw_rl.experiments.search").joinpath("spaces.yaml") if path is None else path
    name = "spaces.yaml" if path is None else str(path)
    try:
        spaces = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} must be a YAML file, got one with an error: {error}") from error
    if not isinstance(spaces, dict) or not set(spaces) <= {"shared", "cells"}:
        raise ValueError(f"{name} must have the entries shared and cells, got {spaces if spaces is None else list(spaces)}")
    cells = _by_name(spaces.get("cells"), f"{name}, cells,")
    if unknown := [other for other in cells if other not in available_cells()]:
        known = f"{', '.join(available_cells())}, or one that a module registers, with --cell module:name"
        raise ValueError(f"{name}, cells, must be some of {known}, got {unknown[0]!r}")
    space = SearchSpace(
        _by_name(spaces.get("shared"), f"{name}, shared,"), _by_name(cells.get(cell), f"{name}, cells, {cell},")
    )
    if unknown := sorted(set(space.shared) - set(_SETTINGS)):
        raise ValueError(f"{name}, shared, must be some of {', '.join(sorted(_SETTINGS))}, got {unknown[0]!r}")
    if both := sorted(set(space.shared) & set(space.own)):
        raise ValueError(f"{name} must have each range once, got {both[0]!r} for every cell and for {cell}")
    if not space.distributions:
        raise ValueError(f"{name} must have ranges to search for {cell}, got none")
    return space


def _by_name(entries: Any, where: str) -> dict[str, Any]:
    if entries is None:
        return {}
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
        raise ValueError(f"{where} must be entries by name, as in `name: ...`, got {entries!r}")
    return entries


def _distribution(name: str, entry: Any) -> BaseDistribution:
    form = (
        f"the range of {name} must be {{choices: [...]}} or {{low: .., high: .., log: true}}, with finite numbers, got {entry}"
    )
    names = set(entry) if isinstance(entry, dict) else set()
    try:
        if names == {"choices"} and isinstance(entry["choices"], list):
            if all(isinstance(choice, str | int | float) for choice in entry["choices"]):
                return CategoricalDistribution(entry["choices"])
        elif {"low", "high"} <= names <= {"low", "high", "log"}:
            low, high, log = entry["low"], entry["high"], entry.get("log", False)
            if _fits(low, "float") and _fits(high, "float") and _fits(log, "bool"):
                whole = isinstance(low, int) and isinstance(high, int)
                return IntDistribution(low, high, log=log) if whole else FloatDistribution(low, high, log=log)
    except ValueError as error:
        raise ValueError(f"{form}: {error}") from error
    raise ValueError(form)


def _fits(value: Any, kind: str) -> bool:
    """Whether a value has the type of a setting, which is given by name."""
    if kind == "float":
        return type(value) in (int, float) and math.isfinite(value)
    return type(value).__name__ == kind
