"""Many runs of a supervised task, made now or earlier, and one table of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from fw_rl.experiments.checks import (
    LARGEST,
    check_count,
    check_device,
    check_processes,
    check_seed,
    make_folder,
    require_option,
)
from fw_rl.experiments.settings import parse_cell_options
from fw_rl.files import write_file
from fw_rl.processes import become_worker
from fw_rl.tasks.base import Task
from fw_rl.tasks.report import write_report
from fw_rl.tasks.runs import Record, Run, execute, read_record, read_records
from fw_rl.tasks.training import Training, best_epoch

__all__ = ["TableOptions", "make_table"]


@dataclass(frozen=True)
class TableOptions:
    """Options of a table of runs; the command fills those that are empty here with the task's own."""

    cells: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--cell"], metavar="NAME ...")] = ()
    """Rows of the table: names of its models, any cell, or module:name for a cell that a module registers."""
    cell_options: Annotated[
        tuple[str, ...] | None, tyro.conf.arg(metavar="NAME=VALUE ...", help_behavior_hint="(default: the paper's)")
    ] = None
    """Options of the cells, such as eta=0.1 decay=0.95; cells with options get their own rows in the table."""
    hidden_sizes: Annotated[tuple[int, ...], tyro.conf.arg(aliases=["--hidden-size"], metavar="INT ...")] = ()
    """Units of the recurrent layer."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(aliases=["--seed"], metavar="INT ...")] = (0, 1, 2)
    """Seeds of the nets and of the order of the examples."""
    epochs: int = 64
    """Passes over the training set; a run stops early after three in a row without an error on the validation set."""
    learning_rates: Annotated[tuple[float, ...], tyro.conf.arg(aliases=["--learning-rate"], metavar="FLOAT ...")] = (1e-3, 3e-3)
    """Learning rates of AdamW; of several, each model and size gets the one with the lowest validation error at seed 0."""
    weight_decays: Annotated[tuple[float, ...], tyro.conf.arg(aliases=["--weight-decay"], metavar="FLOAT ...")] = ()
    """Weight decays of AdamW; of several, one is chosen along with the learning rate."""
    max_grad_norm: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: no limit)")] = None
    """Longer gradients are clipped to this norm."""
    search_epochs: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: as --epochs)")] = None
    """Epochs of the runs that choose learning rate and weight decay."""
    batch_size: int = 128
    """Examples per update."""
    anneal: bool = True
    """Reduce the learning rate to 0 along a cosine."""
    device: str = "cpu"
    """Device of the nets: cpu, cuda or cuda:K. Small nets are fastest on the processor."""
    jobs: int = 1
    """Runs side by side, each in a process with one thread."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs")
    """Folder for the records and the table; runs that are recorded there are not repeated."""
    log_dir: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs")
    """Folder for the checkpoints and the TensorBoard logs."""
    resume: bool = True
    """Resume an interrupted run after its last complete epoch; otherwise start it again."""
    table: bool = False
    """Train nothing: only make the table of the recorded runs."""
    quiet: bool = False
    """No progress bar."""


def make_table(task: Task, options: TableOptions) -> str:
    """Choose how to train each model, make the runs that are missing, write the table; returns it as text."""
    torch.set_num_threads(1)
    table = _Table(task, options)
    if not options.table:
        table.train()
    records = table.records()
    if not records:
        raise ValueError(f"{options.out} must hold runs of which to make a table, got none")
    return write_report(task, records, options.out)


@dataclass(frozen=True)
class _Table:
    task: Task
    options: TableOptions

    def records(self) -> list[Record]:
        """The runs that the folder holds; ValueError if they are of another task."""
        out = self.options.out
        records = read_records(out / "runs")
        for record in records:
            if record.task != self.task.name:
                raise ValueError(f"{out} must hold runs of {self.task.name}, got {record.task}: give another --out")
        return records

    def train(self) -> None:
        """Make the runs that choose how to train each model, then those of the table."""
        _check(self.options)
        records, grid, models = self.records(), self.grid(), self.models()
        for model in models:  # before hours of training, not after
            self.task.make_net(self.task.row(model.row, model.options), model.hidden_size)
            self.check_known(model, grid, records)
        make_folder("out", self.options.out)
        make_folder("log_dir", self.options.log_dir)
        searches = {model: self.search(model, grid) for model in models}
        self.make({path: run for search in searches.values() for path, run in search.items()})
        runs = {}
        for model, search in searches.items():
            chosen = replace(_best(search), epochs=self.options.epochs) if search else grid[0]
            self.check_known(model, [chosen], records)
            for seed in dict.fromkeys(self.options.seeds):
                run = replace(model, training=replace(chosen, seed=seed))
                path = self.options.out / "runs" / f"{run.name}.json"
                runs[path] = run
                # A candidate with as many epochs as the runs of the table is one of them already.
                for candidate in search:
                    if not path.exists() and read_record(candidate).is_of(run):
                        write_file(path, candidate.read_bytes())
        self.make(runs)

    def grid(self) -> list[Training]:
        """The ways to train, among which every model and size finds its best."""
        options = self.options
        ways = product(dict.fromkeys(options.learning_rates), dict.fromkeys(options.weight_decays))
        common = options.epochs, 0, options.batch_size, options.anneal
        return [Training(rate, *common, decay, options.max_grad_norm) for rate, decay in ways]

    def models(self) -> list[Run]:
        """A run of each model and size, whose training is yet to be chosen."""
        options, anything = self.options, Training(math.nan, 0, 0)
        cell_options = {} if options.cell_options is None else parse_cell_options(options.cell_options)
        rows = product(dict.fromkeys(options.cells), dict.fromkeys(options.hidden_sizes))
        return [Run(self.task, row, size, anything, cell_options) for row, size in rows]

    def search(self, model: Run, grid: Sequence[Training]) -> dict[Path, Run]:
        """The runs that choose how to train a model, by their records; none if there is only one way."""
        epochs = self.options.search_epochs or self.options.epochs
        runs = [replace(model, training=replace(training, epochs=epochs)) for training in grid] if len(grid) > 1 else []
        return {self.options.out / "search" / f"{run.search_name}.json": run for run in runs}

    def check_known(self, model: Run, grid: Sequence[Training], records: Sequence[Record]) -> None:
        """ValueError if the records cannot be in one table with the wanted runs."""
        wanted = [replace(model, training=training).settings for training in grid]
        for record in records:
            for name in wanted[0] if record.group == model.group else ["data"]:
                known, choices = record.settings.get(name), [settings[name] for settings in wanted]
                if known not in choices:
                    asked = " or ".join(dict.fromkeys(map(str, choices)))
                    there = f"{known}, as in the runs of {record.label} in {self.options.out}"
                    raise ValueError(f"{name} must be {there}, got {asked}: give that, or another --out")

    def make(self, runs: Mapping[Path, Run]) -> None:
        """Make the runs that have no record yet, one after the other or side by side."""
        for path, run in runs.items():
            if path.exists() and not read_record(path).is_of(run):
                raise ValueError(f"{path} must be of the same settings: give those, or another --out")
        missing = {path: run for path, run in runs.items() if not path.exists()}
        options = self.options
        quiet = options.quiet or options.jobs > 1
        job = partial(execute, log_dir=options.log_dir, resume=options.resume, quiet=quiet, device=options.device)
        with _workers(options.jobs) as each:
            records = each(job, missing.values(), missing)
            for number, (run, record) in enumerate(zip(missing.values(), records, strict=True), 1):
                print(f"[{number}/{len(missing)}] {_describe(run, record)}", flush=True)


@contextmanager
def _workers(count: int) -> Iterator[Callable[..., Any]]:
    """Python's map, or with more than one process the map of a pool."""
    if count == 1:
        yield map
        return
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=become_worker)
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise ValueError("a process was killed (out of memory?): the same command goes on, with fewer --jobs") from error
    except BaseException:  # which the workers do not hear, and a run may take an hour
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _describe(run: Run, record: Record) -> str:
    how = f"learning rate {run.training.learning_rate:g}, weight decay {run.training.weight_decay:g}"
    if record.diverged:
        return f"{run.name}, {how}: diverged"
    best, last = best_epoch(record.epochs), len(record.epochs)
    return f"{run.name}, {how}: test error {record.best['test_error']:.2f} % at epoch {best} of {last}"


def _best(search: Mapping[Path, Run]) -> Training:
    """The training of the candidate with the lowest error on the validation set, at equal errors the lowest loss there."""

    def rank(path: Path) -> tuple[float, float]:
        record = read_record(path)
        return (math.inf, math.inf) if record.diverged else (record.best["valid_error"], record.best["valid_loss"])

    return search[min(search, key=rank)].training


def _check(options: TableOptions) -> None:
    for name in ("epochs", "search_epochs", "batch_size"):
        check_count(name, getattr(options, name))
    check_device(options.device)
    check_processes("jobs", options.jobs)
    for size in options.hidden_sizes:
        check_count("hidden_sizes", size)
    for rate in options.learning_rates:
        require_option("learning_rates", rate, 0 < rate <= LARGEST, "above 0 and finite")
    for decay in options.weight_decays:
        require_option("weight_decays", decay, 0 <= decay <= LARGEST, "at least 0 and finite")
    norm = options.max_grad_norm
    require_option("max_grad_norm", norm, norm is None or 0 < norm <= LARGEST, "above 0 and finite")
    for seed in options.seeds:
        check_seed("seeds", seed)
    for name in ("cells", "hidden_sizes", "seeds", "learning_rates", "weight_decays"):
        require_option(name, "none", len(getattr(options, name)) > 0, "one or more")
