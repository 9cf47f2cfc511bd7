"""Run a pipeline on this machine: compiled as for a cluster, each step in a container of its own."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field

from cxr.errors import MissingInputError, ParameterError
from cxr.lineage.provenance import PIPELINE_RUN
from cxr.steps.base import Keeps, Step
from cxr.steps.parameters import read_sections

log = logging.getLogger(__name__)

HANDED_ON = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION",
    "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
)  # fmt: skip
"""Variables that containers get from this environment, as they get them from secrets on a cluster."""
TRACKING = "MLFLOW_TRACKING_URI"
"""Variable with the address of MLflow, as in the cluster's secret."""
ONE_MACHINE: dict[str, Any] = {
    "containers.remote": None,
    "containers.api": None,
    "containers.gpu.count": 0,
    "containers.checkpoints.size": None,
    "containers.retries.count": 0,
}
"""What a run on this machine does without: a cluster's disks, its GPUs, its second tries."""


class Run(Step):
    """Run a compiled pipeline on this machine, each step in a container, with docker or podman."""

    name: ClassVar[str] = "kubeflow run"
    sections: ClassVar[tuple[str, ...]] = ()

    pipeline: Annotated[Literal["training", "scoring"], Field(description="Which pipeline.")] = "training"
    params: Annotated[Path, Field(description="Parameter file whose values go into the pipeline.")] = Path(
        "params.yaml"
    )
    models: Annotated[
        list[str], Field(description="Models of the parameter file to train; empty takes all that there are.")
    ] = []  # noqa: RUF012
    changes: Annotated[
        dict[str, Any],
        Field(description="Other values for this run, e.g. {fetch.phantom_images: 60, evaluate.resamples: 100}."),
    ] = {}  # noqa: RUF012
    arguments: Annotated[
        dict[str, Any], Field(description="Values for the pipeline's own arguments, as a mapping.")
    ] = {}  # noqa: RUF012
    tracking_uri: Annotated[
        str | None,
        Field(
            pattern=r"^https?://",
            description="Address of an MLflow server as containers reach it; null starts one for this run, whose store "
            "stays in the folder of the runs.",
        ),
    ] = None
    shared_memory: Annotated[
        str, Field(pattern=r"^\d+[kmg]$", description="Size of /dev/shm in each container, e.g. 512m or 1g.")
    ] = "1g"
    runs: Annotated[Path, Keeps("Runs"), Field(description="Folder with one folder per run, and the MLflow store.")] = (
        Path("artifacts/kubeflow/local")
    )

    def run(self) -> None:
        """Compile the pipeline and run it.

        Raises:
            MissingInputError: if there is no parameter file.
            ParameterError: if a model or a changed value isn't in it.
            InstallationError: if there is no engine, or an image is missing.
            PipelineError: if a step failed.
        """
        from cxr.kubeflow.compiler import compile_pipeline
        from cxr.kubeflow.container_engine import Engine

        if not self.params.is_file():
            raise MissingInputError(f"{self.name}: expected a parameter file, received params={self.params}")
        sections = changed(read_sections(self.params), self.models, self.changes)
        engine = Engine.find()
        begun = datetime.now(UTC)
        folder = self.runs / f"{begun:%Y%m%dT%H%M%S}"
        engine.prepare(folder)
        with self._tracking() as uri:
            params = folder / "params.yaml"
            values = changed(sections, [], ONE_MACHINE | {"containers.tracking_uri": uri}, new=True)
            params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
            package = compile_pipeline(self.pipeline, params, folder / f"{self.pipeline}.yaml")
            environment = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
            environment |= {TRACKING: uri, PIPELINE_RUN: f"local-{folder.name}"}
            engine.run(package, folder, engine.options(environment, self.shared_memory), self.arguments)
        seconds = (datetime.now(UTC) - begun).total_seconds()
        log.info("%s: every step ended well after %.0f s; outputs are in %s", self.pipeline, seconds, folder)

    @contextlib.contextmanager
    def _tracking(self) -> Iterator[str]:
        if self.tracking_uri is not None:
            yield self.tracking_uri
            return
        from cxr.kubeflow.local_tracking_server import serving

        with serving(self.runs / "mlflow") as uri:
            yield uri


def changed(
    sections: Mapping[str, Any], models: list[str], changes: Mapping[str, Any], *, new: bool = False
) -> dict[str, Any]:
    """Copy the sections of a parameter file with other values in them.

    Args:
        sections: the sections.
        models: entries of the section ``models`` that stay; all if empty.
        changes: dotted name to value, e.g. ``{"fetch.phantom_images": 60}``.
        new: whether names may be added.

    Returns:
        The copy.

    Raises:
        ParameterError: listing every model and name that isn't there.
    """
    copy: dict[str, Any] = json.loads(json.dumps(sections))  # parts mappings that share an anchor
    known = copy.get("models") or {}
    problems = [
        f"expected one of the models {', '.join(known)}; received {name!r}" for name in models if name not in known
    ]
    if models:
        copy["models"] = {name: known[name] for name in models if name in known}
    for name, value in changes.items():
        *way, last = name.split(".")
        place: Any = copy
        for part in way:
            if new:
                place[part] = place.get(part) or {}
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict) or (not way and last not in place):
            problems.append(f"expected the name of a value such as fetch.phantom_images, received {name}={value!r}")
        else:
            place[last] = value
    if problems:
        raise ParameterError(problems)
    return copy
