"""The study of a search in a SQLite file: bound to data and values, one process at a time, resumed after a kill."""

from __future__ import annotations

import fcntl
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
from optuna import Study
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cxr.errors import TrainingError

log = logging.getLogger(__name__)

STORE = "study.db"
VALUES, ERROR = "values", "error"
"""Notes of a trial: the values it was trained with; why it failed. A failed trial without an error was killed."""

COMPLETE, PRUNED, FAILED, KILLED = "complete", "pruned", "failed", "killed"
STATES = (COMPLETE, PRUNED, FAILED, KILLED)


def digest_of(*facts: Any) -> str:
    """Digest of everything that makes trials comparable.

    Args:
        facts: values that JSON knows.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@contextmanager
def open_study(folder: Path, digest: str, *, monitor: str, resume: bool = True) -> Iterator[Study]:
    """Open the study of these data and values, or begin one.

    Trials that a killed process left running are marked as failed.

    Args:
        folder: where the store is kept.
        digest: what :func:`digest_of` gives for data, split, space and the values that are not searched.
        monitor: ``"auroc"``, the higher the better, or ``"loss"``, the lower the better.
        resume: whether to go on with the trials that there are; else they are removed.

    Yields:
        The study.

    Raises:
        TrainingError: if another process searches in this folder.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{STORE}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"expected one search at a time, received {folder} that another process searches in; wait for it"
            ) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = RDBStorage(f"sqlite:///{(folder / STORE).absolute()}")
        name = digest[:16]
        names = optuna.get_all_study_names(storage)
        if name in names and not resume:
            optuna.delete_study(study_name=name, storage=storage)
        elif names and name not in names:
            log.info("the searches in %s are on other data or values; a new one begins", folder)
        direction = StudyDirection.MAXIMIZE if monitor == "auroc" else StudyDirection.MINIMIZE
        study = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            log.info("trial %d was running when the search was killed; it is run again", trial.number)
            study.tell(trial.number, state=TrialState.FAIL)
        try:
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()


def state_of(trial: FrozenTrial) -> str:
    """How a trial ended.

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


def ended(study: Study) -> list[FrozenTrial]:
    """Trials that have ended in any way.

    Args:
        study: the study.

    Returns:
        The trials, in order.
    """
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return study.get_trials(deepcopy=False, states=states)


def counted(study: Study) -> list[FrozenTrial]:
    """Trials that count towards the number wanted: all that were not killed.

    Args:
        study: the study.

    Returns:
        The trials, in order.
    """
    return [trial for trial in ended(study) if state_of(trial) != KILLED]


def best_of(study: Study) -> FrozenTrial | None:
    """The best of the trials that were trained to their end.

    Args:
        study: the study.

    Returns:
        The trial; the first of equals; None if there is none.
    """
    sign = -1.0 if study.direction == StudyDirection.MINIMIZE else 1.0
    complete = [trial for trial in ended(study) if state_of(trial) == COMPLETE]
    return max(complete, key=lambda trial: sign * figure_of(study, trial), default=None)


def figure_of(study: Study, trial: FrozenTrial) -> float:
    """Monitored figure of a trial's best epoch, of those that it ran.

    Args:
        study: the study.
        trial: a trial that has ended.

    Returns:
        The figure; NaN if the trial failed or was killed.
    """
    if state_of(trial) in (FAILED, KILLED):
        return math.nan
    if trial.value is not None and state_of(trial) == COMPLETE:
        return trial.value
    known = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    lower = study.direction == StudyDirection.MINIMIZE
    return (min if lower else max)(known, default=math.nan)


def values_of(trial: FrozenTrial) -> Mapping[str, Any]:
    """Values that a trial was trained with.

    Args:
        trial: the trial.

    Returns:
        Parameter to value; empty for a trial that was killed before it had any.
    """
    found: Mapping[str, Any] = trial.user_attrs.get(VALUES, {})
    return found
