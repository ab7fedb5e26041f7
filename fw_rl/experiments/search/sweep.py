"""A sweep: the search of a cell's settings on an environment, and trainings of the best with new seeds, in one folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from fw_rl.experiments.search.learning import Job, Learning, Progress, Trainings, read_learnings, write_learnings
from fw_rl.experiments.search.live import LiveTable, train_missing
from fw_rl.experiments.search.study import GRACE, HEARTBEAT, SettingsStudy
from fw_rl.experiments.search.swept import FINALS, SEEDS, TRIALS, Swept, report
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file

__all__ = ["Sweep"]

FINAL_SEEDS = range(5_000, 5_005)
"""Seeds of the finalists; a trial's is its number."""

FIRST_NEW_SEED = 10_000
"""The best settings are trained with seeds from here on."""


@dataclass(frozen=True)
class Sweep:
    """The trainings of a sweep; those that its folder has are not repeated."""

    study: SettingsStudy
    folder: Path
    open_trainings: Callable[[], Trainings]
    quiet: bool = False

    def run(self, trials: int, finalists: int = 1, retrain: int = 0) -> str:
        """Make the trainings that are missing; returns the report, which report.md has too.

        Finalists, if more than one, are trained with five new seeds each, and the best of them with `retrain` others. OSError
        if a file or the database cannot be written.
        """
        try:
            self._search(trials)
        except (SQLAlchemyError, StorageInternalError) as error:
            cause = error.__cause__ or error
            raise OSError(f"the database of the trials: {getattr(cause, 'orig', cause)}") from error
        if self.study.running:
            print(f"{self.study.running} trials still run elsewhere: once they have ended, the same command chooses the best.")
        else:
            if finalists > 1:
                found = Swept(self.study.learnings).finalists[:finalists]
                self._train(FINALS, "finalists", [_with_seed(trial, seed) for seed in FINAL_SEEDS for trial in found])
            if retrain:
                chosen = self._chosen()
                jobs = [_with_seed(chosen, FIRST_NEW_SEED + i) for i in range(retrain)]
                self._train(SEEDS, f"trial {chosen.seed} with new seeds", jobs)
        title = self._title(f"{self.study.config.timesteps:,} frames")
        text = "\n\n".join(report(title, Swept.read(self.folder), self.study.importances)) + "\n"
        write_file(self.folder / "report.md", text.encode())
        return text

    def _search(self, trials: int) -> None:
        study, lost_are_known = self.study, time.monotonic() + GRACE + HEARTBEAT
        table = LiveTable(self._title("trials"), trials, study.learnings, self.quiet)
        try:
            with table, self.open_trainings() as trainings:
                while trainings.keys or study.begun < trials or (study.running and time.monotonic() < lost_are_known):
                    study.keep_alive()
                    while trainings.has_room and (job := study.ask(trials)):
                        trainings.start(job.config.seed, job)
                        table.begin(job.config.seed, job)
                    for number, event in trainings.events():
                        if isinstance(event, Progress) and (pruned := study.prune(number, event)):
                            trainings.stop(number)
                            event = pruned
                        if isinstance(event, Learning):
                            study.tell(event)
                            write_learnings(self.folder / TRIALS, study.learnings)
                        table.show(number, event)
        finally:
            study.forget_running()
            write_learnings(self.folder / TRIALS, study.learnings)

    def _chosen(self) -> Learning:
        chosen = Swept.read(self.folder).chosen
        if chosen is None:
            raise ValueError(
                f"{self.folder} must have a trial with a value, got none: there is nothing to train with new seeds"
            )
        if not all(training.differs_by_seed(chosen) for training in read_learnings(self.folder / SEEDS)):
            raise ValueError(
                f"{self.folder / SEEDS} must have the settings of the best trial, {chosen.seed}, got others: move it away"
            )
        return chosen

    def _train(self, name: str, title: str, jobs: list[Job]) -> None:
        train_missing(self.folder / name, jobs, self._title(title), self.open_trainings(), self.quiet)

    def _title(self, what: str) -> str:
        return f"{self.study.config.short_env}, {self.study.config.short_cell}, {what}"


def _with_seed(trial: Learning, seed: int) -> Job:
    return Job(replace(RunSettings(**trial.settings), seed=seed), trial.parameters)
