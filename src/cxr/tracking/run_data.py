"""Entries of a run: parameters, tags and metrics in the form that MLflow takes, each written once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_LONGEST = 5000
"""Characters that MLflow accepts in a tag; a parameter may be a little longer."""


def known(connected: MlflowClient, run_id: str) -> bool:
    """Whether a store knows a run that was not deleted.

    Args:
        connected: client of the store.
        run_id: MLflow's id of the run.

    Returns:
        Whether it can be written to.
    """
    from mlflow.exceptions import MlflowException

    try:
        return bool(connected.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return False
        raise


def add(connected: MlflowClient, run_id: str, *, tags: Mapping[str, object], params: Mapping[str, object]) -> None:
    """Add tags and parameters; a parameter that the run has already keeps its value, as MLflow demands.

    Args:
        connected: client of the store.
        run_id: MLflow's id of the run.
        tags: tag name to value; None is left out.
        params: parameter name to value; nested dicts become ``outer.inner``.
    """
    from mlflow.entities import Param, RunTag

    present = connected.get_run(run_id).data.params if params else {}
    new = [Param(name, _text(value)) for name, value in flat(params).items() if name not in present]
    labels = [RunTag(name, _text(value)) for name, value in tags.items() if value is not None]
    for start in range(0, len(new), 100):
        connected.log_batch(run_id, params=new[start : start + 100])
    for start in range(0, len(labels), 100):
        connected.log_batch(run_id, tags=labels[start : start + 100])


def add_metrics(connected: MlflowClient, run_id: str, metrics: Iterable[Metric]) -> None:
    """Add metrics; a store keeps one that it is given twice, with the same time, once.

    Args:
        connected: client of the store.
        run_id: MLflow's id of the run.
        metrics: the metrics.
    """
    batch = list(metrics)
    for start in range(0, len(batch), 1000):
        connected.log_batch(run_id, metrics=batch[start : start + 1000])


def logged(connected: MlflowClient, run_id: str) -> set[tuple[str, int]]:
    """Which figures a run has.

    Args:
        connected: client of the store.
        run_id: MLflow's id of the run.

    Returns:
        Names with their steps.
    """
    names = connected.get_run(run_id).data.metrics
    return {(name, one.step) for name in names for one in connected.get_metric_history(run_id, name)}


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested dicts as one level: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``; None is left out.

    Args:
        values: name to value.
        prefix: what stands before each name, without the dot.

    Returns:
        Full name to value.
    """
    level: dict[str, object] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            level |= flat(value, name)
        elif value is not None:
            level[name] = value
    return level


def epoch_metrics(row: Mapping[str, float], epoch: int, otherwise: float) -> list[Metric]:
    """Figures of one epoch as metrics.

    The time of an epoch is part of its row: whoever logs the row, and whenever, makes the same metrics of it.

    Args:
        row: name to figure, NaN where unknown; ``ended`` is when the epoch ended, in seconds since 1970.
        epoch: number of the epoch, MLflow's step.
        otherwise: when it ended, if the row doesn't tell.

    Returns:
        One metric per figure but ``epoch`` and ``ended``.
    """
    from mlflow.entities import Metric

    ended = row.get("ended", math.nan)
    moment = int(1000 * (ended if math.isfinite(ended) else otherwise))
    return [Metric(name, float(value), moment, epoch) for name, value in row.items() if name not in {"epoch", "ended"}]


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text[:_LONGEST]
