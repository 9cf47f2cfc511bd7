"""Training and evaluation in MLflow's runs: metrics while training goes on, results and files afterwards."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.card import CARD_NAME, ModelCard
from cxr.errors import RegistryError
from cxr.tracking.connection import client, experiment_id, experiment_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

HISTORY = "history.csv"
TRAINING = "training.json"
FILES_TAG = "cxr.files"
EVALUATION_TAG = "cxr.evaluation"
PARENT_TAG = "mlflow.parentRunId"
_LONGEST = 5000
"""Characters that MLflow accepts in a tag; a parameter may be a little longer."""


class TrainingRun:
    """One MLflow run that a training process writes to; see :func:`open_run`.

    Attributes:
        run_id: MLflow's id of the run, or None when nothing is logged.
    """

    def __init__(self, connected: MlflowClient | None, run_id: str | None) -> None:
        """Continue a run.

        Args:
            connected: client of the store, or None to log nothing.
            run_id: id of a run that exists.
        """
        self.run_id = run_id
        self._client = connected
        self._waiting: list[Any] = []
        self._logged: set[tuple[str, int]] = set()
        if connected is not None and run_id is not None:
            for key in connected.get_run(run_id).data.metrics:
                self._logged |= {(key, one.step) for one in connected.get_metric_history(run_id, key)}

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log one epoch; an epoch that an earlier, killed process has logged is not logged twice.

        A server that doesn't answer costs a warning, not the training: the values wait for the next epoch.

        Args:
            epoch: number of the epoch, used as MLflow's step.
            metrics: metric name to value; NaN where unknown.
        """
        if self._client is None or self.run_id is None:
            return
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        for key, value in metrics.items():
            if (key, epoch) not in self._logged:
                self._logged.add((key, epoch))
                self._waiting.append(Metric(key, float(value), now, epoch))
        try:
            for start in range(0, len(self._waiting), 1000):
                self._client.log_batch(self.run_id, metrics=self._waiting[start : start + 1000])
        except (MlflowException, OSError) as error:
            log.warning("epoch %d is not in MLflow yet: %s", epoch, error)
        else:
            self._waiting.clear()

    def log_folder(self, folder: Path, name: str = "training") -> None:
        """Store the files of a folder with the run.

        Args:
            folder: folder whose files are copied.
            name: folder among the run's artifacts.
        """
        if self._client is not None and self.run_id is not None:
            self._client.log_artifacts(self.run_id, str(folder), name)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Add or replace tags of the run.

        Args:
            tags: tag name to value; None is left out.
        """
        if self._client is not None and self.run_id is not None:
            _add(self._client, self.run_id, tags=tags, params={})


@contextmanager
def open_run(
    uri: str,
    experiment: str,
    name: str,
    tags: Mapping[str, object],
    params: Mapping[str, object],
    *,
    dataset_kind: str = "patients",
    run_id: str | None = None,
    parent: str | None = None,
) -> Iterator[TrainingRun]:
    """Open a run for a training process, or go on with the one of a process that was killed.

    The run ends as FINISHED, as KILLED on an interrupt, as FAILED on any other error.

    Args:
        uri: address of the store; an empty text logs nothing.
        experiment: name of the experiment; runs on phantoms go to ``"<experiment> (phantoms)"``.
        name: the run's name, e.g. the model's.
        tags: tag name to value; None is left out.
        params: parameter name to value; nested dicts become ``outer.inner``.
        dataset_kind: ``"phantom"`` or ``"patients"``, also kept as the tag ``dataset_kind``.
        run_id: run to go on with; a server that doesn't know it gets a new run.
        parent: run that this one is shown under, e.g. the search of a trial.

    Yields:
        The run.

    Raises:
        RegistryError: if the store doesn't answer.
    """
    if not uri:
        yield TrainingRun(None, None)
        return
    connected = client(uri)
    if run_id is None or not _known(connected, run_id):
        where = experiment_id(connected, uri, experiment_name(experiment, dataset_kind))
        run_id = str(connected.create_run(where, run_name=name).info.run_id)
    connected.update_run(run_id, status="RUNNING")
    _add(connected, run_id, tags={**tags, "dataset_kind": dataset_kind, PARENT_TAG: parent}, params=params)
    status = "FAILED"
    try:
        yield TrainingRun(connected, run_id)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        connected.set_terminated(run_id, status)


def close_trial(uri: str, run_id: str | None, state: str, figures: Mapping[str, float]) -> None:
    """Say in a trial's run how it ended; a run that says so already is left as it is.

    Args:
        uri: address of the store; an empty text logs nothing.
        run_id: the trial's run; None, or one that the store doesn't know, logs nothing.
        state: ``"complete"``, ``"pruned"``, ``"failed"`` or ``"killed"``, kept as the tag ``state``.
        figures: name to final value; NaN is left out.
    """
    if not uri or run_id is None:
        return
    connected = client(uri)
    if not _known(connected, run_id) or "state" in connected.get_run(run_id).data.tags:
        return
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    known = [Metric(key, float(value), now, 0) for key, value in figures.items() if math.isfinite(value)]
    connected.log_batch(run_id, metrics=known)
    _add(connected, run_id, tags={"state": state}, params={})
    # As MLflow's own storage for Optuna has it.
    connected.set_terminated(run_id, {"complete": "FINISHED", "failed": "FAILED"}.get(state, "KILLED"))


def find_or_restore(connected: MlflowClient, trained: Path, *, uri: str, experiment: str) -> str:
    """The MLflow run of a trained model; a store that doesn't know it is told, once, from the files.

    Files restored from a cache, or trained against another store, name a run that this store has never seen. An
    ensemble, which is not trained, gets its run here.

    Args:
        connected: client of ``uri``.
        trained: the model's folder: ``card.json``, ``training.json``, ``history.csv``; of an ensemble only the
            first.
        uri: address of the store.
        experiment: name of the experiment for a run that has to be restored.

    Returns:
        MLflow's id of the run.
    """
    card = ModelCard.read(trained)
    run_id = _read_json(trained / TRAINING).get("run_id")
    if run_id and _known(connected, str(run_id)):
        return str(run_id)
    digest = _digest(trained / CARD_NAME, trained / HISTORY)
    where = experiment_id(connected, uri, experiment_name(experiment, card.dataset_kind))
    known = connected.search_runs([where], f"tags.`{FILES_TAG}` = '{digest}'", max_results=1)
    if known:
        return str(known[0].info.run_id)
    values = {key: value for key, value in asdict(card).items() if key not in {"training", "dataset", "members"}}
    values["weights"] = {member.model: member.weight for member in card.members}
    tags = {
        "dataset": card.dataset["name"],
        "system": card.system,
        "restored": None if card.members else "from files",
        FILES_TAG: digest,
    }
    with open_run(uri, experiment, card.model, tags, values, dataset_kind=card.dataset_kind) as run:
        for epoch, metrics in _history(trained / HISTORY):
            run.log_epoch(epoch, metrics)
        run.set_tags(_flat(card.training, "training"))
    if run.run_id is None:
        raise RegistryError("expected the address of an MLflow store, received tracking uri=''")
    return run.run_id


def log_evaluation(trained: Path, evaluation: Path, *, uri: str, experiment: str) -> str | None:
    """Attach an evaluation's figures and files to the run that trained the model.

    Args:
        trained: the model's folder, ``artifacts/models/<model>``.
        evaluation: its evaluation, ``artifacts/evaluations/<model>``: ``summary.json``, ``card.json``, plots.
        uri: address of the store; an empty text logs nothing.
        experiment: name of the experiment.

    Returns:
        MLflow's id of the run, or None when nothing is logged.
    """
    if not uri:
        return None
    connected = client(uri)
    from mlflow.entities import Metric

    run_id = find_or_restore(connected, trained, uri=uri, experiment=experiment)
    digest = _digest(evaluation / CARD_NAME, evaluation / "summary.json")
    if connected.get_run(run_id).data.tags.get(EVALUATION_TAG) == digest:
        return run_id
    now = int(time.time() * 1000)
    connected.log_batch(run_id, [Metric(key, value, now, 0) for key, value in _figures(evaluation).items()])
    connected.log_artifacts(run_id, str(evaluation), "evaluation")
    # The tag comes last: a process killed before it logs the whole evaluation again.
    card = ModelCard.read(evaluation)
    tags = {
        "threshold": card.threshold,
        "temperature": card.temperature,
        "threshold_rule": card.threshold_rule,
    }
    _add(connected, run_id, tags={**tags, EVALUATION_TAG: digest}, params={})
    return run_id


def _known(connected: MlflowClient, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(connected.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return False
        raise


def _add(connected: MlflowClient, run_id: str, *, tags: Mapping[str, object], params: Mapping[str, object]) -> None:
    """Add tags and parameters; a parameter that the run has already keeps its value, as MLflow demands."""
    from mlflow.entities import Param, RunTag

    present = connected.get_run(run_id).data.params
    new = [Param(k, _text(v)) for k, v in _flat(params).items() if k not in present]
    labels = [RunTag(k, _text(v)) for k, v in tags.items() if v is not None]
    for start in range(0, len(new), 100):
        connected.log_batch(run_id, params=new[start : start + 100])
    for start in range(0, len(labels), 100):
        connected.log_batch(run_id, tags=labels[start : start + 100])


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text[:_LONGEST]


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested dicts as one level: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``; None is left out."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            flat |= _flat(value, name)
        elif value is not None:
            flat[name] = value
    return flat


def _history(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Epochs of ``history.csv``, in order; an empty cell is unknown and left out."""
    import pandas as pd

    if not path.is_file():
        return []
    table = pd.read_csv(path)
    return [
        (int(row["epoch"]), {str(k): float(v) for k, v in row.items() if k != "epoch" and pd.notna(v)})
        for _, row in table.iterrows()
    ]


def _figures(evaluation: Path) -> dict[str, float]:
    """Known figures: ``validation_...`` and ``test_...`` at the threshold, and the summary."""
    report = _read_json(evaluation / "metrics.json")
    values = {
        f"{split}_{name}": entry.get("value")
        for split in ("validation", "test")
        for name, entry in report.get(split, {}).get("at_threshold", {}).items()
    }
    values |= _read_json(evaluation / "summary.json")
    numbers = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def _digest(*paths: Path) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes() if path.is_file() else b"absent")
        total.update(b"\0")
    return total.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RegistryError(f"expected JSON, received {path}={error}; run the step that makes it again") from error
    return dict(values)
