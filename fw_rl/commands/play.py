"""`play`: episodes of a trained agent, on the screen or as a file, and what its memory attends to."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import PIL.Image
import torch
import tyro

from fw_rl.agents import RecurrentA2C
from fw_rl.agents.batch_first import channels_first
from fw_rl.cells import FastWeightsCell
from fw_rl.commands.command_line import fail
from fw_rl.experiments.agents import load_trained
from fw_rl.experiments.animation import require_video, write_gif, write_mp4
from fw_rl.experiments.attention import animate_attention, attention_shares, draw_attention
from fw_rl.experiments.checks import check_count, check_output
from fw_rl.experiments.episodes import Episode, frames_per_second, open_env, play_episode
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file

__all__ = ["main"]


@dataclass(frozen=True)
class PlayOptions:
    """Watch a trained agent play: on the screen, or as a file if one is named."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    episodes: int = 5
    """How many episodes."""
    seed: int = 0
    """Seed of the first episode; each later one has the next number."""
    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the last of the run)")] = (
        None
    )
    """File of the agent."""
    sample: bool = False
    """Draw actions at random by their probabilities, as in training, instead of the most probable ones."""
    max_steps: int = 1000
    """Longer episodes are cut off."""
    gif: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Write the episodes as an animation."""
    mp4: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Write the episodes as a video."""
    show_attention: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Draw which past steps the fast weights attend to, beside the frames: as a .png of the first episode, or a .gif of all."""


def main(arguments: Sequence[str], program: str = "fw-rl play") -> int:
    """Run the command; returns its exit code: 0 done, 2 bad input, 130 interrupted."""
    options = tyro.cli(PlayOptions, args=arguments, prog=program)
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    files = [path for path in (options.gif, options.mp4, options.show_attention) if path]
    try:
        _check(options)
        config, model = load_trained(options.run, options.checkpoint)
        if options.show_attention and not isinstance(model.policy.cell, FastWeightsCell):
            raise ValueError(f"--show-attention is for fast-weights: the cell of this run is {config.cell}")
        env = open_env(config, "rgb_array" if files else "human")
        if (channels_first(env.observation_space), env.action_space) != (model.observation_space, model.action_space):
            raise ValueError(f"the checkpoint is of another environment: its spaces are not those of {config.env}")
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return fail(program, error)
    try:
        episodes = list(_play(options, model, env))
    except KeyboardInterrupt:
        return 130
    finally:
        env.close()
    _write(options, config, model, episodes, frames_per_second(env))
    for path in files:
        print(f"Written: {path}")
    return 0


def _check(options: PlayOptions) -> None:
    for name, least in (("episodes", 1), ("max_steps", 1), ("seed", 0)):
        check_count(name, getattr(options, name), least)
    if options.mp4:
        require_video()
    for path, *endings in ((options.gif, ".gif"), (options.mp4, ".mp4"), (options.show_attention, ".png", ".gif")):
        if path:
            check_output(path, *endings)


def _play(options: PlayOptions, model: RecurrentA2C, env: gym.Env) -> Iterator[Episode]:
    for number in range(options.episodes):
        episode = play_episode(model, env, options.seed + number, not options.sample, options.max_steps)
        print(f"Episode {number + 1}: return {sum(episode.rewards):g} in {len(episode)} steps", flush=True)
        yield episode


def _write(options: PlayOptions, config: RunSettings, model: RecurrentA2C, episodes: list[Episode], fps: float) -> None:
    frames = [episode.frames for episode in episodes]
    if options.gif:
        write_gif(options.gif, frames, fps)
    if options.mp4:
        write_mp4(options.mp4, frames, fps)
    if options.show_attention:
        title = f"{config.short_env}: what the fast weights attend to"
        if options.show_attention.suffix.lower() == ".png":
            content = io.BytesIO()
            picture = draw_attention(episodes[0], attention_shares(model, episodes[0]), title)
            PIL.Image.fromarray(picture).save(content, format="PNG")
            write_file(options.show_attention, content.getvalue())
        else:
            boards = [animate_attention(episode, attention_shares(model, episode), title) for episode in episodes]
            write_gif(options.show_attention, boards, min(fps, 4))
