"""Parameters, tags and metrics of a run in the form that MLflow takes, each written once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cxr.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Metric

MAX_LENGTH = 5000
"""Characters that MLflow accepts in a tag; a parameter may be a little longer."""


def is_known_run(store: Store, run_id: str) -> bool:
    """Whether a store has a run, and it was not deleted.

    Args:
        store: the tracking store.
        run_id: MLflow's id of the run.

    Returns:
        Whether the run can be written to.
    """
    from mlflow.exceptions import MlflowException

    try:
        return bool(store.client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return False
        raise


def add_tags_and_params(store: Store, run_id: str, *, tags: Mapping[str, object], params: Mapping[str, object]) -> None:
    """Add tags and parameters; a parameter that the run has already keeps its value, as MLflow demands.

    Args:
        store: the tracking store.
        run_id: MLflow's id of the run.
        tags: tag name to value; None is left out.
        params: parameter name to value; nested dicts become ``outer.inner``.
    """
    from mlflow.entities import Param, RunTag
    from mlflow.exceptions import MlflowException

    present = store.client.get_run(run_id).data.params if params else {}
    new_params = [Param(name, _text(value)) for name, value in flatten(params).items() if name not in present]
    new_tags = [RunTag(name, _text(value)) for name, value in tags.items() if value is not None]
    for start in range(0, len(new_params), 100):
        batch = new_params[start : start + 100]
        try:
            store.client.log_batch(run_id, params=batch)
        except MlflowException:  # another process may add the same ones in the same moment
            present = store.client.get_run(run_id).data.params
            if any(param.key not in present for param in batch):
                raise
    for start in range(0, len(new_tags), 100):
        store.client.log_batch(run_id, tags=new_tags[start : start + 100])


def add_metrics(store: Store, run_id: str, metrics: Iterable[Metric]) -> None:
    """Add metrics; a store keeps a metric once if it receives it twice with the same time.

    Args:
        store: the tracking store.
        run_id: MLflow's id of the run.
        metrics: the metrics.
    """
    batch = list(metrics)
    for start in range(0, len(batch), 1000):
        store.client.log_batch(run_id, metrics=batch[start : start + 1000])


def logged_steps(store: Store, run_id: str) -> set[tuple[str, int]]:
    """List the metrics that a run has.

    Args:
        store: the tracking store.
        run_id: MLflow's id of the run.

    Returns:
        Pairs of metric name and step.
    """
    names = store.client.get_run(run_id).data.metrics
    return {(name, metric.step) for name in names for metric in store.client.get_metric_history(run_id, name)}


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Turn nested dicts into one level: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``; None is left out.

    Args:
        values: name to value.
        prefix: text before each name, without the dot.

    Returns:
        Full name to value.
    """
    flat: dict[str, object] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            flat |= flatten(value, name)
        elif value is not None:
            flat[name] = value
    return flat


def epoch_metrics(row: Mapping[str, float], epoch: int, fallback_time: float) -> list[Metric]:
    """Turn the figures of one epoch into metrics.

    The time of an epoch is part of its row, so that the same row always gives the same metrics, whenever it is
    logged.

    Args:
        row: name to figure, NaN where unknown; ``ended`` is when the epoch ended, in seconds since 1970.
        epoch: number of the epoch, used as MLflow's step.
        fallback_time: seconds since 1970 for a row without ``ended``.

    Returns:
        One metric per figure except ``epoch`` and ``ended``.
    """
    from mlflow.entities import Metric

    ended = row.get("ended", math.nan)
    timestamp = int(1000 * (ended if math.isfinite(ended) else fallback_time))
    return [
        Metric(name, float(value), timestamp, epoch) for name, value in row.items() if name not in {"epoch", "ended"}
    ]


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text[:MAX_LENGTH]
