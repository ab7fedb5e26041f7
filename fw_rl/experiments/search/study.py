"""The search of a cell's settings on an environment, as an Optuna study that any number of processes and machines share."""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import DBAPIError

from fw_rl.experiments.search.learning import CURVE_POINTS, Job, Learning, Progress
from fw_rl.experiments.search.space import SearchSpace
from fw_rl.experiments.settings import RunSettings

__all__ = ["GRACE", "HEARTBEAT", "SAMPLERS", "SettingsStudy"]

HEARTBEAT, GRACE = 10, 60
"""Seconds between the heartbeats of a running trial, and from the last one until it counts as lost, and is made again."""

SAMPLERS = ("random", "tpe")
_LEARNING, _SETTINGS, _NUMBER = "learning", "settings", "number"

warnings.filterwarnings("ignore", category=ExperimentalWarning)  # Optuna's heartbeat
warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")  # `keep_alive` gives it without `optimize`


class SettingsStudy:
    """Trials of settings, each with its result; the value of a trial is the area under its learning curve.

    Trials are numbered from 0, and a lost one is made again under its number, which is its seed. With random draws, number k
    has the same settings however often the search was stopped, and the same shared ones for every cell.
    """

    def __init__(
        self,
        config: RunSettings,
        space: SearchSpace,
        database: Path,
        storage: str | None = None,
        sampler: str = "random",
        seed: int = 0,
        prune: bool = False,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)  # it would print a traceback at Ctrl-C during a query
        self.config, self.space, self.sampler, self.seed = config, space, sampler, seed
        url = storage or f"sqlite:///{database}"
        shown = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)  # without its password
        try:
            self._storage = _open(url)
            self._study = optuna.create_study(
                study_name=f"{config.short_env}, {config.short_cell}",
                storage=self._storage,
                pruner=optuna.pruners.MedianPruner(n_warmup_steps=CURVE_POINTS // 4) if prune else optuna.pruners.NopPruner(),
                direction="maximize",
                load_if_exists=True,
            )
        except Exception as error:  # whatever a database may raise
            raise ValueError(f"--storage must be a database that can be opened, got {shown}: {error}") from error
        self._require_same_settings(shown)
        self._own: dict[int, Trial] = {}
        self._last_heartbeat = -inf

    @property
    def learnings(self) -> list[Learning]:
        """The results of the trials that have ended, in the order of their numbers, which are their seeds."""
        ended = {_number(trial): trial for trial in reversed(self._trials) if _LEARNING in trial.user_attrs}
        return [Learning(**ended[number].user_attrs[_LEARNING]) for number in sorted(ended)]

    @property
    def begun(self) -> int:
        """How many trials have ended or are running, here and elsewhere; lost ones do not count."""
        return len(set(self._numbers(TrialState.RUNNING)))

    @property
    def running(self) -> int:
        """How many trials are running, here and elsewhere."""
        return sum(trial.state == TrialState.RUNNING for trial in self._trials)

    @property
    def importances(self) -> dict[str, float]:
        """The importance of each setting for being in the best quarter of the trials (PED-ANOVA, Watanabe et al. 2023).

        Empty if there are fewer than twenty trials.
        """
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(trials) < 20:
            return {}
        evaluator = PedAnovaImportanceEvaluator(target_quantile=0.25, evaluate_on_local=False)
        return get_param_importances(self._study, evaluator=evaluator)

    def ask(self, trials: int) -> Job | None:
        """Begin the first lost or missing trial, whose number is its seed; None if `trials` have begun."""
        while self.begun < trials:
            taken = self._numbers(TrialState.RUNNING, TrialState.WAITING)
            missing = next(number for number in count() if number not in taken)
            self._study.sampler = self._make_sampler(missing)
            trial = self._study.ask(self.space.distributions)  # one that was lost has its settings already
            self._storage.record_heartbeat(trial._trial_id)
            if _NUMBER not in trial.user_attrs:
                trial.set_user_attr(_NUMBER, missing)
            number = _number(trial)
            if number < trials and self._numbers(TrialState.RUNNING, TrialState.WAITING).count(number) == 1:
                self._own[number] = trial
                return Job(self._settings(number, trial.params), trial.params)
            self._study.tell(trial, state=TrialState.FAIL)  # another process has begun the same, or the last, at this moment
        return None

    def keep_alive(self) -> None:
        """Record a heartbeat, every few seconds, for the trials of this process, and put lost ones back into the queue."""
        if time.monotonic() - self._last_heartbeat > HEARTBEAT:
            for trial in self._own.values():
                self._storage.record_heartbeat(trial._trial_id)
            fail_stale_trials(self._study)
            self._last_heartbeat = time.monotonic()

    def tell(self, learning: Learning) -> None:
        """End a trial; one that diverged, or was pruned, has no value."""
        trial = self._own.pop(learning.seed)
        with suppress(UpdateFinishedTrialError):  # it was taken for lost, and is made elsewhere
            trial.set_user_attr(_LEARNING, asdict(learning))
            self._study.tell(trial, learning.area if learning.is_ranked else None, _state(learning))

    def adopt(self, learnings: Sequence[Learning], where: str) -> None:
        """Take over earlier trials from a file; ValueError if the study has others in their place."""
        known = {learning.seed: learning for learning in self.learnings}
        for learning in learnings:
            if not self._is_ours(learning):
                raise ValueError(
                    f"{where} must have the settings of this sweep, got trial {learning.seed} with others: choose another --out"
                )
            if known.get(learning.seed, learning) != learning:
                raise ValueError(
                    f"{where} must have the trials of the storage, got another trial {learning.seed}: move one of them away"
                )
        taken = self._numbers(TrialState.RUNNING)
        for learning in learnings:
            if learning.seed not in taken:
                self._study.add_trial(_as_trial(learning, self.space))

    def prune(self, number: int, progress: Progress) -> Learning | None:
        """The result of a trial that must stop, since it is below the median of the others at the same frames; else None."""
        trial = self._own[number]
        with suppress(UpdateFinishedTrialError):
            if np.isfinite(progress.area):
                trial.report(progress.area, progress.points)
        if not trial.should_prune():
            return None
        settings = asdict(self._settings(number, trial.params))
        return Learning(settings, trial.params, [None] * CURVE_POINTS, None, None, pruned=True)

    def forget_running(self) -> None:
        """End the unfinished trials of this process; they will be made again."""
        for number in list(self._own):
            self._study.tell(self._own.pop(number), state=TrialState.FAIL, skip_if_finished=True)

    @property
    def _trials(self) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if _NUMBER in trial.user_attrs]

    def _numbers(self, *states: TrialState) -> list[int]:
        """The numbers of the trials that have ended, or are in one of the states."""
        return [_number(trial) for trial in self._trials if _LEARNING in trial.user_attrs or trial.state in states]

    def _make_sampler(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        # With the constant liar, trials side by side draw different settings.
        return TPESampler(seed=seed, constant_liar=True) if self.sampler == "tpe" else RandomSampler(seed=seed)

    def _is_ours(self, learning: Learning) -> bool:
        """Whether a trial has values from the ranges for what is searched, and the study's settings for the rest."""
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
        before = self._study.user_attrs.get(_SETTINGS, {})
        if not self._numbers(TrialState.RUNNING):
            self._study.set_user_attr(_SETTINGS, settings)
        elif different := [name for name in settings if before.get(name) != settings[name]]:
            name = different[0]
            raise ValueError(
                f"{where} must have the study of {self._study.study_name} with {name} {before.get(name)}, "
                f"got {settings[name]}: give the same, or another --out or --storage"
            )


def _open(url: str, attempts: int = 5) -> RDBStorage:
    try:
        return RDBStorage(
            url,
            engine_kwargs=dict(connect_args=dict(timeout=GRACE)) if url.startswith("sqlite:") else None,
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=_retry,
        )
    except DBAPIError:  # another process makes the tables at this moment
        if attempts == 1:
            raise
        time.sleep(0.5)
        return _open(url, attempts - 1)


def _retry(study: optuna.Study, lost: FrozenTrial) -> None:
    if _NUMBER in lost.user_attrs:  # else it was killed before it could begin
        RetryHeartbeatStaleTrialCallback()(study, lost)


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
