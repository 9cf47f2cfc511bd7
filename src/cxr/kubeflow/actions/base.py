"""Fields that several actions share: the pipeline, the cluster, the run, the name of the schedule."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from cxr.errors import MissingInputError, ParameterError
from cxr.steps.base import Step

if TYPE_CHECKING:
    from cxr.kubeflow.cluster import KubeflowCluster, PipelineVersion, RunSpec
    from cxr.kubeflow.pipeline_package import PipelinePackage

HOST_VARIABLE = "KFP_HOST"
"""Environment variable with the address of Kubeflow Pipelines."""
SECTION_KEYS = frozenset(
    {
        "host", "namespace", "token_variable", "token_file", "verify_certificates", "ca_file", "timeout",
        "pipeline", "models", "experiment", "service_account", "pipeline_root",
        "schedule_name", "cron", "time_zone", "enabled", "no_catchup", "max_concurrency", "tolerance",
    }
)  # fmt: skip
"""Keys of the section ``kubeflow``; each action uses some of them."""


ParameterFile = Annotated[Path, Field(description="Parameter file whose values go into the pipeline.")]
TrainedModels = Annotated[
    list[str], Field(description="Models of the parameter file to train; empty takes all of them.")
]
PipelineArguments = Annotated[
    dict[str, Any], Field(description="Values for the pipeline's own arguments, as a mapping.")
]


class Action(Step):
    """An action of ``cxr kubeflow``; it prints its result to standard output."""

    sections: ClassVar[tuple[str, ...]] = ("kubeflow",)
    ignored_keys: ClassVar[frozenset[str]] = SECTION_KEYS


class PipelineAction(Action):
    """An action about one of the pipelines."""

    pipeline: Annotated[
        Literal["training", "scoring"],
        Field(description="Which pipeline; on the cluster its name is cxr-training or cxr-scoring."),
    ] = "training"


class CompilingAction(PipelineAction):
    """An action that compiles a pipeline with the values of the parameter file."""

    params: ParameterFile = Path("params.yaml")
    models: TrainedModels = []  # noqa: RUF012

    def compile(self, output: Path) -> list[Path]:
        """Compile the pipeline.

        Args:
            output: the file to write.

        Returns:
            The file; several if the record of one run would be too long for Kubeflow.

        Raises:
            MissingInputError: if there is no parameter file.
        """
        if not self.params.is_file():
            raise MissingInputError(f"expected a parameter file, received params={self.params}; give --params FILE")
        from cxr.kubeflow.pipeline_package import compile_runs

        output.parent.mkdir(parents=True, exist_ok=True)
        return compile_runs(self.pipeline, self.params, output, self.models)


class ClusterAction(Action):
    """An action that sends requests to a cluster."""

    host: Annotated[
        str | None,
        Field(
            description="Address of Kubeflow Pipelines' page, which forwards requests to its API, e.g. "
            f"https://kubeflow.example.org/pipeline; null takes the environment variable {HOST_VARIABLE}.",
        ),
    ] = None
    namespace: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
            description="Namespace on an installation with several users; other installations ignore it.",
        ),
    ] = "cxr"
    token_variable: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="Environment variable with a token; if it is not set, no token is sent.",
        ),
    ] = "KFP_TOKEN"
    token_file: Annotated[
        Path | None,
        Field(description="File with a token, such as a mounted service account's; it wins over the variable."),
    ] = None
    verify_certificates: Annotated[
        bool, Field(description="Whether the server's certificate is checked; use false only for a trial.")
    ] = True
    ca_file: Annotated[
        Path | None, Field(description="Certificates of the authorities to trust; null takes the usual ones.")
    ] = None
    timeout: Annotated[int, Field(ge=1, le=600, description="Longest time for a response, in seconds.")] = 30

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str | None) -> str | None:
        return None if host is None else _check_address(host)

    @field_validator("ca_file")
    @classmethod
    def _check_ca_file(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_file():
            raise ValueError("an existing file with certificates (PEM), or null")
        return file

    def cluster(self) -> KubeflowCluster:
        """Connect to the cluster.

        Returns:
            The cluster.

        Raises:
            ParameterError: if no host is set.
            ClusterError: if it does not respond as Kubeflow Pipelines.
        """
        from cxr.kubeflow.cluster import KubeflowCluster
        from cxr.kubeflow.connection import ConnectionSettings

        settings = ConnectionSettings(
            self._host(), self.token_variable, self.token_file, self.verify_certificates, self.ca_file, self.timeout
        )
        return KubeflowCluster(settings, self.namespace)

    def _host(self) -> str:
        if self.host is not None:
            return self.host
        host = os.environ.get(HOST_VARIABLE, "")
        if not host:
            raise ParameterError(
                [
                    f"expected the address of Kubeflow Pipelines, received host=null and no {HOST_VARIABLE}; set "
                    f"kubeflow.host or {HOST_VARIABLE}, e.g. http://127.0.0.1:8080 after "
                    "`kubectl port-forward --namespace kubeflow service/ml-pipeline-ui 8080:80`"
                ]
            )
        try:
            return _check_address(host)
        except ValueError as error:
            raise ParameterError(
                [f"expected {HOST_VARIABLE} to be {error}, received {HOST_VARIABLE}={host!r}"]
            ) from None


class SubmittingAction(ClusterAction, CompilingAction):
    """An action that lets the cluster run a pipeline, now or later."""

    package: Annotated[
        Path | None, Field(description="File that `cxr kubeflow compile` wrote; null compiles the pipeline now.")
    ] = None
    arguments: PipelineArguments = {}  # noqa: RUF012
    experiment: Annotated[str, Field(min_length=1, description="Experiment of the runs.")] = "pneumonia"
    service_account: Annotated[
        str | None, Field(description="Kubernetes account of the runs' pods; null takes the installation's default.")
    ] = "cxr-pipeline"
    pipeline_root: Annotated[
        str | None,
        Field(
            description="Address for artifacts, e.g. s3://cxr-kubeflow/runs; null takes the pipeline's or "
            "the installation's default."
        ),
    ] = None

    def read_packages(self) -> list[PipelinePackage]:
        """Read the package and check the arguments; compile the pipeline first if no file is given.

        Returns:
            The package; several, one for each run, if the record of one run would be too long for Kubeflow.

        Raises:
            MissingInputError: if the package or the parameter file does not exist.
            ParameterError: if the file is no package, or the package takes other arguments.
        """
        from cxr.kubeflow.pipeline_package import read_package

        files = [self.package] if self.package else self.compile(default_package_path(self.pipeline))
        packages = [read_package(file) for file in files]
        for package in packages:
            package.check_arguments(self.arguments)
        if len(packages) > 1:
            groups = "; ".join(", ".join(package.models) for package in packages)
            self.show(f"Kubeflow could not read the record of one run with all models; {len(packages)} runs: {groups}")
        return packages

    def run_spec(self, cluster: KubeflowCluster, package: PipelinePackage, name: str) -> RunSpec:
        """Describe a run of the package; upload the package and create the experiment if they do not exist.

        Args:
            cluster: the cluster.
            package: the compiled pipeline.
            name: name of the run or of the schedule.

        Returns:
            What the run does.
        """
        from cxr.kubeflow.cluster import RunSpec

        return RunSpec(
            name=name,
            version=self._upload(cluster, package),
            experiment_id=cluster.ensure_experiment(self.experiment),
            arguments=self.arguments,
            service_account=self.service_account,
            pipeline_root=self.pipeline_root,
        )

    def _upload(self, cluster: KubeflowCluster, package: PipelinePackage) -> PipelineVersion:
        """Upload the package, unless the server has the same content, and show the version."""
        from cxr import __version__
        from cxr.lineage.provenance import git_commit

        commit = git_commit(Path.cwd()) or "unknown"
        version = cluster.ensure_version(package, f"cxr {__version__}, git commit {commit}")
        state = "uploaded" if version.uploaded else "exists already"
        self.show(f"{package.name}: version {version.name} {state}")
        return version


class ScheduleAction(ClusterAction, PipelineAction):
    """An action about the schedule with a name."""

    schedule_name: Annotated[
        str | None, Field(min_length=1, description="Name of the schedule; null takes the name of the pipeline.")
    ] = None

    @property
    def schedule(self) -> str:
        """Name of the schedule."""
        return self.schedule_name or f"cxr-{self.pipeline}"

    def part_name(self, number: int) -> str:
        """Name of the recurring run for one part of the models.

        Args:
            number: number of the part, from 1.

        Returns:
            The name of the schedule; from the second part on with a number.
        """
        return self.schedule if number == 1 else f"{self.schedule}.part{number}"

    def recurring_runs(self, cluster: KubeflowCluster) -> list[Any]:
        """List the recurring runs of the schedule, all its parts.

        Args:
            cluster: the cluster.

        Returns:
            ``V2beta1RecurringRun``.
        """
        parts = (cluster.list_recurring_runs(self.part_name(number)) for number in itertools.count(2))
        return [
            *cluster.list_recurring_runs(self.part_name(1)),
            *itertools.chain.from_iterable(itertools.takewhile(bool, parts)),
        ]


def default_package_path(pipeline: str) -> Path:
    """File of a compiled pipeline, unless another one is given.

    Args:
        pipeline: ``"training"`` or ``"scoring"``.

    Returns:
        The file.
    """
    return Path("artifacts") / "kubeflow" / f"{pipeline}.yaml"


def _check_address(host: str) -> str:
    """Remove slashes from the end of an address; the text of a ValueError continues "expected host to be"."""
    parts = urlsplit(host.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("an address that starts with http:// or https://, e.g. https://kubeflow.example.org/pipeline")
    if parts.username or parts.password:
        raise ValueError("an address without user and password; a token goes into the environment variable")
    if parts.query or parts.fragment or re.search(r"/apis(/|$)", parts.path):
        raise ValueError("the address of the page without the part from # or ?, and without /apis")
    return host.strip().rstrip("/")
