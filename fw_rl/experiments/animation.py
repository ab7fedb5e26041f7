"""Frames as a GIF or an MP4 file, and the GIF of a run."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fw_rl.agents import RecurrentOnPolicyAlgorithm
from fw_rl.experiments.episodes import open_env, play_episode
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file

__all__ = ["REST", "draw_episodes", "require_video", "write_gif", "write_mp4"]

Frames = Sequence[NDArray[np.uint8]]
"""Pictures [height, width, 3]."""

REST = 1.0
"""Seconds that the last frame of an episode stays."""

EPISODES, EPISODE_STEPS = 6, 100


def draw_episodes(path: Path, config: RunSettings, model: RecurrentOnPolicyAlgorithm) -> None:
    """Write some greedy episodes of an agent as a GIF; ValueError if its environment does not draw itself."""
    env = open_env(config, "rgb_array")
    seeds = range(config.seed + 1, config.seed + 1 + EPISODES)
    episodes = [play_episode(model, env, seed, max_steps=EPISODE_STEPS) for seed in seeds]
    env.close()
    write_gif(path, [episode.frames for episode in episodes], episodes[0].fps)


def write_gif(path: Path, episodes: Iterable[Frames], fps: float) -> None:
    """Write episodes as a GIF that repeats, and rests on the last frame of each."""
    pictures, milliseconds = [], []
    for frames in episodes:
        # Unlike Pillow's default, this quantiser keeps the colours of details of a few pixels.
        pictures += [
            Image.fromarray(frame).quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for frame in frames
        ]
        milliseconds += [*[round(1000 / fps)] * (len(frames) - 1), round(1000 * REST)]
    content = io.BytesIO()
    pictures[0].save(content, format="GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    write_file(path, content.getvalue())


def write_mp4(path: Path, episodes: Iterable[Frames], fps: float) -> None:
    """Write episodes as a video (H.264) that rests on the last frame of each."""
    frames = [frame for episode in episodes for frame in (*episode, *[episode[-1]] * round(fps * REST))]
    even = [frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames]  # the codec needs even sizes
    content = require_video().imwrite("<bytes>", even, extension=".mp4", plugin="FFMPEG", fps=fps, macro_block_size=2)
    write_file(path, content)


def require_video() -> Any:
    """The module that writes videos."""
    try:
        importlib.import_module("imageio_ffmpeg")
        return importlib.import_module("imageio.v3")
    except ImportError as error:
        raise ModuleNotFoundError("--mp4 needs imageio with ffmpeg: pip install 'fw-rl[video]', or use --gif") from error
