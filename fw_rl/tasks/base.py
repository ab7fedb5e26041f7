"""A supervised task: data in three splits, a net for every row of its table, and the paper's numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

from torch import Generator, Tensor, nn

from fw_rl.cells import available_cells
from fw_rl.modules import import_for

__all__ = ["Data", "Row", "Split", "Task", "layers"]


class Split(NamedTuple):
    """Examples: inputs [N, ...] and labels [N]."""

    inputs: Tensor
    labels: Tensor


class Data(NamedTuple):
    """The data of a task: the validation set chooses learning rate and epoch, the test set is measured."""

    train: Split
    valid: Split
    test: Split


@dataclass(frozen=True)
class Row:
    """One model of a table; `shared_options` are options of the cell that are divided by its number of units."""

    label: str
    cell: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    net: str = "recurrent"
    shared_options: Mapping[str, float] = field(default_factory=dict, hash=False)

    def options_of(self, hidden_size: int) -> dict[str, Any]:
        """The options of the cell."""
        return {**{name: value / hidden_size for name, value in self.shared_options.items()}, **self.options}


@dataclass(frozen=True)
class Task(ABC):
    """A supervised task with a table: one file, and one entry of `fw_rl.tasks.TASKS`, which makes it a command.

    Its fields are the settings of its data: options of the command, and part of every record of a run. The first paragraph of
    its docstring describes the command. Each method `show_x(folder)`, which draws something there and returns a text, is the
    option `--show-x`, with the first paragraph of its docstring as help.

    In its table, `sizes` are units of the recurrent layer, and `accuracy` says that the paper states 100 % minus the error;
    `weight_decay` is that of AdamW with which its nets learn best.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    rows: ClassVar[Mapping[str, Row]]
    sizes: ClassVar[tuple[int, ...]]
    accuracy: ClassVar[bool] = False
    weight_decay: ClassVar[float] = 0.0

    @property
    @abstractmethod
    def paper(self) -> Mapping[tuple[str, int], float]:
        """The paper's numbers in percent by row and size, whatever the data: `data_name` says how it differs."""

    @property
    @abstractmethod
    def data_name(self) -> str:
        """The data in words, for the table."""

    @abstractmethod
    def load(self) -> Data:
        """Read or make the data; ValueError, in one line, if that fails."""

    @abstractmethod
    def make_net(self, row: Row, hidden_size: int) -> nn.Module:
        """A new net that maps a batch of inputs [B, ...] to logits [B, classes]; ValueError for an option the cell lacks."""

    def vary(self, inputs: Tensor, generator: Generator) -> Tensor:
        """A batch of training inputs [B, ...] as it is shown this time; by default unchanged."""
        return inputs

    def row(self, name: str, options: Mapping[str, Any] | None = None) -> Row:
        """A row of the table by its name, or one for any other cell, `module:name` too, with further options for the cell."""
        row = self.rows.get(name)
        if row is None:
            row = Row(import_for(name, "cell"), name)
            if row.label not in available_cells():
                choices = ", ".join(dict.fromkeys([*self.rows, *available_cells()]))
                raise ValueError(f"cell must be one of {choices}, or module:name of one that a module registers, got {name!r}")
        if not options:
            return row
        shown = ", ".join(f"{key}={value}" for key, value in options.items())
        return replace(row, label=f"{row.label}, {shown}", options={**row.options, **options})


def layers(*sizes: int, last_relu: bool = True) -> nn.Sequential:
    """ReLU layers of these sizes, inputs first; weights start uniform within 1 / sqrt(outgoing weights) (Ba16 A.1)."""
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        nn.init.uniform_(linear.weight, -1 / math.sqrt(outputs), 1 / math.sqrt(outputs))
        nn.init.zeros_(linear.bias)
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*(parts if last_relu else parts[:-1]))
