"""Runs as their files tell them: a store that doesn't know a training, or not all of it, is told from the files."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import RegistryError
from cxr.files import HISTORY_FILE, METADATA_FILE, SUMMARY_FILE, TRAINING_FILE
from cxr.models.metadata import ModelCard
from cxr.tracking.claims import claim
from cxr.tracking.connection import client, experiment_id, experiment_name
from cxr.tracking.delivery import Delivery
from cxr.tracking.health import first_line, plainly
from cxr.tracking.run_data import add, add_metrics, epoch_metrics, flat, known, logged

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

WHOLE_TAG = "cxr.whole"
"""Digest of the files that a run tells in full; it is written last."""
EVALUATION_TAG = "cxr.evaluation"


def find_or_restore(connected: MlflowClient, trained: Path, *, uri: str, experiment: str) -> str:
    """The MLflow run of a trained model; what the store doesn't know of it is added, once, from the files.

    Files restored from a cache, trained offline or against another store name no run that this store has seen. A
    run whose store was lost in the middle lacks epochs or its end. An ensemble, which is not trained, gets its run
    here.

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
    run_id = _read_json(trained / TRAINING_FILE).get("run_id")
    if not run_id or not known(connected, str(run_id)):
        where = experiment_id(connected, uri, experiment_name(experiment, card.dataset_kind))
        started, _ = _times(_history(trained / HISTORY_FILE))
        origin = {} if card.members else {"restored": "from files"}
        run_id = claim(connected, where, _digest(trained), name=card.model, started=started, tags=origin)
    complete(connected, str(run_id), trained)
    return str(run_id)


def complete(connected: MlflowClient, run_id: str, trained: Path) -> None:
    """Make a run tell all that the files of its training tell; what it tells already is left alone.

    A process killed meanwhile leaves the rest to the next one, and two may do it at once.

    Args:
        connected: client of the store.
        run_id: MLflow's id of the run.
        trained: the model's folder, as for :func:`find_or_restore`.
    """
    digest = _digest(trained)
    run = connected.get_run(run_id)
    if run.data.tags.get(WHOLE_TAG) == digest:
        return
    card, facts = ModelCard.read(trained), _read_json(trained / TRAINING_FILE)
    history = _history(trained / HISTORY_FILE)
    described = {key: value for key, value in asdict(card).items() if key not in {"training", "dataset", "members"}}
    described["weights"] = {member.model: member.weight for member in card.members}
    # A run that gave its own parameters when it began is not given the card's beside them.
    params = facts.get("parameters") or ({} if run.data.params else described)
    tags = {"model": card.model, "system": card.system, "dataset": card.dataset["name"],
            "dataset_kind": card.dataset_kind, "data_digest": card.data_digest, "data_md5": card.data_md5,
            "split_protocol": card.split_protocol, "split_digest": card.split_digest, "git_commit": card.git_commit,
            **flat(card.training, "training")}  # fmt: skip
    add(connected, run_id, tags=tags, params=params)
    present = logged(connected, run_id)
    begun = run.info.start_time / 1000
    missing = [
        one
        for number, row in history
        for one in epoch_metrics(row, number, begun + _seconds(history, number))
        if (one.key, number) not in present
    ]
    add_metrics(connected, run_id, missing)
    if facts:
        connected.log_artifacts(run_id, str(trained), "training")
    if run.info.status != "FINISHED":
        connected.set_terminated(run_id, "FINISHED", _times(history)[1])
    add(connected, run_id, tags={WHOLE_TAG: digest}, params={})


def log_evaluation(trained: Path, evaluation: Path, *, uri: str, experiment: str) -> str | None:
    """Attach an evaluation's figures and files to the run that trained the model.

    Args:
        trained: the model's folder, ``artifacts/models/<model>``.
        evaluation: its evaluation, ``artifacts/evaluations/<model>``: ``summary.json``, ``card.json``, plots.
        uri: address of the store; an empty text logs nothing.
        experiment: name of the experiment.

    Returns:
        MLflow's id of the run, or None when nothing is logged.

    Raises:
        RegistryError: if the store doesn't answer, or no longer.
    """
    if not uri:
        return None
    connected = client(uri)
    with plainly(uri, f"take the training and the evaluation of {trained.name}"):
        run_id = find_or_restore(connected, trained, uri=uri, experiment=experiment)
        digest = _joint_digest(evaluation / METADATA_FILE, evaluation / SUMMARY_FILE)
        run = connected.get_run(run_id).data
        if run.tags.get(EVALUATION_TAG) == digest:
            return run_id
        # The file's time, and not the present: whoever logs the same figures logs them once.
        moment = (evaluation / SUMMARY_FILE).stat().st_mtime
        new = {name: value for name, value in _figures(evaluation).items() if run.metrics.get(name) != value}
        add_metrics(connected, run_id, epoch_metrics(new, 0, moment))
        connected.log_artifacts(run_id, str(evaluation), "evaluation")
        # The tag comes last: a process killed before it logs the whole evaluation again.
        card = ModelCard.read(evaluation)
        tags = {
            "threshold": card.threshold,
            "temperature": card.temperature,
            "threshold_rule": card.threshold_rule,
        }
        add(connected, run_id, tags={**tags, EVALUATION_TAG: digest}, params={})
    return run_id


def send_evaluation(trained: Path, evaluation: Path, *, uri: str, experiment: str) -> None:
    """Attach an evaluation as :func:`log_evaluation` does; a store that is lost meanwhile is only a warning.

    Args:
        trained: the model's folder.
        evaluation: its evaluation.
        uri: address of the store; an empty text logs nothing.
        experiment: name of the experiment.
    """
    if not uri:
        return
    delivery = Delivery(lambda: log_evaluation(trained, evaluation, uri=uri, experiment=experiment))
    if not delivery.settled(uri):
        why = first_line(delivery.error) if delivery.error else "the store does not answer"
        log.warning("the evaluation is not in MLflow yet, `cxr register` logs it from its files: %s", why)


def _history(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Epochs of ``history.csv``, in order; an empty cell is unknown and left out."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        # Python's own float gives to the last digit what was logged while training; not every reader of tables does.
        rows = [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(lines)]
    return [(int(row["epoch"]), row) for row in rows]


def _times(history: list[tuple[int, dict[str, float]]]) -> tuple[int | None, int | None]:
    """When a training began and ended, in milliseconds since 1970; None where its rows don't tell."""
    ended = [row["ended"] for _, row in history if "ended" in row]
    if not ended:
        return None, None
    return int(1000 * (ended[0] - history[0][1].get("seconds", 0.0))), int(1000 * ended[-1])


def _seconds(history: list[tuple[int, dict[str, float]]], last: int) -> float:
    """Seconds of all epochs up to one; epochs without a time of their own still keep their order."""
    return sum(row.get("seconds", 0.0) for number, row in history if number <= last)


def _figures(evaluation: Path) -> dict[str, float]:
    """Known figures: ``validation_...`` and ``test_...`` at the threshold, and the summary."""
    report = _read_json(evaluation / "metrics.json")
    values = {
        f"{split}_{name}": entry.get("value")
        for split in ("validation", "test")
        for name, entry in report.get(split, {}).get("at_threshold", {}).items()
    }
    values |= _read_json(evaluation / SUMMARY_FILE)
    numbers = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def _digest(trained: Path) -> str:
    return _joint_digest(trained / METADATA_FILE, trained / HISTORY_FILE)


def _joint_digest(*paths: Path) -> str:
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
