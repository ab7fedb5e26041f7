"""The folder of a run: settings, logs, checkpoints, evaluation and pictures."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat
from stable_baselines3.common.utils import safe_mean
from torch.utils.tensorboard import SummaryWriter

from fw_rl.agents.checkpoint import CheckpointError, read_checkpoint, versions
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file, write_json

__all__ = ["RunFolder", "git_commit", "mean_return"]


class RunFolder:
    """Paths in the folder of one run, where files are written completely or not at all."""

    def __init__(self, path: Path) -> None:
        self.path, self.config, self.checkpoints = path, path / "config.json", path / "checkpoints"
        self.progress, self.evaluation = path / "progress.csv", path / "eval.json"
        self.best = path / "best.safetensors"  # the checkpoint before which training episodes had the largest mean return
        self.curve, self.episodes = path / "learning_curve.png", path / "episodes.gif"
        self.card, self.weights = path / "README.md", path / "model.safetensors"  # of a run that is shared
        self.wandb = path / "wandb.json"

    @staticmethod
    def create(log_dir: Path, config: RunSettings) -> RunFolder:
        """A new folder with the settings in it, named after environment, cell, seed and time."""
        name = f"{config.short_env}_{config.short_cell}_seed{config.seed}_{time.strftime('%Y%m%d-%H%M%S')}"
        path = log_dir / name
        for attempt in range(2, 1000):
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                path = log_dir / f"{name}-{attempt}"
        folder = RunFolder(path)
        folder.keep(config)
        folder.checkpoints.mkdir()
        return folder

    @staticmethod
    def open(path: Path) -> tuple[RunFolder, RunSettings]:
        """The folder of an earlier run and its settings; ValueError if it is not a run's."""
        folder = RunFolder(path)
        if not folder.config.is_file():
            raise ValueError(f"RUN must be the folder of a run, which has {folder.config.name}, got {path}")
        try:
            return folder, RunSettings.from_json(folder.config.read_text())
        except ValueError as error:
            raise ValueError(f"{folder.config} {error}") from error

    def keep(self, config: RunSettings) -> None:
        """Write the settings, with versions and commit."""
        write_json(self.config, dict(settings=dataclasses.asdict(config), versions=versions(), git_commit=git_commit()))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training the run; ValueError if one does so already."""
        try:
            import fcntl
        except ImportError:  # on Windows
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            with suppress(OSError):  # of a file system without locks
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise ValueError(f"RUN must not be in training, got {self.path}, which another process trains") from error
            yield
        finally:
            os.close(handle)

    def checkpoint(self, timesteps: int) -> Path:
        """The path of a checkpoint; names sort by frames."""
        return self.checkpoints / f"{timesteps:012d}.safetensors"

    def saved_checkpoints(self) -> list[Path]:
        """All complete checkpoints, the latest last."""
        return sorted(path for path in self.checkpoints.glob("*.safetensors") if path.stem.isdigit())

    def last_checkpoint(self) -> Path:
        """The latest checkpoint, or else the weights of a run that was shared; ValueError if there are none."""
        saved = self.saved_checkpoints() or [path for path in [self.weights] if path.is_file()]
        if not saved:
            raise ValueError(f"{self.path} must have a checkpoint, got none: its training has hardly begun, start it anew")
        return saved[-1]

    def best_so_far(self) -> tuple[float, int]:
        """The mean return of the training episodes before the best checkpoint, and its frames; -inf and 0 if there is none."""
        try:
            checkpoint = read_checkpoint(self.best)
        except (CheckpointError, FileNotFoundError):
            return -math.inf, 0
        assert checkpoint.statistics is not None
        return mean_return(checkpoint.statistics["episodes"]), int(checkpoint.counters["num_timesteps"])

    def logger(self, timesteps: int = 0) -> Logger:
        """SB3's logger to TensorBoard and progress.csv; drops what an interrupted run logged after `timesteps` frames."""
        rows = [row for row in self.read_progress() if row["time/total_timesteps"] <= timesteps]
        return Logger(str(self.path), [_TensorBoard(self.path, timesteps), _ProgressFile(self.progress, rows)])

    def read_progress(self) -> list[dict[str, float]]:
        """The complete rows of progress.csv, as numbers by SB3's names."""
        if not self.progress.is_file():
            return []
        lines = self.progress.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        rows = []
        for row in csv.DictReader(whole):
            with suppress(ValueError, TypeError):  # a damaged line
                rows.append({key: float(value) for key, value in row.items() if value})
        return [row for row in rows if "time/total_timesteps" in row]


def mean_return(episodes: Iterable[dict[str, Any]]) -> float:
    """The mean return of training episodes, as SB3 keeps and logs them; nan if there are none."""
    return float(safe_mean([episode["r"] for episode in episodes]))


class _TensorBoard(TensorBoardOutputFormat):
    """SB3's output to TensorBoard, which drops what an interrupted run logged after `timesteps` frames."""

    def __init__(self, folder: Path, timesteps: int) -> None:
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=timesteps + 1)
        self._is_closed = False


class _ProgressFile(CSVOutputFormat):
    """SB3's output to a file that begins with these rows; the old file stays until all of them are written."""

    def __init__(self, path: Path, rows: list[dict[str, float]]) -> None:
        self.keys = list(dict.fromkeys(key for row in rows for key in row))
        self.separator, self.quotechar = ",", '"'
        text = io.StringIO()
        table = csv.DictWriter(text, self.keys, lineterminator="\n")
        if rows:
            table.writeheader()
        table.writerows(rows)
        write_file(path, text.getvalue().encode())
        self.file = path.open("r+")
        self.file.seek(0, os.SEEK_END)


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, if it runs from one."""
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
