"""The study of a search in a SQLite file: bound to data and values, one process at a time, resumed after a kill."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna import Study
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cxr.errors import TrainingError
from cxr.training.plan import Monitor, higher_is_better

log = logging.getLogger(__name__)

STUDY_FILE = "study.db"
VALUES, ERROR = "values", "error"
"""Attributes of a trial: the values it was trained with; why it failed. A failed trial without an error was killed."""

COMPLETE, PRUNED, FAILED, KILLED = "complete", "pruned", "failed", "killed"
STATES = (COMPLETE, PRUNED, FAILED, KILLED)


def search_digest(*facts: Any) -> str:
    """Compute the digest of everything that makes trials comparable.

    Args:
        facts: values that JSON can hold.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@contextmanager
def open_study(folder: Path, digest: str, *, monitor: Monitor, resume: bool) -> Iterator[Study]:
    """Open the study of these data and values, or create it.

    Trials that a killed process left running are marked as failed.

    Args:
        folder: where the study is kept.
        digest: the :func:`search_digest` of data, split, space and the values that are not searched.
        monitor: the validation metric that decides.
        resume: whether to continue with the existing trials; otherwise they are removed.

    Yields:
        The study.

    Raises:
        TrainingError: if another process searches in this folder.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with _search_lock(folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = RDBStorage(f"sqlite:///{(folder / STUDY_FILE).absolute()}")
        name = digest[:16]
        names = optuna.get_all_study_names(storage)
        if name in names and not resume:
            optuna.delete_study(study_name=name, storage=storage)
        elif names and name not in names:
            log.info("the searches in %s are on other data or values; a new one begins", folder)
        direction = StudyDirection.MAXIMIZE if higher_is_better(monitor) else StudyDirection.MINIMIZE
        study = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            log.info("trial %d was running when the search was killed; it is run again", trial.number)
            study.tell(trial.number, state=TrialState.FAIL)
        try:
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()


@contextmanager
def _search_lock(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / f"{STUDY_FILE}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise TrainingError(
            f"expected one search at a time, received {folder} that another process searches in; wait for it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def trial_state(trial: FrozenTrial) -> str:
    """Tell how a trial ended.

    Args:
        trial: a trial that has ended.

    Returns:
        One of :data:`STATES`.
    """
    if trial.state == TrialState.COMPLETE:
        return COMPLETE
    if trial.state == TrialState.PRUNED:
        return PRUNED
    return FAILED if ERROR in trial.user_attrs else KILLED


def ended_trials(study: Study) -> list[FrozenTrial]:
    """List the trials that have ended in any way, in order.

    Args:
        study: the study.

    Returns:
        The trials.
    """
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return study.get_trials(deepcopy=False, states=states)


def counted_trials(study: Study) -> list[FrozenTrial]:
    """List the trials that count towards the planned number: all that have ended, except killed ones.

    Args:
        study: the study.

    Returns:
        The trials, in order.
    """
    return [trial for trial in ended_trials(study) if trial_state(trial) != KILLED]


def best_trial(study: Study) -> FrozenTrial | None:
    """Find the best of the trials that were trained to their end.

    Args:
        study: the study.

    Returns:
        The trial, the first of several equal ones; None if there is none.
    """
    sign = -1.0 if study.direction == StudyDirection.MINIMIZE else 1.0
    complete = [trial for trial in ended_trials(study) if trial_state(trial) == COMPLETE]
    return max(complete, key=lambda trial: sign * monitored_value(study, trial), default=None)


def monitored_value(study: Study, trial: FrozenTrial) -> float:
    """Find the monitored metric of a trial's best epoch, of those that it ran.

    Args:
        study: the study.
        trial: a trial that has ended.

    Returns:
        The value; NaN if the trial failed or was killed.
    """
    if trial_state(trial) in (FAILED, KILLED):
        return math.nan
    if trial.value is not None and trial_state(trial) == COMPLETE:
        return trial.value
    values = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    lower_is_better = study.direction == StudyDirection.MINIMIZE
    return (min if lower_is_better else max)(values, default=math.nan)


def trial_values(trial: FrozenTrial) -> Mapping[str, Any]:
    """Get the values that a trial was trained with.

    Args:
        trial: the trial.

    Returns:
        Parameter to value; empty for a trial that was killed before it had any.
    """
    values: Mapping[str, Any] = trial.user_attrs.get(VALUES, {})
    return values
