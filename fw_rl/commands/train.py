"""`train`: train an agent with memory, evaluate it, and leave one folder with everything."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from fw_rl.agents import A3C, Player, RecurrentA2C, RecurrentPPO, WorkerError
from fw_rl.agents.normalization import describe_normalization, normalize_as
from fw_rl.cells import FastWeightsCell, find_cell
from fw_rl.commands.callbacks import AttentionPictures, Checkpoints, LogRows, ProgressBar, StopOnInterrupt
from fw_rl.commands.command_line import fail, flag
from fw_rl.commands.config import NOT_ON_RAY, ONLY_PPO, RunConfig, TrainOptions, check_device, check_workers, resolve
from fw_rl.commands.environments import make_vector_env
from fw_rl.commands.pictures import animate_episodes, draw_learning_curve
from fw_rl.commands.ray_engine import rllib_agent
from fw_rl.commands.run_folder import RunFolder
from fw_rl.commands.trained import agent_class
from fw_rl.envs import VecEnvAdapter, VecPreviousStep
from fw_rl.files import write_json
from fw_rl.statistics import mean_interval

__all__ = ["main"]

LOG_ROWS = 200
CHECKPOINTS = 20
ATTENTION_PICTURES, FRAMES_A_PICTURE = 4, 100_000
EVALUATION_ENVS = 100
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


def make_model(config: RunConfig, device: str = "cpu", ray_address: str | None = None) -> RecurrentA2C:
    """A new agent for the settings of a run."""
    names = "learning_rate anneal anneal_entropy normalize_advantage n_steps gamma gae_lambda ent_coef vf_coef max_grad_norm"
    settings = {name: getattr(config, name) for name in [*names.split(), "matmul_precision", "optimizer", "seed"]}
    settings["policy_kwargs"] = dict(cell=config.cell, hidden_size=config.hidden_size, cell_kwargs=config.cell_options)
    if config.engine == "ray":
        for name in NOT_ON_RAY:
            del settings[name]
        return rllib_agent()("RecurrentPolicy", _make_runner_env(config), **_on_ray(config, ray_address), **settings)
    if config.algo == "a3c":
        return A3C("RecurrentPolicy", _make_env(config), n_workers=config.workers, device=device, **settings)
    if config.algo == "ppo":
        settings |= {name: getattr(config, name) for name in ONLY_PPO}
        return RecurrentPPO("RecurrentPolicy", _make_env(config)(), device=device, **settings)
    return RecurrentA2C("RecurrentPolicy", _make_env(config)(), device=device, **settings)


def load_model(config: RunConfig, checkpoint: Path, device: str = "cpu", ray_address: str | None = None) -> RecurrentA2C:
    """The agent of a run as a checkpoint has it, ready to go on.

    Raises ValueError if the checkpoint is damaged, or of another run.
    """
    model: RecurrentA2C
    find_cell(config.cell)  # a checkpoint imports nothing
    if config.engine == "ray":
        model = rllib_agent().load(checkpoint, _make_runner_env(config), **_on_ray(config, ray_address))
    elif config.algo == "a3c":
        model = A3C.load(checkpoint, _make_env(config), device=device, n_workers=config.workers)
    else:
        model = agent_class(config).load(checkpoint, _make_env(config)(), device=device)
    policy = model.policy
    if (policy.cell_name, policy.hidden_size, policy.cell_kwargs) != (config.cell, config.hidden_size, config.cell_options):
        raise ValueError(f"{checkpoint} is of another run: its net is not that of the run's settings")
    return model


def _make_env(config: RunConfig) -> Callable[[], VecEnv]:
    """What makes the environments of one process that acts: every worker of A3C, or all, if workers only step them."""
    if config.algo == "a3c":
        return partial(_adapted, config, config.n_envs // config.workers)
    make = _normalized if config.normalize else _adapted
    return partial(make, config, config.n_envs, config.workers)


def _adapted(config: RunConfig, n_envs: int, workers: int = 1) -> VecEnv:
    env = VecEnvAdapter(make_vector_env(config.env, n_envs, workers), monitor=True)
    return VecPreviousStep(env) if config.previous_step else env


def _normalized(config: RunConfig, n_envs: int, workers: int) -> VecEnv:
    env = _adapted(config, n_envs, workers)
    space = env.observation_space
    if not isinstance(space, spaces.Dict):
        return VecNormalize(env, norm_obs=_is_numbers(space), gamma=config.gamma)
    keys = [key for key, part in space.spaces.items() if _is_numbers(part)]
    return VecNormalize(env, norm_obs=bool(keys), norm_obs_keys=keys, gamma=config.gamma)


def _is_numbers(space: spaces.Space) -> bool:
    """Whether an observation can be scaled: an image is not, nor is a choice among some."""
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)


def _make_runner_env(config: RunConfig) -> Callable[[], VectorEnv]:
    """What makes the environments of a runner of Ray, as RLlib takes them."""
    return partial(make_vector_env, config.env, config.n_envs // config.workers, autoreset_mode=AutoresetMode.NEXT_STEP)


def _on_ray(config: RunConfig, address: str | None) -> dict[str, Any]:
    return dict(algorithm=config.algo, n_workers=config.workers, ray_address=address)


def _prepare(options: TrainOptions) -> tuple[RunFolder, RunConfig, RecurrentA2C]:
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


def _train(folder: RunFolder, config: RunConfig, model: RecurrentA2C, quiet: bool) -> None:
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


def _report(folder: RunFolder, config: RunConfig, model: RecurrentA2C, episodes: int) -> None:
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


def evaluate(config: RunConfig, model: RecurrentA2C, episodes: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The returns of greedy episodes from a seed of their own."""
    env = _adapted(config, min(episodes, EVALUATION_ENVS))
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        env = normalize_as(env, describe_normalization(normalizer) | dict(training=False, norm_reward=False))
    env.seed(config.seed + 1_000_003)
    returns = Player(model).play(env, episodes)
    env.close()
    return returns
