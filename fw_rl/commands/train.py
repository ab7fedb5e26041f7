"""`train`: train an agent with memory, evaluate it, and leave one folder with everything."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import gymnasium as gym
import torch
import tyro

from fw_rl.agents import RecurrentA2C, WorkerError
from fw_rl.cells import FastWeightsCell
from fw_rl.commands.command_line import fail
from fw_rl.experiments.agents import evaluate, load_model, make_model
from fw_rl.experiments.callbacks import AttentionPictures, Checkpoints, LogRows, ProgressBar, StopOnInterrupt
from fw_rl.experiments.checks import flag
from fw_rl.experiments.pictures import animate_episodes, draw_learning_curve
from fw_rl.experiments.run_folder import RunFolder
from fw_rl.experiments.settings import RunSettings, TrainOptions, check_device, check_workers, resolve
from fw_rl.files import write_json
from fw_rl.intervals import mean_interval

__all__ = ["main"]

LOG_ROWS = 200
CHECKPOINTS = 20
ATTENTION_PICTURES, FRAMES_A_PICTURE = 4, 100_000
FREE_WHEN_RESUMING = ("resume", "timesteps", "workers", "ray_address", "device", "threads", "eval_episodes", "quiet")


def main(arguments: Sequence[str], program: str = "fw-rl train") -> int:
    """Run the command; returns its exit code: 0 done, 1 diverged or a worker failed, 2 bad input, 130 interrupted."""
    options = tyro.cli(TrainOptions, args=arguments, prog=program)
    try:
        torch.set_num_threads(max(options.threads, 1))
        folder, config, model = _prepare(options)
    except (ValueError, OSError, gym.error.Error) as error:
        return fail(program, error)
    except WorkerError as error:
        return fail(program, error.summary, code=1, details=error.details)
    try:
        _train(folder, config, model, options.quiet)
    except KeyboardInterrupt:
        print(f"Interrupted at {model.num_timesteps:,} frames. Go on with: {program} --resume {folder.path}")
        return 130
    except FloatingPointError as error:
        return fail(program, error, code=1)
    except WorkerError as error:
        return fail(program, f"{error.summary}; go on with: {program} --resume {folder.path}", code=1, details=error.details)
    try:
        _report(folder, config, model, options.eval_episodes or (1000 if config.env.startswith("fw_rl/") else 100))
    except KeyboardInterrupt:
        print(f"The training is done, the evaluation is not. Make it with: {program} --resume {folder.path}")
        return 130
    return 0


def _prepare(options: TrainOptions) -> tuple[RunFolder, RunSettings, RecurrentA2C]:
    """Everything that can go wrong by a user's slip, before a folder is made."""
    if options.resume is None:
        config = resolve(options)
        model = make_model(config, options.device, options.ray_address)
        folder = RunFolder.create(options.log_dir, config)
        model.set_logger(folder.logger())
        return folder, config, model

    defaults = TrainOptions()
    for name, value in vars(options).items():
        if name not in FREE_WHEN_RESUMING and value != getattr(defaults, name):
            raise ValueError(f"--resume goes on with the settings of the run: leave {flag(name)} out")
    check_device(options.device)
    folder, config = RunFolder.open(options.resume)
    given = {name: getattr(options, name) for name in ("workers", "timesteps") if getattr(options, name)}
    config = dataclasses.replace(config, **given)
    check_workers(config)
    checkpoints = folder.saved_checkpoints()
    if not checkpoints:
        raise ValueError(f"{folder.path} has no checkpoint: start the run anew")
    model = load_model(config, checkpoints[-1], options.device, options.ray_address)
    if options.timesteps is not None:
        if options.timesteps < model.num_timesteps:
            raise ValueError(f"--timesteps is {options.timesteps}: the run has {model.num_timesteps} frames already")
        folder.keep(config)
    model.set_logger(folder.logger(model.num_timesteps))
    return folder, config, model


def _train(folder: RunFolder, config: RunSettings, model: RecurrentA2C, quiet: bool) -> None:
    """Train to the end; raises KeyboardInterrupt, after a checkpoint, if the user stops it."""
    checkpoints = Checkpoints(folder, interval=math.ceil(config.timesteps / CHECKPOINTS))
    rows = LogRows(interval=math.ceil(config.timesteps / LOG_ROWS))
    bar = [] if quiet else [ProgressBar()]
    stop = StopOnInterrupt(checkpoints)
    between = max(math.ceil(config.timesteps / ATTENTION_PICTURES), FRAMES_A_PICTURE)
    pictures = [AttentionPictures(config, between)] if isinstance(model.policy.cell, FastWeightsCell) else []
    try:
        if model.num_timesteps < config.timesteps:
            with stop:
                model.learn(
                    config.timesteps - model.num_timesteps,
                    callback=[checkpoints, stop, *pictures, rows, *bar],
                    log_interval=None,  # type: ignore[arg-type]
                    reset_num_timesteps=False,
                )
            checkpoints.save()
    except WorkerError as error:
        checkpoints.save()
        if stop.asked:  # who asked may have asked the workers too
            raise KeyboardInterrupt from error
        raise
    finally:
        for shown in bar:
            shown.close()
        model.logger.close()
        model.get_env().close()  # type: ignore[union-attr]


def _report(folder: RunFolder, config: RunSettings, model: RecurrentA2C, episodes: int) -> None:
    """Evaluate the agent, draw its pictures, and say where everything is."""
    print(f"Evaluating {episodes:,} greedy episodes ...", flush=True)
    returns = evaluate(config, model, episodes)
    mean, low, high = (float(number) for number in mean_interval(returns))
    interval = None if math.isnan(low) else [low, high]
    record = dict(mean=mean, interval_95=interval, std=float(returns.std()), episodes=episodes, greedy=True)
    write_json(folder.evaluation, record | dict(timesteps=model.num_timesteps))
    title = f"{config.short_env}, {config.short_cell}, seed {config.seed}"
    draw_learning_curve(folder.read_progress(), folder.curve, title, greedy=mean)
    pictures = [folder.curve]
    try:
        animate_episodes(model, config, folder.episodes, episodes=6, seed=config.seed + 1)
        pictures.append(folder.episodes)
    except ValueError as error:
        print(f"No animation: {' '.join(str(error).split())}")

    spread = f" (95 % interval {low:.3f} to {high:.3f})" if interval else ""
    print(f"\nGreedy return over {episodes:,} episodes: {mean:.3f}{spread}")
    print(f"The run:      {folder.path}")
    print(f"Pictures:     {', '.join(path.name for path in pictures)}")
    print(f"TensorBoard:  tensorboard --logdir {folder.path.parent}")
