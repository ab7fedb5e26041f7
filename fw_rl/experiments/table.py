"""What the commands of the supervised tasks share: many runs, done now or on other days, and one table of all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from fw_rl.commands.command_line import fail
from fw_rl.experiments.checks import check_count, flag, make_folder
from fw_rl.experiments.settings import parse_cell_options
from fw_rl.files import write_json
from fw_rl.tasks.base import Task
from fw_rl.tasks.report import write_report
from fw_rl.tasks.runs import Record, Run, execute, read_record, read_records
from fw_rl.tasks.training import Training, best_epoch

__all__ = ["TableOptions", "make_table"]


@dataclass(frozen=True)
class TableOptions:
    """Options of a table of runs."""

    cells: Annotated[
        tuple[str, ...], tyro.conf.arg(aliases=["--cell"], metavar="NAME ...", help_behavior_hint="(default: all rows)")
    ] = ()
    """Rows of the table: names of its models, of any cell, or module:name for a cell that a module registers."""
    cell_options: Annotated[
        tuple[str, ...] | None, tyro.conf.arg(metavar="NAME=VALUE ...", help_behavior_hint="(default: the paper's)")
    ] = None
    """Options of the cells, such as eta=0.1 decay=0.95: a row of its own in the table."""
    hidden_sizes: Annotated[
        tuple[int, ...],
        tyro.conf.arg(aliases=["--hidden-size"], metavar="INT ...", help_behavior_hint="(default: the paper's)"),
    ] = ()
    """Units of the recurrent layer."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(aliases=["--seed"], metavar="INT ...")] = (0, 1, 2)
    """Seeds of the nets and of the order of the examples."""
    epochs: int = 64
    """Passes over the training set; a run ends earlier after three without an error on the validation set."""
    learning_rates: Annotated[tuple[float, ...], tyro.conf.arg(aliases=["--learning-rate"], metavar="FLOAT ...")] = (1e-3, 3e-3)
    """Learning rates of AdamW; of several, each model and size takes the one with the lowest validation error at seed 0."""
    weight_decays: Annotated[
        tuple[float, ...],
        tyro.conf.arg(
            aliases=["--weight-decay"], metavar="FLOAT ...", help_behavior_hint="(default: 0.1 for retrieval, else 0)"
        ),
    ] = ()
    """How much of each weight AdamW takes away, times the learning rate; of several, chosen with the learning rate."""
    search_epochs: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: as --epochs)")] = None
    """Epochs of the runs that choose learning rate and weight decay."""
    batch_size: int = 128
    """Examples of an update."""
    anneal: bool = True
    """Let the learning rate go down to 0 along a cosine."""
    jobs: int = 1
    """Runs side by side, each in a process with one thread."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: runs/TASK)")] = None
    """Folder of the records and of the table; runs that are recorded there are not made again."""
    log_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: runs/TASK)")] = None
    """Folder of the checkpoints and of the TensorBoard logs."""
    resume: bool = True
    """Go on with a run that was interrupted where its last epoch ended; else begin it anew."""
    table: bool = False
    """Train nothing: only make the table of the runs that are recorded."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class _Job:
    """A run and where its record goes."""

    run: Run
    record: Path
    options: TableOptions
    log_dir: Path

    def __call__(self) -> Record:
        quiet = self.options.quiet or self.options.jobs > 1
        return execute(self.run, self.record, self.log_dir, resume=self.options.resume, quiet=quiet)


def make_table(task: Task, options: TableOptions, program: str) -> int:
    """Choose how to train each model, make the runs that are missing, write the table; returns the exit code of the command."""
    out = options.out or Path("runs") / task.name
    torch.set_num_threads(1)
    try:
        records = _records(task, out)
        if not options.table:
            _train(task, options, out, records)
            records = _records(task, out)
        if not records:
            raise ValueError(f"{out} holds no runs of which to make a table")
        text = write_report(task, records, out)
    except KeyboardInterrupt:
        print(f"Interrupted. The same command goes on where it was ({out}).")
        return 130
    except BrokenProcessPool:
        return fail(program, "a process was killed (out of memory?): the same command goes on, with fewer --jobs")
    except (ValueError, OSError) as error:
        return fail(program, error)
    print(f"\n{text}\nTable, pictures and records: {out}")
    return 0


def _records(task: Task, out: Path) -> list[Record]:
    """What the folder holds; ValueError if it is of another task."""
    records = read_records(out / "runs")
    for record in records:
        if record.task != task.name:
            raise ValueError(f"{out} holds runs of {record.task}, not of {task.name}: give another --out")
    return records


def _train(task: Task, options: TableOptions, out: Path, records: Sequence[Record]) -> None:
    _check(options)
    grid = _grid(task, options)
    rows = product(dict.fromkeys(options.cells or task.rows), dict.fromkeys(options.hidden_sizes or task.hidden_sizes))
    cell_options = parse_cell_options(options.cell_options or ())
    models = [Run(task, row, size, grid[0], cell_options) for row, size in rows]
    log_dir = options.log_dir or Path("runs") / task.name
    for model in models:  # before hours of training, not after
        task.make_net(task.row(model.row, model.options), model.hidden_size)
        _check_known(model, grid, records, out)
    for name, folder in dict(out=out, log_dir=log_dir).items():
        make_folder(name, folder)

    def job(run: Run, folder: str, name: str) -> _Job:
        return _Job(run, out / folder / f"{name}.json", options, log_dir)

    searches = {model: [job(run, "search", run.search_name) for run in _candidates(model, grid, options)] for model in models}
    _make([candidate for search in searches.values() for candidate in search], options.jobs)
    jobs = []
    for model, search in searches.items():
        chosen = replace(_best(search), epochs=options.epochs) if search else grid[0]
        _check_known(model, [chosen], records, out)
        runs = [replace(model, training=replace(chosen, seed=seed)) for seed in dict.fromkeys(options.seeds)]
        own = [job(run, "runs", run.name) for run in runs]
        _take_from_search(own, search)
        jobs += own
    _make(jobs, options.jobs)


def _grid(task: Task, options: TableOptions) -> list[Training]:
    """The ways to train from which every model and size takes its best."""
    rates = dict.fromkeys(options.learning_rates)
    decays = dict.fromkeys(options.weight_decays or (task.weight_decay,))
    return [
        Training(rate, options.epochs, 0, options.batch_size, options.anneal, decay) for rate, decay in product(rates, decays)
    ]


def _candidates(model: Run, grid: Sequence[Training], options: TableOptions) -> list[Run]:
    """The runs that choose how to train a model; none where there is one way."""
    epochs = options.search_epochs or options.epochs
    return [replace(model, training=replace(training, epochs=epochs)) for training in grid] if len(grid) > 1 else []


def _take_from_search(jobs: Sequence[_Job], search: Sequence[_Job]) -> None:
    """A candidate that was trained as long as the runs of the table is one of them already."""
    for job, record in product(jobs, [read_record(candidate.record) for candidate in search]):
        if record.is_of(job.run) and not job.record.exists():
            write_json(job.record, vars(record))


def _check_known(model: Run, grid: Sequence[Training], records: Sequence[Record], out: Path) -> None:
    """Raises ValueError where the records could not stand in one table with the runs that are wanted."""
    wanted = [replace(model, training=training).settings for training in grid]
    for record in records:
        names = list(wanted[0]) if record.group == model.group else ["data"]
        for name in names:
            choices = [settings[name] for settings in wanted]
            if record.settings.get(name) not in choices:
                there, asked = f"{name} {record.settings.get(name)}", " or ".join(dict.fromkeys(map(str, choices)))
                raise ValueError(f"{out} holds {record.label} with {there}, not {asked}: give the same, or another --out")


def _make(jobs: Sequence[_Job], side_by_side: int) -> None:
    """Make the runs that have no record yet, one after the other or side by side."""
    missing = [job for job in jobs if not job.record.exists()]
    for job in jobs:
        if job.record.exists() and not read_record(job.record).is_of(job.run):
            raise ValueError(f"{job.record} was made with other settings: give the same ones, or another --out")
    if side_by_side == 1:
        for number, job in enumerate(missing, 1):
            _say(job(), job, number, len(missing))
        return
    pool = ProcessPoolExecutor(side_by_side, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
    try:
        for number, (job, record) in enumerate(zip(missing, pool.map(_call, missing), strict=True), 1):
            _say(record, job, number, len(missing))
    finally:
        pool.shutdown(cancel_futures=True)


def _call(job: _Job) -> Record:
    return job()


def _say(record: Record, job: _Job, number: int, total: int) -> None:
    if record.diverged:
        result = "diverged"
    else:
        result = f"test error {record.best['test_error']:.2f} % at epoch {best_epoch(record.epochs)} of {len(record.epochs)}"
    training = job.run.training
    how = f"learning rate {training.learning_rate:g}, weight decay {training.weight_decay:g}"
    print(f"[{number}/{total}] {job.run.name}, {how}: {result}", flush=True)


def _best(candidates: Sequence[_Job]) -> Training:
    """How the candidate with the lowest error on the validation set, at equal errors the lowest loss there, was trained."""

    def rank(job: _Job) -> tuple[float, float]:
        record = read_record(job.record)
        return (math.inf, math.inf) if record.diverged else (record.best["valid_error"], record.best["valid_loss"])

    return min(candidates, key=rank).run.training


def _check(options: TableOptions) -> None:
    def require(condition: bool, flag: str, value: Any, allowed: str) -> None:
        if not condition:
            raise ValueError(f"{flag} is {value}: it must be {allowed}")

    for name in ("epochs", "search_epochs", "batch_size", "jobs"):
        check_count(name, getattr(options, name))
    for rate in options.learning_rates:
        require(0 < rate < math.inf, "--learning-rates", rate, "above 0 and finite")
    for decay in options.weight_decays:
        require(0 <= decay < math.inf, "--weight-decays", decay, "at least 0 and finite")
    for size in options.hidden_sizes:
        check_count("hidden_sizes", size)
    for seed in options.seeds:
        require(0 <= seed < 2**31, "--seeds", seed, "at least 0 and below 2^31")
    for name in ("seeds", "learning_rates"):
        require(len(getattr(options, name)) > 0, flag(name), "empty", "one or more numbers")
