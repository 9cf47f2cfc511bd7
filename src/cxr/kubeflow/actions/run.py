"""Run: execute a pipeline on this machine, compiled as for a cluster, each step in its own container."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field

from cxr.errors import MissingInputError
from cxr.kubeflow.actions.base import ParameterFile, PipelineArguments, TrainedModels
from cxr.lineage.provenance import PIPELINE_RUN_VARIABLE
from cxr.steps.base import Step, WorkingFolder
from cxr.steps.parameters import override_parameters, read_parameter_file

log = logging.getLogger(__name__)

FORWARDED_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION",
    "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
)  # fmt: skip
"""Variables of this environment that containers get; on a cluster they get them from secrets."""
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
"""Environment variable with the address of MLflow."""
LOCAL_OVERRIDES: dict[str, Any] = {
    "containers.remote": None,
    "containers.api": None,
    "containers.gpu.count": 0,
    "containers.checkpoints.size": None,
}
"""Values that switch off what only a cluster has: disks and GPUs."""
LOCAL_DEFAULTS: dict[str, Any] = {"containers.retries.count": 0}
"""Values in place of those of the parameter file, unless a run changes them: a step that fails ends the run at once."""


def local_parameters(sections: Mapping[str, Any], models: Sequence[str], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Make the values of a run on this machine from those of the parameter file.

    Args:
        sections: sections of the parameter file.
        models: models to train; empty takes all.
        changes: dotted name to another value for this run.

    Returns:
        A copy of the sections with the changes, and without retries unless the changes ask for them.

    Raises:
        ParameterError: listing every model and name that does not exist.
    """
    return override_parameters(override_parameters(sections, [], LOCAL_DEFAULTS, add=True), models, changes)


class RunLocally(Step):
    """Run a compiled pipeline on this machine, each step in a container, with docker or podman."""

    name: ClassVar[str] = "kubeflow run"
    follows: ClassVar[str] = "compile"
    sections: ClassVar[tuple[str, ...]] = ()

    pipeline: Annotated[Literal["training", "scoring"], Field(description="Which pipeline.")] = "training"
    params: ParameterFile = Path("params.yaml")
    models: TrainedModels = []  # noqa: RUF012
    changes: Annotated[
        dict[str, Any],
        Field(description="Other values for this run, e.g. {fetch.phantom_images: 60, evaluate.resamples: 100}."),
    ] = {}  # noqa: RUF012
    arguments: PipelineArguments = {}  # noqa: RUF012
    tracking_uri: Annotated[
        str | None,
        Field(
            pattern=r"^https?://",
            description="Address of an MLflow server as containers reach it; null starts one for this run, whose store "
            "is kept in the folder of the runs.",
        ),
    ] = None
    shared_memory: Annotated[
        str, Field(pattern=r"^\d+[kmg]$", description="Size of /dev/shm in each container, e.g. 512m or 1g.")
    ] = "1g"
    runs: Annotated[
        Path, WorkingFolder("Runs"), Field(description="Folder with one folder per run, and the MLflow store.")
    ] = Path("artifacts/kubeflow/local")

    def run(self) -> None:
        """Compile the pipeline and run it.

        Raises:
            MissingInputError: if there is no parameter file.
            ParameterError: if a model or an overridden value is not in it.
            InstallationError: if no container engine responds, or an image is missing.
            PipelineError: if a step failed.
        """
        from cxr.kubeflow.container_engine import ContainerEngine
        from cxr.kubeflow.pipeline_package import compile_pipeline

        if not self.params.is_file():
            raise MissingInputError(f"expected a parameter file, received params={self.params}; give --params FILE")
        sections = local_parameters(read_parameter_file(self.params), self.models, self.changes)
        engine = ContainerEngine.find()
        started = datetime.now(UTC)
        folder = self.runs / f"{started:%Y%m%dT%H%M%S}"
        engine.prepare(folder)
        with self._tracking_server() as uri:
            params = folder / "params.yaml"
            values = override_parameters(sections, [], LOCAL_OVERRIDES | {"containers.tracking_uri": uri}, add=True)
            params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
            package = compile_pipeline(self.pipeline, params, folder / f"{self.pipeline}.yaml")
            environment = {name: os.environ[name] for name in FORWARDED_VARIABLES if name in os.environ}
            environment |= {TRACKING_VARIABLE: uri, PIPELINE_RUN_VARIABLE: f"local-{folder.name}"}
            engine.run(package, folder, engine.options(environment, self.shared_memory), self.arguments)
        seconds = (datetime.now(UTC) - started).total_seconds()
        log.info("%s: every step succeeded after %.0f s; outputs are in %s", self.pipeline, seconds, folder)

    @contextlib.contextmanager
    def _tracking_server(self) -> Iterator[str]:
        if self.tracking_uri is not None:
            yield self.tracking_uri
            return
        from cxr.kubeflow.local_tracking_server import run_tracking_server

        with run_tracking_server(self.runs / "mlflow") as uri:
            yield uri
