"""What the cluster is to run, now or on a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Version:
    """A version of a pipeline on the server.

    Attributes:
        pipeline_id: the server's id of the pipeline.
        version_id: the server's id of the version.
        name: name of the version.
        uploaded: whether it was uploaded just now; False if it was there.
    """

    pipeline_id: str
    version_id: str
    name: str
    uploaded: bool


@dataclass(frozen=True)
class Work:
    """What a run does, now or on a schedule.

    Attributes:
        name: name that is shown.
        experiment_id: the server's id of the experiment.
        version: the pipeline's version.
        arguments: name to value.
        service_account: Kubernetes account of the run's pods; None for the installation's own.
        pipeline_root: where artifacts go, e.g. ``s3://cxr-kubeflow/runs``; None for the installation's own.
    """

    name: str
    experiment_id: str
    version: Version
    arguments: Mapping[str, Any]
    service_account: str | None = None
    pipeline_root: str | None = None
