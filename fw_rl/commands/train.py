"""`train`: train an agent with memory, evaluate it, and write everything to one folder.

Torch, and whatever needs it, is imported when the work begins, since `--help` does not need it.
"""

from __future__ import annotations

import shlex
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import gymnasium as gym
import tyro

from fw_rl.algorithms import ENGINES
from fw_rl.commands.command_line import crash, fail, fault, parse
from fw_rl.experiments.checks import check_count, check_device, check_threads, require_option
from fw_rl.experiments.environments import EVALUATION_STEPS, changes_to_observations, draw_without_screen
from fw_rl.experiments.settings import RunSettings, fill_in, resolve
from fw_rl.processes import WorkerError

if TYPE_CHECKING:
    from fw_rl.experiments.training import TrainingRun

__all__ = ["TrainOptions", "main"]

FREE_WHEN_RESUMING = ("resume", "timesteps", "workers", "ray_address", "device", "threads", "eval_episodes", "wandb", "quiet")

BAD_INPUT = (ValueError, OSError, gym.error.Error, ArgumentTypeError)


@dataclass(frozen=True)
class TrainOptions(RunSettings):
    """Train an agent with memory on a Gymnasium environment.

    The defaults are tuned for the environment, the cell and the algorithm: `--env ID --help` shows those for an environment.
    Without --env they are those for Catch-16-3. The default algorithm is A2C for Catch, else PPO.
    """

    device: str = "cpu"
    """cpu, cuda, cuda:K or auto. Nets of this size are faster on the processor."""
    threads: int = 1
    """Threads for Torch. More than one helps with many environments, on otherwise idle cores."""
    ray_address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT", help_behavior_hint="(default: none)")] = None
    """Address of a running Ray cluster, or auto for the one on this machine. Without it, Ray is started for this run."""
    log_dir: Path = Path("runs")
    """Folder in which the run's own folder is made."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="(default: none)")] = None
    """Folder of a run to resume from its last checkpoint, with its settings. A finished run continues with more --timesteps;
    its schedules are then those of a run of that length."""
    eval_episodes: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 1000 for the games of fw_rl, else 100)")
    ] = None
    """Episodes of the final evaluation: this many greedy ones, and as many with sampled actions."""
    wandb: Annotated[str | None, tyro.conf.arg(metavar="PROJECT", help_behavior_hint="(default: none)")] = None
    """Also log to this project on Weights & Biases (offline with WANDB_MODE=offline). A resumed run keeps its project."""
    quiet: bool = False
    """No progress bar."""


def main(arguments: Sequence[str], program: str = "fw-rl train") -> int:
    """Run the command; returns its exit code: 0 done, 1 not finite or a fault, 2 bad input, 130 interrupted."""
    draw_without_screen()
    try:
        defaults = _defaults(arguments, program)
    except BAD_INPUT as error:
        return fail(program, error)
    options = parse(TrainOptions, arguments, program, default=defaults)
    from fw_rl.experiments.tracking import begin_tracking, prepare_tracking

    try:
        changes = changes_to_observations(options.env)  # first: closing one environment ends pygame for all
        prepare_tracking(options.wandb, options.resume)
        training = _prepare(options, defaults)
        tracker = begin_tracking(training.folder, training.config, options.wandb)
    except ConnectionError as error:
        return fail(program, error, code=1)
    except (*BAD_INPUT, ModuleNotFoundError) as error:
        return fail(program, error)
    except WorkerError as error:
        return fail(program, error.summary, code=1, details=error.details)
    for line in changes:
        print(line)
    code = _train(training, options, tracker, program)
    if tracker:
        tracker.finish(code)
    return code


def _train(training: TrainingRun, options: TrainOptions, tracker: Any, program: str) -> int:
    """Train, evaluate and report; returns the exit code."""
    resume = f"{program} --resume {shlex.quote(str(training.folder.path))}"
    _say_what_is_compiled(training)
    try:
        training.run(progress_bar=not options.quiet)
    except KeyboardInterrupt:
        saved = training.folder.saved_checkpoints()
        print(f"Interrupted at {int(saved[-1].stem) if saved else 0:,} frames. Go on with: {resume}")
        return 130
    except FloatingPointError as error:
        return fail(program, error, code=1)
    except WorkerError as error:
        return fail(program, f"{error.summary}; go on with: {resume}", code=1, details=error.details)
    except OSError as error:
        return fault(program, error, _how_to_go_on(training, resume))
    except (Exception, SystemExit) as error:  # of an environment, or of what it returns, such as masks that allow no action
        return crash(program, error, f"go on with: {resume}")
    try:
        _report(training, options, tracker)
    except KeyboardInterrupt:
        print(f"The training is done, but not the evaluation. Run it with: {resume}")
        return 130
    except FloatingPointError as error:
        return fail(program, error, code=1)
    except OSError as error:
        undone = f"the training is done, but not the evaluation: once that is fixed, run it with: {resume}"
        return fault(program, error, undone)
    except (Exception, SystemExit) as error:
        return crash(program, error, f"the training is done, but not the evaluation: run it with: {resume}")
    return 0


def _how_to_go_on(training: TrainingRun, resume: str) -> str:
    """What is intact after a file could not be written, and how to continue."""
    from fw_rl.agents import read_checkpoint

    if not training.folder.config.is_file():
        return f"nothing is left of {training.folder.path}: begin anew"
    try:
        frames = read_checkpoint(training.folder.last_checkpoint()).counters["num_timesteps"]
    except ValueError as error:
        return str(error)
    return f"the checkpoint at {frames:,} frames is whole: once that is fixed, go on with: {resume}"


def _defaults(arguments: Sequence[str], program: str) -> TrainOptions:
    """The values of options that are not given: those tuned for the given ones, or those of the run to resume."""
    words = [word for word in arguments if word not in ("-h", "--help")]
    left_out = TrainOptions(algo="", workers=0, n_envs=0, n_steps=0)  # values that nobody may give
    named = parse(TrainOptions, words, program, default=left_out)
    if named.resume is not None:
        from fw_rl.experiments.run_folder import RunFolder

        return TrainOptions(**asdict(RunFolder.open(named.resume)[1]))
    decisive = ("env", "cell", "engine", "algo", "workers", "n_envs", "n_steps", "bptt_length")
    tuned = fill_in(**{name: getattr(named, name) for name in decisive if getattr(named, name)})
    return TrainOptions(**asdict(tuned) | dict(env=named.env))


def _prepare(options: TrainOptions, defaults: TrainOptions) -> TrainingRun:
    """Check everything that a user can get wrong before a folder is made; returns the run."""
    import torch

    from fw_rl.experiments.training import TrainingRun

    _check_machine(options)
    torch.set_num_threads(options.threads)
    device, address = options.device, options.ray_address
    if options.resume is None:
        given = {field.name: getattr(options, field.name) for field in fields(RunSettings)}
        return TrainingRun.begin(resolve(**given), options.log_dir, device, address)
    for name, value in vars(options).items():
        if name not in FREE_WHEN_RESUMING:
            require_option(name, value, value == getattr(defaults, name), "left out with --resume")
    return TrainingRun.resume(options.resume, options.workers, options.timesteps, device, address)


def _check_machine(options: TrainOptions) -> None:
    check_threads("threads", options.threads)
    check_count("eval_episodes", options.eval_episodes)
    check_device(options.device, auto=True)
    if options.engine == "ray":
        on_cpu = options.device in ("cpu", "auto")
        require_option(
            "device", options.device, on_cpu, "cpu or auto with --engine ray, whose learner is on this machine's processor"
        )
    else:
        require_option(
            "ray_address", options.ray_address, options.ray_address is None, f"left out with --engine {options.engine}"
        )


def _say_what_is_compiled(training: TrainingRun) -> None:
    from fw_rl.kernels import are_cached

    config = training.config
    replays = config.engine == "local" and "n_epochs" not in ENGINES["local"][config.algo].settings  # else weights change
    if not are_cached(*training.model.policy.actor_cell.kernels(replays)):
        print(f"Compiling the kernels of {config.short_cell}, which takes a few seconds, once per machine ...", flush=True)


def _report(training: TrainingRun, options: TrainOptions, tracker: Any) -> None:
    """Evaluate the agent, draw its pictures, and say where everything is."""
    folder, episodes = training.folder, options.eval_episodes or training.config.evaluation_episodes
    print(f"Evaluating {episodes:,} greedy and {episodes:,} sampled episodes ...", flush=True)
    result = training.evaluate(episodes, progress_bar=not options.quiet)
    if tracker:
        tracker.summary["eval"] = result
    pictures, problem = training.draw(result["mean"])
    if problem:
        print(f"No animation: {problem}")

    print(f"\nGreedy return over {episodes:,} episodes: {_mean(result)}")
    print(f"Sampled return over {episodes:,} episodes: {_mean(result['sampled'])}")
    print(f"Run:          {folder.path}")
    best, frames = folder.best_so_far()
    if frames:
        print(f"Best:         {folder.best.name}, with a mean return of {best:.3f} in training, at {frames:,} frames")
    print(f"Pictures:     {', '.join(path.name for path in pictures)}")
    print(f"TensorBoard:  tensorboard --logdir {folder.path.parent}")


def _mean(result: dict[str, Any]) -> str:
    spread = " (95 % interval {:.3f} to {:.3f})".format(*result["interval_95"]) if result["interval_95"] else ""
    cut_off = f"; {result['cut_off']:,} of them were cut off after {EVALUATION_STEPS:,} steps" if result["cut_off"] else ""
    return f"{result['mean']:.3f}{spread}{cut_off}"
