"""What happens while a run trains: the progress bar, the checkpoints, and the end by Ctrl-C."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import safe_mean
from tqdm import tqdm

from fw_rl.commands.run_folder import RunFolder

__all__ = ["Checkpoints", "LogRows", "ProgressBar", "StopOnInterrupt"]


class ProgressBar(BaseCallback):
    """A bar with the frames done, the mean return of recent episodes, frames a second and the time left."""

    def _on_training_start(self) -> None:
        self.total = self.model._total_timesteps
        self.bar = tqdm(total=self.total, initial=self.num_timesteps, unit=" frames", unit_scale=True, mininterval=0.5)

    def _on_rollout_end(self) -> None:
        if self.model.ep_info_buffer:
            mean_return = safe_mean([episode["r"] for episode in self.model.ep_info_buffer])
            self.bar.set_postfix_str(f"return {mean_return:.3f}", refresh=False)
        self.bar.update(min(self.model.num_timesteps, self.total) - self.bar.n)

    def _on_training_end(self) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it stands; also after training was interrupted."""
        if hasattr(self, "bar"):
            self.bar.close()

    def _on_step(self) -> bool:
        return True


class LogRows(BaseCallback):
    """A row of the log every `interval` frames and at the end, at the same frames whether or not the run was interrupted."""

    def __init__(self, interval: int) -> None:
        super().__init__()
        self.interval = interval

    def _on_rollout_end(self) -> None:
        now = self.model.num_timesteps
        before = now - self.model.n_steps * self.model.n_envs  # type: ignore[attr-defined]
        if now // self.interval > before // self.interval or before < self.model._total_timesteps <= now:
            self.model.dump_logs()

    def _on_step(self) -> bool:
        return True


class Checkpoints(BaseCallback):
    """A checkpoint at the first chunk and then every `interval` frames; the last `keep` of them stay.

    They are written between two chunks, where nothing is half done.
    """

    def __init__(self, folder: RunFolder, interval: int, keep: int = 3) -> None:
        super().__init__()
        self.folder, self.interval, self.keep = folder, interval, keep
        self._next = 0

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps >= self._next:
            self.save()

    def save(self) -> None:
        """Write a checkpoint now."""
        self.model.save(self.folder.checkpoint(self.model.num_timesteps))
        self._next = self.model.num_timesteps + self.interval
        for old in self.folder.saved_checkpoints()[: -self.keep]:
            old.unlink()

    def _on_step(self) -> bool:
        return True


class StopOnInterrupt(BaseCallback):
    """Turns Ctrl-C, or a polite kill, into a KeyboardInterrupt between two chunks, after a checkpoint.

    A second Ctrl-C acts at once.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopOnInterrupt:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self.__exit__()

    def _on_rollout_start(self) -> None:
        if self._asked:
            self.checkpoints.save()
            raise KeyboardInterrupt

    def _on_step(self) -> bool:
        return True
