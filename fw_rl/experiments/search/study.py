"""The search of a cell's settings on an environment, as an Optuna study that any number of processes and machines share."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from fw_rl.experiments.search.learning import CURVE_POINTS, Learning, Progress
from fw_rl.experiments.search.space import SearchSpace
from fw_rl.experiments.settings import RunSettings

__all__ = ["SAMPLERS", "SettingsStudy"]

SAMPLERS: dict[str, type[BaseSampler]] = {"random": RandomSampler, "tpe": TPESampler}
_LEARNING, _SETTINGS, _PROCESS, _NUMBER = "learning", "settings", "process", "number"
_LOST_AFTER = timedelta(days=1)
"""A trial of another machine that runs for so long is not waited for."""
_NAMED_AFTER = timedelta(minutes=1)
"""A trial that has not named its process for so long was killed before it could."""


class SettingsStudy:
    """Trials of settings, each with what was learned with them; its value is the area under the learning curve.

    Trials are numbered from 0, and one that is lost is made again under its number, which is its seed. Drawn at random,
    number k has the same settings however often the search was stopped, and the same shared ones for every cell.

    `config`: the settings that are not searched. `storage`: a database's URL, or None for the journal file `journal`.
    `sampler`, `seed`: how settings are drawn. `prune`: whether `is_hopeless` ever says so.

    Raises ValueError if the storage can't be opened, or if it holds this study with other settings.
    """

    def __init__(
        self,
        config: RunSettings,
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
            raise ValueError(f"the storage {_without_password(storage or str(journal))} can't be opened: {error}") from error
        self._require_same_settings(_without_password(storage or str(journal)))
        self._forget_lost_trials()

    @property
    def learnings(self) -> list[Learning]:
        """What was learned in the trials that have ended, in the order of their numbers, which are their seeds."""
        ended = [trial for trial in self._trials if _LEARNING in trial.user_attrs]
        # Of a number that two machines began at once, the first counts.
        by_number = {_number(trial): trial for trial in reversed(ended)}
        return [Learning(**by_number[number].user_attrs[_LEARNING]) for number in sorted(by_number)]

    @property
    def begun(self) -> int:
        """Trials that have ended or go on, here and elsewhere; those that were lost do not count."""
        return len(self._taken)

    @property
    def running(self) -> int:
        """Trials that go on, here and elsewhere."""
        return sum(_counts(trial) for trial in self._trials if trial.state == TrialState.RUNNING)

    @property
    def importances(self) -> dict[str, float]:
        """The share of each setting in what makes a trial one of the best quarter (PED-ANOVA, Watanabe et al. 2023).

        Nothing if there are fewer than twenty trials.
        """
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(trials) < 20:
            return {}
        evaluator = PedAnovaImportanceEvaluator(target_quantile=0.25, evaluate_on_local=False)
        return get_param_importances(self._study, evaluator=evaluator)

    def ask(self) -> tuple[Trial, RunSettings]:
        """Begin the first trial that is missing: it, and its settings."""
        taken = self._taken
        number = next(number for number in count() if number not in taken)
        self._study.sampler = _make_sampler(self.sampler, int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))
        trial = self._study.ask(self.space.distributions)
        trial.set_user_attr(_NUMBER, number)
        trial.set_user_attr(_PROCESS, _this_process())
        return trial, self._settings(number, trial.params)

    def tell(self, trial: Trial, learning: Learning) -> None:
        """End a trial with what was learned; one that diverged, or was pruned, has no value."""
        trial.set_user_attr(_LEARNING, asdict(learning))
        self._study.tell(trial, learning.area if learning.is_ranked else None, _state(learning), skip_if_finished=True)

    def adopt(self, learnings: Sequence[Learning], where: str) -> None:
        """Take over trials that were made before, as a file has them, where the study does not know them.

        Raises ValueError, with the file's name `where`, for one of other settings, or with another result than the study has.
        """
        known = {learning.seed: learning for learning in self.learnings}
        for learning in learnings:
            if not self._is_ours(learning):
                raise ValueError(f"{where} has trial {learning.seed} with other settings: give the same, or another --out")
            if known.get(learning.seed, learning) != learning:
                raise ValueError(f"{where} has another trial {learning.seed} than the storage: move one of them away")
        taken = self._taken
        for learning in learnings:
            if learning.seed not in taken:
                self._study.add_trial(_as_trial(learning, self.space))

    def is_hopeless(self, trial: Trial, progress: Progress) -> bool:
        """Whether a trial is below the median of the others at the same point of the curve, and to be pruned."""
        if np.isfinite(progress.area):
            trial.report(progress.area, progress.points)
        return trial.should_prune()

    def prune(self, trial: Trial) -> None:
        """End a trial early."""
        settings = asdict(self._settings(_number(trial), trial.params))
        self.tell(trial, Learning(settings, trial.params, [None] * CURVE_POINTS, None, None, pruned=True))

    def forget(self, trial: Trial) -> None:
        """End a trial of which nothing is known; it is to be made again."""
        self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    @property
    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    @property
    def _taken(self) -> set[int]:
        """The numbers of the trials that have ended or go on."""
        return {_number(trial) for trial in self._trials if _counts(trial)}

    def _is_ours(self, learning: Learning) -> bool:
        """Whether a trial has, of what is searched, values from the ranges, and for the rest the study's settings."""
        try:
            _as_trial(learning, self.space)
            settings = RunSettings(**learning.settings)
        except (TypeError, ValueError):
            return False
        return settings == self._settings(learning.seed, learning.parameters)

    def _settings(self, number: int, parameters: dict[str, Any]) -> RunSettings:
        """All settings of a trial."""
        return self.space.apply(replace(self.config, seed=number), parameters)

    def _require_same_settings(self, where: str) -> None:
        settings = asdict(replace(self.config, seed=0)) | dict(space=asdict(self.space), sampler=self.sampler)
        before = self._study.user_attrs.get(_SETTINGS)
        if before is None or not self._taken:
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
    # A write takes milliseconds: who holds the lock for five seconds was killed.
    lock = JournalFileOpenLock(str(journal), grace_period=5)
    if journal.exists():
        _cut_half_a_line(journal, lock)
    return JournalStorage(JournalFileBackend(str(journal), lock))


def _cut_half_a_line(journal: Path, lock: JournalFileOpenLock) -> None:
    """Take away what a full disk, or a kill, has left of the last line, and what Optuna could not read."""
    lock.acquire()
    try:
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(journal, whole)
    finally:
        lock.release()


def _without_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def _make_sampler(name: str, seed: int) -> BaseSampler:
    # With the liar, those that run side by side draw different settings.
    return TPESampler(seed=seed, constant_liar=True) if name == "tpe" else RandomSampler(seed=seed)


def _state(learning: Learning) -> TrialState:
    if learning.pruned:
        return TrialState.PRUNED
    return TrialState.COMPLETE if learning.is_ranked else TrialState.FAIL


def _as_trial(learning: Learning, space: SearchSpace) -> FrozenTrial:
    return optuna.create_trial(
        state=_state(learning),
        value=learning.area if learning.is_ranked else None,
        params=learning.parameters,
        distributions=space.distributions,
        user_attrs={_NUMBER: learning.seed, _LEARNING: asdict(learning)},
    )


def _number(trial: Trial | FrozenTrial) -> int:
    return int(trial.user_attrs[_NUMBER])


def _counts(trial: FrozenTrial) -> bool:
    if trial.state == TrialState.RUNNING:  # one that was killed as it began has no process
        return _PROCESS in trial.user_attrs
    return _LEARNING in trial.user_attrs


def _is_lost(trial: FrozenTrial) -> bool:
    if _PROCESS in trial.user_attrs:
        host, process, born = trial.user_attrs[_PROCESS]
        if host == socket.gethostname():
            alive_since = _born(process)
            return alive_since is None or abs(alive_since - born) > 5  # seconds, by which two readings may differ
    patience = _LOST_AFTER if _PROCESS in trial.user_attrs else _NAMED_AFTER
    return trial.datetime_start is None or datetime.now() - trial.datetime_start > patience


def _this_process() -> tuple[str, int, float | None]:
    return socket.gethostname(), os.getpid(), _born(os.getpid())


def _born(process: int) -> float | None:
    """When a process was started, since another may have its number later; None if there is none."""
    try:
        return float(psutil.Process(process).create_time())
    except psutil.NoSuchProcess:
        return None
