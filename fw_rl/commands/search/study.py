"""The search of a cell's settings on an environment, as an Optuna study that any number of processes and machines share."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from fw_rl.commands.config import RunConfig
from fw_rl.commands.search.learning import CURVE_POINTS, Learning, Progress
from fw_rl.commands.search.space import SearchSpace

__all__ = ["SAMPLERS", "SettingsStudy"]

SAMPLERS: dict[str, type[BaseSampler]] = {"random": RandomSampler, "tpe": TPESampler}
_LEARNING, _SETTINGS, _PROCESS = "learning", "settings", "process"
_LOST_AFTER = timedelta(days=1)
"""A trial of another machine that runs for so long is not waited for."""
_NAMED_AFTER = timedelta(minutes=1)
"""A trial that has not named its process for so long was killed before it could."""


class SettingsStudy:
    """Trials of settings, each with what was learned with them; its value is the area under the learning curve.

    `config`: the settings that are not searched. `storage`: a database's URL, or None for the journal file `journal`.
    `sampler`, `seed`: how settings are drawn; trial k of a study has the same ones however often the search was stopped.
    `prune`: whether `is_hopeless` ever says so.

    Raises ValueError if the storage can't be opened, or if it holds this study with other settings.
    """

    def __init__(
        self,
        config: RunConfig,
        space: SearchSpace,
        journal: Path,
        storage: str | None = None,
        sampler: str = "random",
        seed: int = 0,
        prune: bool = False,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.config, self.space, self.sampler, self.seed = config, space, sampler, seed
        pruner = optuna.pruners.MedianPruner(n_warmup_steps=CURVE_POINTS // 4) if prune else optuna.pruners.NopPruner()
        name = f"{config.short_env}, {config.short_cell}"
        try:
            where = _open(storage, journal)
            self._study = optuna.create_study(
                study_name=name, storage=where, pruner=pruner, direction="maximize", load_if_exists=True
            )
        except Exception as error:  # whatever a database has to say
            raise ValueError(f"the storage {storage or journal} can't be opened: {error}") from error
        self._require_same_settings(storage or str(journal))
        self._forget_lost_trials()

    @property
    def learnings(self) -> list[Learning]:
        """What was learned in the trials that have ended, in the order of their numbers, which are their seeds."""
        trials = self._study.get_trials(deepcopy=False)
        return [Learning(**trial.user_attrs[_LEARNING]) for trial in trials if _LEARNING in trial.user_attrs]

    @property
    def begun(self) -> int:
        """Trials that have ended or go on, here and elsewhere; those that were lost do not count."""
        return sum(_counts(trial) for trial in self._study.get_trials(deepcopy=False))

    @property
    def pruned(self) -> int:
        """Trials that were ended early."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)))

    @property
    def importances(self) -> dict[str, float]:
        """The share of each setting in what makes a trial one of the best tenth (PED-ANOVA, Watanabe et al. 2023).

        Nothing if there are fewer than twenty trials.
        """
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(trials) < 20:
            return {}
        return get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator(evaluate_on_local=False))

    def ask(self) -> tuple[Trial, RunConfig]:
        """Begin a trial: it, and its settings."""
        drawn = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = _make_sampler(self.sampler, int(np.random.SeedSequence([self.seed, drawn]).generate_state(1)[0]))
        trial = self._study.ask(self.space.distributions)
        trial.set_user_attr(_PROCESS, [socket.gethostname(), os.getpid()])
        return trial, self.space.apply(replace(self.config, seed=trial.number), trial.params)

    def tell(self, trial: Trial, learning: Learning) -> None:
        """End a trial with what was learned; one that diverged has no value."""
        trial.set_user_attr(_LEARNING, asdict(learning))
        known = not learning.diverged and bool(np.isfinite(learning.area))
        self._study.tell(trial, learning.area if known else None, None if known else TrialState.FAIL)

    def is_hopeless(self, trial: Trial, progress: Progress) -> bool:
        """Whether a trial is below the median of the others at the same point of the curve, and to be pruned."""
        if np.isfinite(progress.area):
            trial.report(progress.area, progress.points)
        return trial.should_prune()

    def prune(self, trial: Trial) -> None:
        """End a trial early."""
        self._study.tell(trial, state=TrialState.PRUNED)

    def forget(self, trial: Trial) -> None:
        """End a trial of which nothing is known; it does not count."""
        self._study.tell(trial, state=TrialState.FAIL)

    def _require_same_settings(self, where: str) -> None:
        settings = asdict(replace(self.config, seed=0)) | dict(space=asdict(self.space))
        before = self._study.user_attrs.get(_SETTINGS)
        if before is None:
            self._study.set_user_attr(_SETTINGS, settings)
            return
        different = [name for name in settings if before.get(name) != settings[name]]
        if different:
            name = different[0]
            raise ValueError(
                f"{where} has a study of {self._study.study_name} with {name} {before.get(name)}, not {settings[name]}: "
                "give the same, or another --out or --storage"
            )

    def _forget_lost_trials(self) -> None:
        """End the trials whose process was killed."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _is_lost(trial):
                self._study.tell(trial.number, state=TrialState.FAIL)


def _open(storage: str | None, journal: Path) -> BaseStorage | str:
    if storage is not None:
        return storage
    journal.parent.mkdir(parents=True, exist_ok=True)
    # A write takes milliseconds: who holds the lock for five seconds was killed.
    lock = JournalFileOpenLock(str(journal), grace_period=5)
    return JournalStorage(JournalFileBackend(str(journal), lock))


def _make_sampler(name: str, seed: int) -> BaseSampler:
    # With the liar, those that run side by side draw different settings.
    return TPESampler(seed=seed, constant_liar=True) if name == "tpe" else RandomSampler(seed=seed)


def _counts(trial: FrozenTrial) -> bool:
    if trial.state == TrialState.RUNNING:  # one that was killed as it began has no process
        return _PROCESS in trial.user_attrs
    return trial.state != TrialState.FAIL or _LEARNING in trial.user_attrs


def _is_lost(trial: FrozenTrial) -> bool:
    if _PROCESS in trial.user_attrs:
        host, process = trial.user_attrs[_PROCESS]
        if host == socket.gethostname():
            return not _is_alive(process)
    patience = _LOST_AFTER if _PROCESS in trial.user_attrs else _NAMED_AFTER
    return trial.datetime_start is None or datetime.now() - trial.datetime_start > patience


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, but alive
        return True
    return True
