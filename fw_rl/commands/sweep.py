"""`sweep`: search the settings of a cell on an environment, and train the best of them with new seeds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import gymnasium as gym
import tyro

from fw_rl.algorithms import ENGINES
from fw_rl.commands.command_line import fail, fault, parse
from fw_rl.experiments.checks import check_count, check_processes, check_seed, make_folder, ray_needed, require_option
from fw_rl.experiments.environments import changes_to_observations
from fw_rl.experiments.search.learning import Trainings, read_learnings
from fw_rl.experiments.search.swept import TRIALS
from fw_rl.experiments.settings import resolve
from fw_rl.processes import WorkerError

if TYPE_CHECKING:
    from fw_rl.experiments.search.sweep import Sweep

__all__ = ["SweepOptions", "main"]


@dataclass(frozen=True)
class SweepOptions:
    """Search the settings of a memory cell on an environment, and train the best of them with new seeds.

    Every trial is a training with settings drawn from the cell's search space, by the algorithm that `train` uses for the
    environment: A2C for Catch, else PPO. Its value is the mean return of the training episodes over the whole training, the
    area under the learning curve. The best of many trials is partly luck: with --finalists, new seeds decide which settings are
    best. Run a stopped sweep again to continue it: no finished training is repeated. OUT/ENV/CELL has the results, also for
    `fw-rl figure5`. Trials whose process was killed are noticed after a minute, and made again.
    """

    env: str = "Catch-16-3"
    """Environment, as for `fw-rl train`."""
    cell: str = "fast-weights"
    """Memory cell, or module:name for one that a module registers."""
    trials: int = 60
    """Trials of the study in all, earlier ones included."""
    finalists: int = 1
    """After all trials, train this many of the best with five new seeds each; the mean area over these decides. 1 skips
    this."""
    retrain: int = 0
    """Finally, train the best settings with this many seeds that had no part in the choice."""
    timesteps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: tuned)")] = None
    """Frames of every training."""
    sampler: str = "random"
    """random draws trials independently, as the paper's search did; tpe draws more where earlier trials were good."""
    seed: int = 0
    """Seed of the draws."""
    prune: bool = False
    """Stop trials that are below the median of the others at the same number of frames."""
    space: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the package's)")] = None
    """YAML file with the search spaces, in the form of fw_rl/experiments/search/spaces.yaml."""
    storage: Annotated[str | None, tyro.conf.arg(metavar="URL", help_behavior_hint="(default: OUT/studies.db)")] = None
    """Database in which Optuna keeps the studies, so that many machines can share them."""
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Trainings side by side, each in a process with one thread."""
    engine: str = "local"
    """local, or ray: the trainings are tasks of a Ray cluster; set --jobs to its number of cores (pip install 'fw-rl[ray]')."""
    ray_address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT", help_behavior_hint="(default: none)")] = None
    """Address of a running Ray cluster, or auto for the one on this machine. Without it, Ray is started for this sweep."""
    eval_episodes: int = 1000
    """Episodes of the greedy evaluation at the end of a training."""
    out: Path = Path("runs/sweep")
    """Folder for the results."""
    quiet: bool = False
    """Print a line for each finished training instead of a live table."""


def main(arguments: Sequence[str], program: str = "fw-rl sweep") -> int:
    """Run the command; returns its exit code: 0 done, 1 a worker failed or a fault, 2 bad input, 130 interrupted."""
    options = parse(SweepOptions, arguments, program)
    try:
        sweep = _prepare(options)
    except ModuleNotFoundError as error:
        return fail(program, f"{error.name} is missing: pip install 'fw-rl[sweep]'")
    except (ValueError, OSError, gym.error.Error) as error:
        return fail(program, error)
    try:
        text = sweep.run(options.trials, options.finalists, options.retrain)
        print(f"\n{text}\nTrials, seeds and this report: {sweep.folder}")
    except KeyboardInterrupt:
        print(f"Interrupted. The same command goes on where it was ({sweep.folder}).")
        return 130
    except ValueError as error:
        return fail(program, error)
    except OSError as error:
        whole = f"the trainings in {sweep.folder} are whole: once that is fixed, the same command goes on"
        return fault(program, error, whole)
    except WorkerError as error:
        return fail(program, error.summary, code=1, details=error.details)
    return 0


def _prepare(options: SweepOptions) -> Sweep:
    """Check everything that a user can get wrong before hours of training; returns the sweep."""
    from fw_rl.experiments.search.space import search_space
    from fw_rl.experiments.search.study import SAMPLERS, SettingsStudy
    from fw_rl.experiments.search.sweep import Sweep

    for name, least in (("trials", 0), ("finalists", 1), ("retrain", 0), ("eval_episodes", 1)):
        check_count(name, getattr(options, name), least)
    check_seed("seed", options.seed)
    check_processes("jobs", options.jobs)
    open_trainings = _engine(options)
    require_option("sampler", options.sampler, options.sampler in SAMPLERS, f"one of {', '.join(SAMPLERS)}")
    given = {} if options.timesteps is None else dict(timesteps=options.timesteps)
    config = resolve(env=options.env, cell=options.cell, tuned_for_cell=False, **given)
    space = search_space(config.short_cell, options.space)
    space.check(config)
    changes_to_observations(config.env)
    make_folder("out", options.out)
    database, folder = options.out / "studies.db", options.out / config.short_env / config.short_cell
    study = SettingsStudy(config, space, database, options.storage, options.sampler, options.seed, options.prune)
    folder.mkdir(parents=True, exist_ok=True)
    study.adopt(read_learnings(folder / TRIALS), str(folder / TRIALS))
    return Sweep(study, folder, open_trainings, options.quiet)


def _engine(options: SweepOptions) -> Callable[[], Trainings]:
    require_option("engine", options.engine, options.engine in ENGINES, f"one of {', '.join(ENGINES)}")
    if options.engine == "local":
        require_option("ray_address", options.ray_address, options.ray_address is None, "left out with --engine local")
        return partial(Trainings, options.jobs, options.eval_episodes)
    with ray_needed():
        from fw_rl.experiments.search.on_ray import OnRay
    return partial(OnRay, options.jobs, options.eval_episodes, options.ray_address)
