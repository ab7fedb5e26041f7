"""`play`: episodes of a trained agent beside its memory, on the screen or as a file, and what the memory attends to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from fw_rl.agents import RecurrentOnPolicyAlgorithm
from fw_rl.commands.command_line import crash, fail, fault, parse
from fw_rl.experiments.agents import load_trained
from fw_rl.experiments.animation import require_video, write_gif, write_mp4
from fw_rl.experiments.attention import AttentionPicture, attention_shares
from fw_rl.experiments.checks import check_count, check_output, check_seed, require_option
from fw_rl.experiments.environments import draw_without_screen
from fw_rl.experiments.episodes import Episode, open_env, play_steps
from fw_rl.experiments.hub import local_run
from fw_rl.experiments.memory_view import with_memory
from fw_rl.experiments.screen import EpisodeWindow
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file
from fw_rl.lines import as_png

__all__ = ["main"]


@dataclass(frozen=True)
class PlayOptions:
    """Watch a trained agent play on the screen, or write its episodes to a file if one is named."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:USER/NAME for one on the Hugging Face Hub."""
    episodes: int = 5
    """Number of episodes."""
    seed: int = 0
    """Seed of the first episode; each later one has the next number."""
    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the last of the run)")] = (
        None
    )
    """Checkpoint to play."""
    sample: bool = False
    """Sample actions by their probabilities, as in training, instead of taking the most probable ones."""
    max_steps: int = 1000
    """Episodes are cut off after this many steps."""
    gif: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Write the episodes as an animated GIF."""
    mp4: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Write the episodes as an MP4 video."""
    show_memory: bool = True
    """Show beside each frame which past steps the memory reads, or, if the cell does not attend to steps, what its units
    hold."""
    show_attention: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Draw which past steps each step of the first episode attends to, as a PNG file."""


def main(arguments: Sequence[str], program: str = "fw-rl play") -> int:
    """Run the command; returns its exit code: 0 done, 1 for an observation that is not finite or a fault, 2 bad input."""
    options = parse(PlayOptions, arguments, program)
    torch.set_num_threads(1)
    try:
        _check(options)
        torch.manual_seed(options.seed)
        config, model = load_trained(local_run(options.run), options.checkpoint)
        attends = model.policy.actor_cell.attends or options.show_attention is None
        wanted = f"left out with the cell {config.cell}, which does not attend to past steps"
        require_option("show_attention", options.show_attention, attends, wanted)
        env, window = _open(options, config, model)
    except ConnectionError as error:
        return fail(program, error, code=1)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return fail(program, error)
    try:
        episodes = list(_play(options, model, env, window))
    except FloatingPointError as error:
        return fail(program, error, code=1)
    except (Exception, SystemExit) as error:  # of an environment, also one that stops drawing during an episode
        return crash(program, error, "the run is as it was")
    finally:
        if window:
            window.close()
        env.close()
    try:
        _write(options, model, episodes, f"{config.short_env}: what {config.short_cell} attends to")
    except OSError as error:
        again = "the run is as it was: once that is fixed, the same command plays the same episodes"
        return fault(program, error, again)
    return 0


def _check(options: PlayOptions) -> None:
    for name in ("episodes", "max_steps"):
        check_count(name, getattr(options, name))
    check_seed("seed", options.seed)
    if options.mp4:
        require_video()
    for name, ending in (("gif", ".gif"), ("mp4", ".mp4"), ("show_attention", ".png")):
        if path := getattr(options, name):
            check_output(name, path, ending)


def _open(options: PlayOptions, config: RunSettings, model: RecurrentOnPolicyAlgorithm) -> tuple[gym.Env, EpisodeWindow | None]:
    """The environment, with frames for the files or for a window; without frames if neither is wanted or possible."""
    if options.gif or options.mp4 or options.show_attention:
        draw_without_screen()
    if options.gif or options.mp4:
        return open_env(config, "rgb_array", model), None
    env = open_env(config, None, model)
    modes = env.metadata.get("render_modes") or []
    env.close()
    try:
        if options.show_attention:
            return open_env(config, "rgb_array", model), None
        if "human" in modes and "rgb_array" not in modes:
            env = open_env(config, "human", model)
            print(f"{config.env} draws only in a window of its own: the memory is not shown")
            return env, None
        env = open_env(config, "rgb_array", model)
        try:
            return env, EpisodeWindow(f"{config.short_env}: {config.short_cell}", model, env, options.show_memory)
        except gym.error.Error:
            env.close()
            raise
    except (ValueError, gym.error.Error) as error:
        print(f"No {'frames' if options.show_attention else 'window'}: {error}")
        return open_env(config, None, model), None


def _play(
    options: PlayOptions, model: RecurrentOnPolicyAlgorithm, env: gym.Env, window: EpisodeWindow | None
) -> Iterator[Episode]:
    for number in range(options.episodes):
        steps = play_steps(model, env, options.seed + number, not options.sample, options.max_steps)
        if window:
            steps = window.watch(steps)
        episode = Episode(ended=False)
        try:
            for episode in steps:  # noqa: B007
                pass
        finally:
            cut = "" if episode.ended else ", cut off"
            print(f"Episode {number + 1}: return {sum(episode.rewards):g} in {len(episode)} steps{cut}", flush=True)
        yield episode
        if window and window.closed:
            return


def _write(options: PlayOptions, model: RecurrentOnPolicyAlgorithm, episodes: list[Episode], title: str) -> None:
    """Write the files that the options name, and print a line for each."""

    def shown() -> Iterator[Sequence[NDArray[np.uint8]]]:  # one episode at a time, since these are large
        return (with_memory(model, episode) if options.show_memory else episode.frames for episode in episodes)

    fps = episodes[0].fps
    if options.gif:
        write_gif(options.gif, shown(), fps)
        print(f"Written: {options.gif}")
    if options.mp4:
        write_mp4(options.mp4, shown(), fps)
        print(f"Written: {options.mp4}")
    if options.show_attention:
        picture = AttentionPicture(episodes[0], attention_shares(model, episodes[0]), title)
        write_file(options.show_attention, as_png(picture.figure))
        print(f"Written: {options.show_attention}")
