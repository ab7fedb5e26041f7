"""Callbacks of a run: progress bar, log, checkpoints, pictures of the attention, and the stop by Ctrl-C."""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Image
from tqdm import tqdm

from fw_rl.agents import RecurrentOnPolicyAlgorithm
from fw_rl.experiments.attention import AttentionPicture, attention_shares
from fw_rl.experiments.episodes import open_env, play_episode
from fw_rl.experiments.run_folder import RunFolder, mean_return
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file

__all__ = ["AttentionPictures", "Checkpoints", "LogRows", "ProgressBar", "StopOnInterrupt"]


class _BetweenRollouts(BaseCallback):
    """A callback that acts between two rollouts, not at their steps."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._before = self.model.num_timesteps

    def _passes(self, interval: int) -> bool:
        """Whether the rollout has passed a multiple of `interval` frames."""
        return self.model.num_timesteps // interval > self._before // interval


class ProgressBar(_BetweenRollouts):
    """A bar with the frames done, the mean return of recent episodes, frames per second and the time left."""

    def _on_training_start(self) -> None:
        self.total = self.model._total_timesteps
        self.bar = tqdm(
            total=self.total,
            initial=self.num_timesteps,
            unit=" frames",
            unit_scale=True,
            mininterval=0.5,
            disable=None,  # only in a terminal: a file would grow with each update
        )

    def _on_rollout_end(self) -> None:
        if self.model.ep_info_buffer:
            self.bar.set_postfix_str(f"return {mean_return(self.model.ep_info_buffer):.3f}", refresh=False)
        self.bar.update(min(self.model.num_timesteps, self.total) - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it stands, however the training ended."""
        if hasattr(self, "bar"):
            self.bar.close()


class LogRows(_BetweenRollouts):
    """A log row every `interval` frames and at the end, at the same frames whether or not the run was interrupted."""

    def __init__(self, interval: int) -> None:
        super().__init__()
        self.interval = interval

    def _on_rollout_end(self) -> None:
        if self._passes(self.interval) or self._before < self.model._total_timesteps <= self.model.num_timesteps:
            self.model.dump_logs()  # type: ignore[attr-defined]


class Checkpoints(_BetweenRollouts):
    """A checkpoint at the first rollout and then every `interval` frames, between two rollouts, when nothing is half done.

    The last `keep` are kept, and the one before which the training episodes that SB3 counts had the largest mean return.
    """

    def __init__(self, folder: RunFolder, interval: int, keep: int = 3) -> None:
        super().__init__()
        self.folder, self.interval, self.keep = folder, interval, keep
        self._next, self._best = 0, folder.best_so_far()[0]

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps >= self._next:
            self.save()

    def save(self) -> None:
        """Write a checkpoint now; OSError if that fails, for example if the folder was removed."""
        if not self.folder.config.is_file():  # else the folder would come back, but could not be resumed
            raise FileNotFoundError(errno.ENOENT, "the folder of the run was removed", str(self.folder.path))
        checkpoint = self.folder.checkpoint(self.model.num_timesteps)
        self.model.save(checkpoint)
        if (recent := mean_return(self.model.ep_info_buffer or ())) > self._best:
            self._best = recent
            write_file(self.folder.best, checkpoint.read_bytes())
        self._next = self.model.num_timesteps + self.interval
        for old in self.folder.saved_checkpoints()[: -self.keep]:
            old.unlink()


class StopOnInterrupt(_BetweenRollouts):
    """Turns Ctrl-C or SIGTERM into a KeyboardInterrupt between two rollouts, after a checkpoint.

    A second Ctrl-C acts at once.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self.asked = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopOnInterrupt:
        self._handlers = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.__exit__()
        with suppress(OSError):  # past Python's streams, since the signal may have interrupted a print
            os.write(2, b"\nStopping after this rollout. Ctrl-C again stops at once, at the last checkpoint.\n")

    def _on_rollout_start(self) -> None:
        if self.asked:
            self.checkpoints.save()
            raise KeyboardInterrupt


class AttentionPictures(_BetweenRollouts):
    """A picture for TensorBoard, every `interval` frames, of what the memory attends to in a greedy episode.

    The episode is not one of the training's and always has the same seed, and the global random generators are restored after
    it: the training is not affected.
    """

    model: RecurrentOnPolicyAlgorithm

    def __init__(self, config: RunSettings, interval: int, max_steps: int = 48) -> None:
        super().__init__()
        self.config, self.interval, self.max_steps = config, interval, max_steps

    def _on_training_start(self) -> None:
        with _same_random_numbers():
            try:
                self.env = open_env(self.config, "rgb_array")
            except ValueError:  # then without frames
                self.env = open_env(self.config, None)

    def _on_rollout_end(self) -> None:
        if self._passes(self.interval):
            with _same_random_numbers():
                self._draw()

    def _draw(self) -> None:
        try:
            episode = play_episode(self.model, self.env, seed=0, max_steps=self.max_steps)
        except ValueError:  # it stopped drawing during an episode
            self.env = open_env(self.config, None)
            episode = play_episode(self.model, self.env, seed=0, max_steps=self.max_steps)
        title = f"greedy, after {self.model.num_timesteps:,} frames: return {sum(episode.rewards):.3g}"
        picture = AttentionPicture(episode, attention_shares(self.model, episode), title, side=2.4).pixels()
        self.logger.record("rollout/memory/attention", Image(picture, "HWC"), exclude=("csv", "stdout", "log", "json"))

    def _on_training_end(self) -> None:
        self.env.close()


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Restore the global generators at the end."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 (environments may draw from it)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])
