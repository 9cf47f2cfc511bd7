"""Runs of trainings that have ended: what the store does not know of a training is logged from its files."""

from __future__ import annotations

import csv
import hashlib
import logging
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cxr.files import HISTORY_FILE, METADATA_FILE, METRICS_FILE, STRESS_FILE, SUMMARY_FILE, TRAINING_FILE, read_json
from cxr.models.metadata import ModelMetadata
from cxr.models.stored_files import check_all_digests, check_digest
from cxr.tracking.background import BackgroundCall
from cxr.tracking.content import read_content
from cxr.tracking.dataset_inputs import log_inputs, split_inputs, training_input
from cxr.tracking.run_data import add_metrics, add_tags_and_params, epoch_metrics, flatten, is_known_run, logged_steps
from cxr.tracking.store import Store, experiment_name
from cxr.tracking.users import USER_TAG, current_user

log = logging.getLogger(__name__)

FILES_TAG = "cxr.files"
"""Digest of the files that a restored run was created from."""
COMPLETE_TAG = "cxr.whole"
"""Digest of the files that a run has logged in full; it is written last."""
EVALUATION_TAG = "cxr.evaluation"
"""Digest of the evaluation that a run has logged in full; it is written last."""
SETTLING_SECONDS = 1.0
"""How long the set of runs of the same files must stay as it is before one of them is chosen."""


def find_or_restore_run(store: Store, trained: Path, *, experiment: str) -> str:
    """Find the MLflow run of a trained model; what the store does not know of it is added once, from the files.

    The store does not know the run if the files were restored from a cache, or if the model was trained offline or
    with another store. If the store was lost during the training, the run lacks epochs or its end. An ensemble,
    which is not trained, gets its run here.

    Args:
        store: the tracking store.
        trained: the model's folder: ``card.json``, ``training.json``, ``history.csv``; of an ensemble only the
            first.
        experiment: name of the experiment for a run that has to be restored.

    Returns:
        MLflow's id of the run.
    """
    metadata = ModelMetadata.read(trained)
    run_id = _read_facts(trained / TRAINING_FILE).get("run_id")
    if not run_id or not is_known_run(store, str(run_id)):
        run_id = _create_once(
            store,
            store.experiment_id(experiment_name(experiment, metadata.dataset_kind)),
            _training_digest(trained),
            name=metadata.model,
            start_time=_start_and_end(_read_history(trained / HISTORY_FILE))[0],
            tags={} if metadata.members else {"restored": "from files"},
        )
    complete_run(store, str(run_id), trained)
    return str(run_id)


def complete_run(store: Store, run_id: str, trained: Path) -> None:
    """Log everything that the files of a training say and its run lacks.

    A process that is killed leaves the rest to the next one, and two processes may do it at once.

    Args:
        store: the tracking store.
        run_id: MLflow's id of the run.
        trained: the model's folder, as for :func:`find_or_restore_run`.
    """
    digest = _training_digest(trained)
    run = store.client.get_run(run_id)
    if run.data.tags.get(COMPLETE_TAG) == digest:
        return
    check_all_digests(trained)
    metadata, evidence = ModelMetadata.read(trained), _read_facts(trained / TRAINING_FILE)
    history = _read_history(trained / HISTORY_FILE)
    # A run that logged its own parameters when it began does not get the metadata's as well.
    params = evidence.get("parameters") or ({} if run.data.params else _metadata_params(metadata))
    tags = {"model": metadata.model, "system": metadata.system, "dataset": metadata.dataset["name"],
            "dataset_kind": metadata.dataset_kind, "data_digest": metadata.data_digest, "data_md5": metadata.data_md5,
            "split_protocol": metadata.split_protocol, "split_digest": metadata.split_digest,
            "git_commit": metadata.git_commit, **flatten(metadata.training, "training")}  # fmt: skip
    add_tags_and_params(store, run_id, tags=tags, params=params)
    logged = logged_steps(store, run_id)
    start = run.info.start_time / 1000
    missing = [
        metric
        for epoch, row in history
        for metric in epoch_metrics(row, epoch, start + _seconds_until(history, epoch))
        if (metric.key, epoch) not in logged
    ]
    add_metrics(store, run_id, missing)
    log_inputs(store, run_id, training_input(metadata))
    if evidence:
        store.client.log_artifacts(run_id, str(trained), "training")
    if run.info.status != "FINISHED":
        store.client.set_terminated(run_id, "FINISHED", _start_and_end(history)[1])
    add_tags_and_params(store, run_id, tags={COMPLETE_TAG: digest}, params={})


def log_evaluation(store: Store, trained: Path, evaluation: Path, *, experiment: str) -> str:
    """Log an evaluation's figures and files with the run that trained the model.

    Args:
        store: the tracking store.
        trained: the model's folder, ``artifacts/models/<model>``.
        evaluation: its evaluation, ``artifacts/evaluations/<model>``: ``summary.json``, ``card.json``, plots.
        experiment: name of the experiment.

    Returns:
        MLflow's id of the run.

    Raises:
        RegistryError: if the store does not answer, or stops answering.
        DataError: if a file is damaged.
    """
    client = store.connect()
    with store.clear_errors(f"take the training and the evaluation of {trained.name}"):
        run_id = find_or_restore_run(store, trained, experiment=experiment)
        # Also the files that a summary is drawn from: slices can change where no figure of the summary does.
        names = (METADATA_FILE, SUMMARY_FILE, METRICS_FILE, STRESS_FILE)
        digest = _joint_digest(*(evaluation / name for name in names))
        run = client.get_run(run_id).data
        if run.tags.get(EVALUATION_TAG) == digest:
            return run_id
        check_all_digests(evaluation)
        # The file's time, not the present: whoever logs the same figures again logs them once.
        timestamp = (evaluation / SUMMARY_FILE).stat().st_mtime
        figures = _evaluation_figures(evaluation)
        new = {name: value for name, value in figures.items() if run.metrics.get(name) != value}
        add_metrics(store, run_id, epoch_metrics(new, 0, timestamp))
        client.log_artifacts(run_id, str(evaluation), "evaluation")
        metadata, metrics = ModelMetadata.read(evaluation), read_json(evaluation / METRICS_FILE)
        splits: dict[str, Any] = {split: metrics[split] for split in ("validation", "test") if split in metrics}
        log_inputs(store, run_id, split_inputs(metadata, splits))
        tags = {name: getattr(metadata, name) for name in ("threshold", "temperature", "threshold_rule")}
        tags["box_scale"] = metadata.detector.box_scale if metadata.detector is not None else None
        # This tag comes last: after a process that is killed earlier, the whole evaluation is logged again.
        add_tags_and_params(store, run_id, tags={**tags, EVALUATION_TAG: digest}, params={})
    return run_id


def try_to_log_evaluation(store: Store | None, trained: Path, evaluation: Path, *, experiment: str) -> None:
    """Log an evaluation as :func:`log_evaluation` does; a store that is lost meanwhile causes only a warning.

    Args:
        store: the tracking store; None logs nothing.
        trained: the model's folder.
        evaluation: its evaluation.
        experiment: name of the experiment.
    """
    if store is None:
        return
    call = BackgroundCall(lambda: log_evaluation(store, trained, evaluation, experiment=experiment))
    if not call.succeeded(store):
        reason = call.problem("the store does not answer")
        log.warning("the evaluation is not in MLflow yet, `cxr register` logs it from its files: %s", reason)


def _create_once(
    store: Store, experiment_id: str, digest: str, *, name: str, start_time: int | None, tags: Mapping[str, str]
) -> str:
    """Find the run that was created from these files, or create it.

    A server has no lock: several processes may each create a run at once. All of them wait until no further run
    appears, choose the smallest id, and delete the other runs. A run that is complete already is always chosen.
    ``start_time`` is in milliseconds since 1970; None means now.
    """
    from mlflow.exceptions import MlflowException

    client, seconds = store.client, SETTLING_SECONDS if store.is_server else 0.0
    previous: set[str] = set()
    with store.lock():
        while True:
            runs = client.search_runs([experiment_id], f"tags.`{FILES_TAG}` = '{digest}'")
            run_ids = {str(run.info.run_id) for run in runs}
            complete = {str(run.info.run_id) for run in runs if COMPLETE_TAG in run.data.tags}
            if complete or (run_ids and run_ids == previous):
                chosen = min(complete or run_ids)
                for run_id in run_ids - {chosen}:
                    with suppress(MlflowException):  # another process has deleted it
                        client.delete_run(run_id)
                return chosen
            if not run_ids:
                identity = {FILES_TAG: digest, USER_TAG: current_user(store)}
                run = client.create_run(experiment_id, start_time, {**tags, **identity}, name)
                run_ids = {str(run.info.run_id)}
            previous = run_ids
            time.sleep(seconds)


def _metadata_params(metadata: ModelMetadata) -> dict[str, Any]:
    """Parameters for a run that has none of its own, such as that of an ensemble."""
    params = {key: value for key, value in metadata.to_dict().items() if key not in {"training", "dataset", "members"}}
    return params | {"weights": {member.model: member.weight for member in metadata.members}}


def _read_history(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Epochs of ``history.csv`` in order, each with its number; an empty cell is unknown and left out."""
    if not path.is_file():
        return []
    check_digest(path)
    with path.open(encoding="utf-8", newline="") as lines:
        # Python's own float gives to the last digit what was logged while training; not every reader of tables does.
        rows = [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(lines)]
    return [(int(row["epoch"]), row) for row in rows]


def _start_and_end(history: list[tuple[int, dict[str, float]]]) -> tuple[int | None, int | None]:
    """When a training began and ended, in milliseconds since 1970; None where its rows do not say."""
    ended = [row["ended"] for _, row in history if "ended" in row]
    if not ended:
        return None, None
    return int(1000 * (ended[0] - history[0][1].get("seconds", 0.0))), int(1000 * ended[-1])


def _seconds_until(history: list[tuple[int, dict[str, float]]], last_epoch: int) -> float:
    """Seconds of all epochs up to one: a time for epochs without ``ended`` that keeps their order."""
    return sum(row.get("seconds", 0.0) for epoch, row in history if epoch <= last_epoch)


def _evaluation_figures(evaluation: Path) -> dict[str, float]:
    """Finite figures: ``validation_...`` and ``test_...`` at the threshold or of all methods, and the summary."""
    metrics = _read_facts(evaluation / METRICS_FILE)
    values = {
        f"{split}_{name}": entry.get("value")
        for split in ("validation", "test")
        for name, entry in metrics.get(split, {}).get("at_threshold", {}).items()
    }
    if "methods" in metrics:  # an evaluation of a detector
        from cxr.regions.evaluation import name_figures

        values |= name_figures(metrics)
    values |= _read_facts(evaluation / SUMMARY_FILE)
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _training_digest(trained: Path) -> str:
    return _joint_digest(trained / METADATA_FILE, trained / HISTORY_FILE)


def _joint_digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(read_content(path) if path.is_file() else b"absent")
        digest.update(b"\0")
    return digest.hexdigest()


def _read_facts(path: Path) -> dict[str, Any]:
    """Content of a JSON file, as it was written; empty if there is no such file."""
    check_digest(path)
    return read_json(path) if path.is_file() else {}
