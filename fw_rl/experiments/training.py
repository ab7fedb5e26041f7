"""A training run from its settings to its folder: begun or resumed, trained, evaluated, drawn."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from fw_rl.agents import RecurrentOnPolicyAlgorithm, WorkerError
from fw_rl.experiments.agents import evaluation_record, load_model, make_model
from fw_rl.experiments.animation import draw_episodes
from fw_rl.experiments.callbacks import AttentionPictures, Checkpoints, LogRows, ProgressBar, StopOnInterrupt
from fw_rl.experiments.checks import make_folder, require_option
from fw_rl.experiments.curves import draw_learning_curve
from fw_rl.experiments.run_folder import RunFolder
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file, write_json
from fw_rl.modules import reason

__all__ = ["TrainingRun"]

LOG_ROWS = 200
CHECKPOINTS = 20
ATTENTION_PICTURES, FRAMES_A_PICTURE = 4, 100_000


@dataclass(frozen=True)
class TrainingRun:
    """A run that is trained."""

    folder: RunFolder
    config: RunSettings
    model: RecurrentOnPolicyAlgorithm
    is_changed: bool = False
    """Whether the run gets another length than its folder says."""

    @staticmethod
    def begin(config: RunSettings, log_dir: Path, device: str = "cpu", ray_address: str | None = None) -> TrainingRun:
        """A new run, whose folder is made last; ValueError if the settings do not make an agent."""
        model = make_model(config, device, ray_address)
        make_folder("log_dir", log_dir)
        folder = RunFolder.create(log_dir, config)
        return TrainingRun(folder, config, model)

    @staticmethod
    def resume(run: Path, workers: int, timesteps: int, device: str = "cpu", ray_address: str | None = None) -> TrainingRun:
        """A run that continues from its last checkpoint, to `timesteps` frames in all; ValueError if it can't."""
        folder, stored = RunFolder.open(run)
        config = replace(stored, workers=workers, timesteps=timesteps)
        config.check()
        model = load_model(config, folder.last_checkpoint(), device, ray_address)
        if config.timesteps != stored.timesteps:
            done = model.num_timesteps
            require_option(
                "timesteps", config.timesteps, config.timesteps >= done, f"at least {done}, the frames that the run has"
            )
        return TrainingRun(folder, config, model, is_changed=config.timesteps != stored.timesteps)

    def run(self, progress_bar: bool = True) -> None:
        """Train to the end; a checkpoint is written before a KeyboardInterrupt, or an error of an environment, is passed on.

        OSError if something cannot be written or the folder is gone; ValueError if another process trains the run.
        """
        with self.folder.locked():
            if self.is_changed:
                self.folder.keep(self.config)
            self._train(progress_bar)

    def _train(self, progress_bar: bool) -> None:
        config, model = self.config, self.model
        model.set_logger(self.folder.logger(model.num_timesteps))
        checkpoints = Checkpoints(self.folder, interval=math.ceil(config.timesteps / CHECKPOINTS))
        checkpoints.init_callback(model)  # a worker may be killed before `learn` does that
        stop, bar = StopOnInterrupt(checkpoints), ProgressBar()
        callbacks: list[BaseCallback] = [checkpoints, stop]
        if model.policy.actor_cell.attends:
            between = max(math.ceil(config.timesteps / ATTENTION_PICTURES), FRAMES_A_PICTURE)
            callbacks.append(AttentionPictures(config, between))
        callbacks.append(LogRows(interval=math.ceil(config.timesteps / LOG_ROWS)))
        if progress_bar:
            callbacks.append(bar)
        try:
            if model.num_timesteps < config.timesteps:
                with stop:
                    model.learn(
                        config.timesteps - model.num_timesteps,
                        callback=callbacks,
                        log_interval=None,  # type: ignore[arg-type]
                        reset_num_timesteps=False,
                    )
                checkpoints.save()
                if stop.asked:  # during the last rollout
                    raise KeyboardInterrupt
        except WorkerError as error:
            checkpoints.save()
            if stop.asked:  # Ctrl-C may have reached the workers too
                raise KeyboardInterrupt from error
            raise
        except (FloatingPointError, OSError):
            raise
        except (Exception, SystemExit):  # of an environment of the user's own
            checkpoints.save()
            raise
        finally:
            bar.close()
            with suppress(OSError):  # it has already reported what it could not write
                model.logger.close()
            model.get_env().close()  # type: ignore[union-attr]

    def evaluate(self, episodes: int, progress_bar: bool = False) -> dict[str, Any]:
        """Play `episodes` greedy and as many sampled episodes; returns the content of eval.json."""
        record = evaluation_record(self.config, self.model, episodes, progress_bar)
        write_json(self.folder.evaluation, record)
        return record

    def draw(self, greedy: float) -> tuple[list[Path], str]:
        """Draw the learning curve and some episodes; returns the files, and why there is no animation, if there is none."""
        config, folder = self.config, self.folder
        title = f"{config.short_env}, {config.short_cell}, seed {config.seed}"
        write_file(folder.curve, draw_learning_curve(folder.read_progress(), title, config.short_cell, greedy))
        try:
            draw_episodes(folder.episodes, config, self.model)
        except ValueError as error:
            return [folder.curve], reason(error)
        return [folder.curve, folder.episodes], ""
