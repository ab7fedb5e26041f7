"""`train`: train an agent with memory, evaluate it, and leave one folder with everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.evaluation import evaluate_policy

from fw_rl.agents import RecurrentA2C
from fw_rl.commands.callbacks import Checkpoints, LogRows, ProgressBar, StopOnInterrupt
from fw_rl.commands.command_line import fail
from fw_rl.commands.config import RunConfig, TrainOptions, resolve
from fw_rl.commands.pictures import animate_episodes, draw_learning_curve
from fw_rl.commands.run_folder import RunFolder
from fw_rl.envs.sb3 import VecEnvAdapter
from fw_rl.files import write_json

__all__ = ["main"]

LOG_ROWS = 200
CHECKPOINTS = 20
EVALUATION_ENVS = 100
FREE_WHEN_RESUMING = ("resume", "device", "threads", "eval_episodes", "quiet")


def main(arguments: Sequence[str], program: str = "fw-rl train") -> int:
    """Run the command; returns its exit code: 0 done, 1 diverged, 2 bad input, 130 interrupted."""
    options = tyro.cli(TrainOptions, args=arguments, prog=program)
    try:
        torch.set_num_threads(max(options.threads, 1))
        folder, config, model = _prepare(options)
    except (ValueError, gym.error.Error) as error:
        return fail(program, error)
    try:
        _train(folder, config, model, options.quiet)
    except KeyboardInterrupt:
        print(f"Interrupted at {model.num_timesteps:,} frames. Go on with: {program} --resume {folder.path}")
        return 130
    except FloatingPointError as error:
        return fail(program, error, code=1)
    _report(folder, config, model, options.eval_episodes)
    return 0


def make_vector_env(env_id: str, n_envs: int) -> VectorEnv:
    """`n_envs` environments in this process: those of Catch in arrays, others one by one."""
    autoreset: dict[str, Any] = dict(autoreset_mode=AutoresetMode.SAME_STEP)
    if env_id.startswith("fw_rl/"):
        return gym.make_vec(env_id, num_envs=n_envs, vectorization_mode="vector_entry_point", **autoreset)
    return gym.make_vec(env_id, num_envs=n_envs, vectorization_mode="sync", vector_kwargs=autoreset)


def make_model(config: RunConfig, device: str = "cpu") -> RecurrentA2C:
    """A new agent for the settings of a run."""
    return RecurrentA2C(
        "RecurrentPolicy",
        make_vector_env(config.env, config.n_envs),
        policy_kwargs=dict(cell=config.cell, hidden_size=config.hidden_size, cell_kwargs=config.cell_options),
        device=device,
        **_pick(config, "learning_rate anneal n_steps gamma gae_lambda ent_coef vf_coef max_grad_norm optimizer seed"),
    )


def _prepare(options: TrainOptions) -> tuple[RunFolder, RunConfig, RecurrentA2C]:
    """Everything that can go wrong by a user's slip, before a folder is made."""
    if options.resume is None:
        config = resolve(options)
        model = make_model(config, options.device)
        folder = RunFolder.create(options.log_dir, config)
        model.set_logger(folder.logger())
        return folder, config, model

    defaults = TrainOptions()
    for name, value in vars(options).items():
        if name not in FREE_WHEN_RESUMING and value != getattr(defaults, name):
            raise ValueError(f"--resume goes on with the settings of the run: leave --{name.replace('_', '-')} out")
    folder, config = RunFolder.open(options.resume)
    checkpoints = folder.saved_checkpoints()
    if not checkpoints:
        raise ValueError(f"{folder.path} has no checkpoint: start the run anew")
    env = make_vector_env(config.env, config.n_envs)
    model = RecurrentA2C.load(checkpoints[-1], env, device=options.device)
    policy = model.policy
    if (policy.cell_name, policy.hidden_size, policy.cell_kwargs) != (config.cell, config.hidden_size, config.cell_options):
        raise ValueError(f"{checkpoints[-1]} is of another run: its net is not that of {folder.config}")
    model.set_logger(folder.logger(model.num_timesteps))
    return folder, config, model


def _train(folder: RunFolder, config: RunConfig, model: RecurrentA2C, quiet: bool) -> None:
    """Train to the end; raises KeyboardInterrupt, after a checkpoint, if the user stops it."""
    checkpoints = Checkpoints(folder, interval=math.ceil(config.timesteps / CHECKPOINTS))
    rows = LogRows(interval=math.ceil(config.timesteps / LOG_ROWS))
    bar = [] if quiet else [ProgressBar()]
    try:
        with StopOnInterrupt(checkpoints) as stop:
            model.learn(
                config.timesteps - model.num_timesteps,
                callback=[checkpoints, stop, rows, *bar],
                log_interval=None,  # type: ignore[arg-type]
                reset_num_timesteps=False,
            )
        checkpoints.save()
    finally:
        for shown in bar:
            shown.close()
        model.logger.close()


def _report(folder: RunFolder, config: RunConfig, model: RecurrentA2C, episodes: int) -> None:
    """Evaluate the agent, draw its pictures, and say where everything is."""
    returns = evaluate(config, model, episodes)
    mean, (low, high) = float(returns.mean()), confidence_interval(returns)
    record = dict(mean=mean, interval_95=[low, high], std=float(returns.std()), episodes=episodes, greedy=True)
    write_json(folder.evaluation, record | dict(timesteps=model.num_timesteps))
    title = f"{config.short_env}, {config.cell}, seed {config.seed}"
    draw_learning_curve(folder.read_progress(), folder.curve, title, greedy=mean)
    pictures = [folder.curve]
    try:
        animate_episodes(model, config.env, folder.episodes, episodes=6, seed=config.seed + 1)
        pictures.append(folder.episodes)
    except (gym.error.Error, NotImplementedError) as error:
        print(f"No animation: {config.env} does not draw itself ({' '.join(str(error).split())})")

    print(f"\nGreedy return over {episodes:,} episodes: {mean:.3f} (95 % interval {low:.3f} to {high:.3f})")
    print(f"The run:      {folder.path}")
    print(f"Pictures:     {', '.join(path.name for path in pictures)}")
    print(f"TensorBoard:  tensorboard --logdir {folder.path.parent}")


def evaluate(config: RunConfig, model: RecurrentA2C, episodes: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The returns of greedy episodes from a seed of their own."""
    env = VecEnvAdapter(make_vector_env(config.env, min(episodes, EVALUATION_ENVS)))
    env.seed(config.seed + 1_000_003)
    returns, _ = evaluate_policy(model, env, episodes, deterministic=True, return_episode_rewards=True, warn=False)
    env.close()
    return np.array(returns)


def confidence_interval(returns: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The 95 % interval of the mean, by the normal approximation."""
    margin = 1.96 * float(returns.std(ddof=1)) / math.sqrt(len(returns)) if len(returns) > 1 else math.inf
    return float(returns.mean()) - margin, float(returns.mean()) + margin


def _pick(config: RunConfig, names: str) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names.split()}
