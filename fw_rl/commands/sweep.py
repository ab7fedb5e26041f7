"""`sweep`: search the settings of a cell on an environment, and train the best of them with new seeds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import gymnasium as gym
import tyro

from fw_rl.commands.command_line import fail
from fw_rl.experiments.checks import check_count, make_folder
from fw_rl.experiments.ray_engine import ray_needed
from fw_rl.experiments.search.choice import choose, finalists
from fw_rl.experiments.search.learning import (
    FINALS,
    SEEDS,
    TRIALS,
    Learning,
    SideBySide,
    Trainings,
    known_learnings,
    write_learnings,
)
from fw_rl.experiments.settings import RunSettings, resolve
from fw_rl.files import write_file
from fw_rl.processes import WorkerError

if TYPE_CHECKING:
    from optuna.trial import Trial

    from fw_rl.experiments.search.study import SettingsStudy

__all__ = ["SweepOptions", "main"]

FINAL_SEEDS = range(5_000, 5_003)
"""Seeds of the finalists; a trial's is its number."""

FIRST_NEW_SEED = 10_000
"""The best settings are trained with seeds from here on."""


@dataclass(frozen=True)
class SweepOptions:
    """Search the settings of a memory cell on an environment, and train the best of them with new seeds.

    Every trial is a training by A2C with settings drawn from the cell's search space. Its value is the mean return of the
    training episodes over the whole of it, which is the area under the learning curve. The trial with the largest one, of many,
    owes it to luck as well: with finalists, new seeds decide which settings are the best. Nothing is done twice: the same
    command goes on where it was stopped, by what it has left in OUT/ENV/CELL, also for `fw-rl figure5`.
    """

    env: str = "Catch-16-3"
    """Environment: Catch-N-M, Catch-N-M-D, any Gymnasium id, or module:id."""
    cell: str = "fast-weights"
    """Memory cell, or module:name for one that a module registers."""
    trials: int = 60
    """Trials that the study is to have in all."""
    finalists: int = 1
    """When all trials are done, train so many of the best with three new seeds each: the mean area over these decides."""
    retrain: int = 0
    """In the end, train the best settings with so many seeds that had no part in the choice."""
    timesteps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: tuned)")] = None
    """Frames of every training."""
    sampler: str = "random"
    """random draws every trial anew, as the paper's search did; tpe draws more where earlier trials were good."""
    seed: int = 0
    """Seed of the draws."""
    prune: bool = False
    """End trials that are below the median of the others at the same number of frames."""
    space: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the package's)")] = None
    """Search spaces as a YAML file, of the form of fw_rl/experiments/search/spaces.yaml."""
    storage: Annotated[str | None, tyro.conf.arg(metavar="URL", help_behavior_hint="(default: OUT/studies.journal)")] = None
    """Database in which Optuna keeps the studies, for many machines."""
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Trainings side by side, each in a process with one thread."""
    engine: str = "local"
    """local, or ray: the trainings are tasks of a Ray cluster, of which --jobs wants all cores (pip install 'fw-rl[ray]')."""
    ray_address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT", help_behavior_hint="(default: none)")] = None
    """A running Ray cluster, or auto for that of this machine; else Ray is started here, and ended after the sweep."""
    eval_episodes: int = 1000
    """Episodes of the greedy evaluation at the end of a training."""
    out: Path = Path("runs/sweep")
    """Folder of the results."""
    quiet: bool = False
    """No live table, but a line for each training that ends."""


def main(arguments: Sequence[str], program: str = "fw-rl sweep") -> int:
    """Run the command; returns its exit code: 0 done, 1 a worker failed, 2 bad input, 130 interrupted."""
    options = tyro.cli(SweepOptions, args=arguments, prog=program)
    try:
        folder, study = _prepare(options)
    except ModuleNotFoundError as error:
        return fail(program, f"{error.name} is missing: pip install 'fw-rl[sweep]'")
    except (ValueError, OSError, gym.error.Error) as error:
        return fail(program, error)
    try:
        _search(study, folder, options)
        if study.running:
            print(f"{study.running} trials still run elsewhere: once they have ended, the same command chooses the best.")
        else:
            _decide(study, folder, options)
            _retrain(study, folder, options)
        _report(study, folder)
    except KeyboardInterrupt:
        print(f"Interrupted. The same command goes on where it was ({folder}).")
        return 130
    except (ValueError, OSError) as error:
        return fail(program, error)
    except WorkerError as error:
        return fail(program, error.summary, code=1, details=error.details)
    return 0


def _prepare(options: SweepOptions) -> tuple[Path, SettingsStudy]:
    """Everything that can go wrong by a user's slip, before hours of training."""
    from fw_rl.experiments.search.space import search_space
    from fw_rl.experiments.search.study import SAMPLERS, SettingsStudy

    for name, least in (("trials", 0), ("finalists", 1), ("retrain", 0), ("jobs", 1), ("eval_episodes", 1), ("seed", 0)):
        check_count(name, getattr(options, name), least)
    if options.engine == "ray":
        _trainings(options)  # Ray may be missing
    elif options.engine != "local":
        raise ValueError(f"--engine is {options.engine!r}: choose from local, ray")
    elif options.ray_address is not None:
        raise ValueError(f"--ray-address is {options.ray_address}, but the engine is local: add --engine ray")
    if options.sampler not in SAMPLERS:
        raise ValueError(f"--sampler is {options.sampler!r}: choose from {', '.join(SAMPLERS)}")
    config = resolve(env=options.env, cell=options.cell, timesteps=options.timesteps, tuned_for_cell=False)
    space = search_space(config.short_cell, options.space)
    space.check(config)
    folder = options.out / config.short_env / config.short_cell
    make_folder("out", options.out)
    journal = options.out / "studies.journal"
    study = SettingsStudy(config, space, journal, options.storage, options.sampler, options.seed, options.prune)
    folder.mkdir(parents=True, exist_ok=True)
    study.adopt(known_learnings(folder / TRIALS), str(folder / TRIALS))
    return folder, study


def _trainings(options: SweepOptions) -> Trainings:
    if options.engine == "local":
        return SideBySide(options.jobs, options.eval_episodes)
    with ray_needed():
        from fw_rl.experiments.search.on_ray import OnRay
    return OnRay(options.jobs, options.eval_episodes, options.ray_address)


def _search(study: SettingsStudy, folder: Path, options: SweepOptions) -> None:
    """Make the trials that are missing, and write down what was learned in all of them."""
    from fw_rl.experiments.search.live import LiveTable

    running: dict[int, Trial] = {}
    try:
        with (
            LiveTable(_title(study, "trials"), options.trials, study.learnings, options.quiet) as table,
            _trainings(options) as trainings,
        ):
            while running or study.begun < options.trials:
                while trainings.has_room and study.begun < options.trials:
                    trial, config = study.ask()
                    running[trial.number] = trial
                    trainings.start(trial.number, config, trial.params)
                    table.begin(trial.number, config, trial.params)
                for number, event in trainings.events():
                    if isinstance(event, Learning):
                        study.tell(running.pop(number), event)
                        write_learnings(folder / TRIALS, study.learnings)
                        table.show(number, event)
                    elif study.is_hopeless(running[number], event):
                        trainings.stop(number)
                        study.prune(running.pop(number))
                        table.drop(number)
                    else:
                        table.show(number, event)
    finally:
        for trial in running.values():
            study.forget(trial)
        write_learnings(folder / TRIALS, study.learnings)


def _decide(study: SettingsStudy, folder: Path, options: SweepOptions) -> None:
    """Train the best settings of the search with the seeds that are missing."""
    from fw_rl.experiments.search.live import train_missing

    if options.finalists > 1:
        found = finalists(study.learnings, options.finalists)
        wanted = [_with_seed(trial, seed) for seed in FINAL_SEEDS for trial in found]
        train_missing(folder / FINALS, wanted, _title(study, "finalists"), _trainings(options), options.quiet)


def _retrain(study: SettingsStudy, folder: Path, options: SweepOptions) -> None:
    """Train the best settings with the seeds that are missing."""
    from fw_rl.experiments.search.live import train_missing

    if not options.retrain:
        return
    path = folder / SEEDS
    chosen = choose(study.learnings, known_learnings(folder / FINALS))
    if chosen is None:
        raise ValueError(f"no trial of {folder} has a value: there is nothing to train with new seeds")
    if not all(training.differs_by_seed(chosen) for training in known_learnings(path)):
        raise ValueError(f"{path} is of other settings than those of the best trial, {chosen.seed}: move it away")
    wanted = [_with_seed(chosen, FIRST_NEW_SEED + i) for i in range(options.retrain)]
    title = _title(study, f"trial {chosen.seed} with new seeds")
    train_missing(path, wanted, title, _trainings(options), options.quiet)


def _with_seed(trial: Learning, seed: int) -> tuple[RunSettings, dict[str, Any]]:
    return replace(RunSettings(**trial.settings), seed=seed), trial.parameters


def _title(study: SettingsStudy, what: str) -> str:
    return f"{study.config.short_env}, {study.config.short_cell}, {what}"


def _report(study: SettingsStudy, folder: Path) -> None:
    from fw_rl.experiments.search.report import report

    title = _title(study, f"{study.config.timesteps:,} frames")
    finals, seeds = known_learnings(folder / FINALS), known_learnings(folder / SEEDS)
    text = report(title, study.learnings, study.importances, finals, seeds)
    write_file(folder / "report.md", text.encode())
    print(f"\n{text}\nTrials, seeds and this report: {folder}")
