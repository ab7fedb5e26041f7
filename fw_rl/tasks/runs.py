"""One run of a supervised task, and its small record: a table can grow over many days."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import torch
from torch.utils.tensorboard import SummaryWriter

from fw_rl.files import write_json
from fw_rl.modules import without_module
from fw_rl.tasks.base import Data, Split, Task
from fw_rl.tasks.training import Epoch, Training, best_epoch, check_history, train

__all__ = ["Record", "Run", "execute", "read_record", "read_records"]


@dataclass(frozen=True)
class Run:
    """A net of one row and size of a task's table, with further options for its cell, and how it is trained."""

    task: Task
    row: str
    hidden_size: int
    training: Training
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """Its name for files: fast-weights-20-seed0."""
        options = "".join(f"_{key}={value}" for key, value in self.options.items())
        return f"{without_module(self.row)}{options}-{self.hidden_size}-seed{self.training.seed}".replace("/", "_")

    @property
    def search_name(self) -> str:
        """Its name as one of several ways to train the same net: fast-weights-20-seed0-rate0.001-decay0.1."""
        return f"{self.name}-rate{self.training.learning_rate:g}-decay{self.training.weight_decay:g}"

    @property
    def group(self) -> tuple[str, int]:
        """The group of its record."""
        return self.task.row(self.row, self.options).label, self.hidden_size

    @property
    def settings(self) -> dict[str, Any]:
        """Everything except the seed that affects the result."""
        row = self.task.row(self.row, self.options)
        training = dataclasses.asdict(self.training)
        del training["seed"]
        # Where the data lies is not a setting; what it is, is.
        task = {key: value for key, value in vars(self.task).items() if not key.endswith("_dir")}
        options = row.options_of(self.hidden_size)
        return dict(net=row.net, cell=row.cell, cell_options=options, **training, **task, data=self.task.data_name)


@dataclass(frozen=True)
class Record:
    """What is kept of a run, as JSON values; one that diverged has no epochs."""

    task: str
    label: str
    hidden_size: int
    seed: int
    settings: dict[str, Any]
    parameters: int
    epochs: list[Epoch]
    diverged: bool = False

    @property
    def best(self) -> Epoch:
        """The epoch that the validation set chooses."""
        return self.epochs[best_epoch(self.epochs) - 1]

    @property
    def group(self) -> tuple[str, int]:
        """What the runs that differ only in their seed have in common."""
        return self.label, self.hidden_size

    def is_of(self, run: Run) -> bool:
        """Whether that run would make this record again."""
        return self.seed == run.training.seed and self.settings == run.settings


@cache
def load_data(task: Task, device: str = "cpu") -> Data:
    """The data of a task on a device, loaded once per process."""
    return Data(*(Split(*(part.to(device) for part in split)) for split in task.load()))


def execute(
    run: Run, record_path: Path, log_dir: Path, *, resume: bool = True, quiet: bool = False, device: str = "cpu"
) -> Record:
    """Train the net of a run, with `resume` from its checkpoint in `log_dir`, and write its record, even if it diverges.

    The device is not a setting of the run: on each the net starts with the same weights and sees the same examples.
    """
    task, seed, settings = run.task, run.training.seed, run.settings
    digest = hashlib.sha256(json.dumps([settings, seed], sort_keys=True).encode()).hexdigest()[:8]
    checkpoint = log_dir / "checkpoints" / f"{run.name}-{digest}.safetensors"
    log_folder = log_dir / "tensorboard" / f"{run.name}-{digest}"
    if not resume:
        checkpoint.unlink(missing_ok=True)
        shutil.rmtree(log_folder, ignore_errors=True)
    data, row = load_data(task, device), task.row(run.row, run.options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = task.make_net(row, run.hidden_size).to(device)

    with SummaryWriter(str(log_folder)) as writer:

        def log(number: int, epoch: Epoch) -> None:
            for name, value in epoch.items():
                writer.add_scalar(name, value, number)

        try:
            history = train(
                net, data, run.training,
                vary=task.vary, checkpoint=checkpoint, on_epoch=log, description=run.name, quiet=quiet,
            )  # fmt: skip
        except FloatingPointError:
            history = []
    parameters = sum(parameter.numel() for parameter in net.parameters())
    record = Record(task.name, row.label, run.hidden_size, seed, settings, parameters, history, diverged=not history)
    write_json(record_path, dataclasses.asdict(record))
    return record


def read_record(path: Path) -> Record:
    """The record that a file holds; ValueError, in one line, if it is not one."""
    try:
        record = Record(**json.loads(path.read_text()))
        _check(record)
        return record
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not the record of a run ({type(error).__name__}: {error})") from error


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, ordered by file name."""
    return [read_record(path) for path in sorted(folder.glob("*.json"))]


_NUMBERS = ("learning_rate", "weight_decay", "epochs")
"""Settings that every table shows."""


def _check(record: Record) -> None:
    for name, kind in get_type_hints(Record).items():
        if not isinstance(getattr(record, name), get_origin(kind) or kind):
            raise ValueError(f"{name} is of another type")
    settings = record.settings
    if not all(isinstance(settings.get(name), int | float) for name in _NUMBERS) or not isinstance(settings.get("data"), str):
        raise ValueError(f"its settings lack {', '.join(_NUMBERS)} or data")
    if not record.diverged:
        check_history(record.epochs)
