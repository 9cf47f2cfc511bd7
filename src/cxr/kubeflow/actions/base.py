"""Fields that actions have in common: the pipeline, the way to the cluster, the run, the schedule's name."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from cxr.errors import MissingInputError, ParameterError
from cxr.steps.base import Step

if TYPE_CHECKING:
    from cxr.kubeflow.cluster import Cluster
    from cxr.kubeflow.pipeline_package import Package
    from cxr.kubeflow.run_spec import Version

HOST = "KFP_HOST"
"""Environment variable with the address of Kubeflow Pipelines."""
SECTION = frozenset(
    {
        "host", "namespace", "token_variable", "token_file", "verify_certificates", "ca_file", "timeout",
        "pipeline", "experiment", "service_account", "pipeline_root",
        "schedule_name", "cron", "time_zone", "enabled", "no_catchup", "max_concurrency", "tolerance",
    }
)  # fmt: skip
"""Keys of the section ``kubeflow``: each action uses some of them."""


class Action(Step):
    """An action of ``cxr kubeflow``; it answers on standard output."""

    sections: ClassVar[tuple[str, ...]] = ("kubeflow",)
    passed_over: ClassVar[frozenset[str]] = SECTION

    def show(self, *lines: str) -> None:
        """Print an answer, which unlike the log goes to standard output.

        Args:
            lines: lines without their ends.
        """
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()


class OfPipeline(Action):
    """An action about one of the pipelines."""

    pipeline: Annotated[
        Literal["training", "scoring"],
        Field(description="Which pipeline; on the cluster it is named cxr-training or cxr-scoring."),
    ] = "training"


class Compiled(OfPipeline):
    """An action that needs a pipeline with the values of the parameter file."""

    params: Annotated[Path, Field(description="Parameter file whose values go into the pipeline.")] = Path(
        "params.yaml"
    )

    def compiled(self, output: Path) -> Path:
        """Compile the pipeline.

        Args:
            output: the file to write, which appears whole.

        Returns:
            The file.

        Raises:
            MissingInputError: if there is no parameter file.
        """
        if not self.params.is_file():
            raise MissingInputError(f"expected a parameter file, received params={self.params}; give --params FILE")
        from cxr.kubeflow.compiler import compile_pipeline

        output.parent.mkdir(parents=True, exist_ok=True)
        return compile_pipeline(self.pipeline, self.params, output)


class OnCluster(Action):
    """An action that speaks to a cluster."""

    host: Annotated[
        str | None,
        Field(
            description="Address of Kubeflow Pipelines' page, which passes requests on to its API, e.g. "
            f"https://kubeflow.example.org/pipeline; null takes the environment variable {HOST}.",
        ),
    ] = None
    namespace: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
            description="Namespace of an installation with several users; other installations have none to choose.",
        ),
    ] = "cxr"
    token_variable: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="Environment variable with a token; while it is not set, none is sent.",
        ),
    ] = "KFP_TOKEN"
    token_file: Annotated[
        Path | None,
        Field(description="File with a token, such as a mounted service account's; beats the variable."),
    ] = None
    verify_certificates: Annotated[
        bool, Field(description="Whether the server's certificate is checked; false only for a trial.")
    ] = True
    ca_file: Annotated[
        Path | None, Field(description="Certificates of the authorities to trust; null for the usual ones.")
    ] = None
    timeout: Annotated[int, Field(ge=1, le=600, description="Seconds that an answer may take.")] = 30

    @field_validator("host")
    @classmethod
    def _address(cls, host: str | None) -> str | None:
        return None if host is None else _checked(host)

    @field_validator("ca_file")
    @classmethod
    def _certificates(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_file():
            raise ValueError("a file with certificates (PEM) that is there, or null")
        return file

    def cluster(self) -> Cluster:
        """Make the first contact.

        Returns:
            The cluster.

        Raises:
            ParameterError: if no host is named.
            ClusterError: if it does not answer as it should.
        """
        from cxr.kubeflow.cluster import Cluster
        from cxr.kubeflow.connection import Access

        return Cluster(
            Access(
                self._host(), self.token_variable, self.token_file, self.verify_certificates, self.ca_file, self.timeout
            ),
            self.namespace,
        )

    def _host(self) -> str:
        if self.host is not None:
            return self.host
        host = os.environ.get(HOST, "")
        if not host:
            raise ParameterError(
                [
                    f"expected the address of Kubeflow Pipelines, received host=null and no {HOST}; set "
                    f"kubeflow.host or {HOST}, e.g. http://127.0.0.1:8080 after `kubectl port-forward --namespace "
                    "kubeflow service/ml-pipeline-ui 8080:80`"
                ]
            )
        try:
            return _checked(host)
        except ValueError as error:
            raise ParameterError([f"expected {HOST} to be {error}, received {HOST}={host!r}"]) from None


class Started(OnCluster, Compiled):
    """An action that has the cluster run a pipeline, now or later."""

    package: Annotated[
        Path | None, Field(description="File that `cxr kubeflow compile` wrote; null compiles the pipeline now.")
    ] = None
    arguments: Annotated[
        dict[str, Any], Field(description="Values for the pipeline's own arguments, as a mapping.")
    ] = {}  # noqa: RUF012
    experiment: Annotated[str, Field(min_length=1, description="Experiment that the runs belong to.")] = "pneumonia"
    service_account: Annotated[
        str | None, Field(description="Kubernetes account of the runs' pods; null for the installation's own.")
    ] = "cxr-pipeline"
    pipeline_root: Annotated[
        str | None,
        Field(
            description="Where artifacts go, e.g. s3://cxr-kubeflow/runs; null for the pipeline's or installation's."
        ),
    ] = None

    def read(self) -> Package:
        """Read the package, compiling it first if none is named, and check the arguments.

        Returns:
            The package.

        Raises:
            MissingInputError: if the package or the parameter file is not there.
            ParameterError: if it is none, or takes other arguments.
        """
        from cxr.kubeflow.pipeline_package import read_package

        found = read_package(self.package or self.compiled(package_path(self.pipeline)))
        found.check(self.arguments)
        return found

    def upload(self, cluster: Cluster, package: Package) -> Version:
        """Upload the package unless its content is there, and say which version it is.

        Args:
            cluster: the cluster.
            package: the compiled pipeline.

        Returns:
            The version.
        """
        from cxr import __version__
        from cxr.lineage.provenance import git_commit

        commit = git_commit(Path.cwd()) or "unknown"
        version = cluster.version(package, f"cxr {__version__}, git commit {commit}")
        came = "uploaded" if version.uploaded else "was there already"
        self.show(f"{package.name}: version {version.name} {came}")
        return version


class Named(OnCluster, OfPipeline):
    """An action about the schedule of a name."""

    schedule_name: Annotated[
        str | None, Field(min_length=1, description="Name of the schedule; null takes that of the pipeline.")
    ] = None

    @property
    def schedule(self) -> str:
        """Name of the schedule."""
        return self.schedule_name or f"cxr-{self.pipeline}"


def package_path(pipeline: str) -> Path:
    """Where a compiled pipeline is written unless another file is named.

    Args:
        pipeline: ``"training"`` or ``"scoring"``.

    Returns:
        The file.
    """
    return Path("artifacts") / "kubeflow" / f"{pipeline}.yaml"


def _checked(host: str) -> str:
    """Take an address without slashes at its end; ValueError continues "expected host to be"."""
    parts = urlsplit(host.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("an address that starts with http:// or https://, e.g. https://kubeflow.example.org/pipeline")
    if parts.username or parts.password:
        raise ValueError("an address without user and password; a token goes into the environment variable")
    if parts.query or parts.fragment or re.search(r"/apis(/|$)", parts.path):
        raise ValueError("the address of the page without what follows # or ?, and without /apis")
    return host.strip().rstrip("/")
