"""Pipeline versions, experiments, runs and recurring runs of Kubeflow Pipelines, found by name or created."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cxr.errors import ClusterError, ParameterError
from cxr.kubeflow.api_errors import NameTakenError, ServerUnavailableError
from cxr.kubeflow.connection import ConnectionSettings, KubeflowConnection, ResourceLookup
from cxr.kubeflow.cron import CronSchedule
from cxr.kubeflow.pipeline_package import PipelinePackage
from cxr.lineage.pipeline_tasks import TaskDefinition, read_task_definitions

STANDALONE_NAMESPACE = "kubeflow"
"""Namespace in which an installation without several users runs everything."""


@dataclass(frozen=True)
class PipelineVersion:
    """A version of a pipeline on the server.

    Attributes:
        pipeline_id: the server's id of the pipeline.
        version_id: the server's id of the version.
        name: name of the version.
        uploaded: whether it was uploaded just now; False if the server had it already.
    """

    pipeline_id: str
    version_id: str
    name: str
    uploaded: bool


@dataclass(frozen=True)
class RunSpec:
    """What a run does, now or on a schedule.

    Attributes:
        name: name that Kubeflow's page shows.
        experiment_id: the server's id of the experiment.
        version: the pipeline's version.
        arguments: name to value.
        service_account: Kubernetes account of the run's pods; None for the installation's default.
        pipeline_root: address for artifacts, e.g. ``s3://cxr-kubeflow/runs``; None for the installation's default.
    """

    name: str
    experiment_id: str
    version: PipelineVersion
    arguments: Mapping[str, Any]
    service_account: str | None
    pipeline_root: str | None


class KubeflowCluster:
    """Kubeflow Pipelines on a cluster, in one namespace. Its methods raise ClusterError with an explanation.

    Attributes:
        namespace: namespace of everything; None for an installation without several users.
        pod_namespace: namespace in which the pods of runs are.
    """

    def __init__(self, settings: ConnectionSettings, namespace: str | None) -> None:
        """Connect and check that the server is Kubeflow Pipelines.

        Args:
            settings: address, token, certificates and time limits.
            namespace: namespace on an installation with several users; ignored by other installations.

        Raises:
            ClusterError: if no Kubeflow Pipelines responds.
            ParameterError: if the installation needs a namespace and none is set.
        """
        import kfp_server_api as api

        self._api = api
        self._connection = KubeflowConnection(settings)
        self._send = self._connection.send
        client = self._connection.client
        self._pipelines = api.PipelineServiceApi(client)
        self._uploads = api.PipelineUploadServiceApi(client)
        self._experiments = api.ExperimentServiceApi(client)
        self._runs = api.RunServiceApi(client)
        self._recurring_runs = api.RecurringRunServiceApi(client)
        healthz = api.HealthzServiceApi(client).healthz_service_get_healthz
        multi_user = self._send(healthz, purpose="answer", idempotent=True).multi_user
        if multi_user and not namespace:
            raise ParameterError(
                [f"expected a namespace, since {settings.host} has several users; received namespace=null; name yours"]
            )
        self.namespace = namespace if multi_user else None
        self.pod_namespace = self.namespace or STANDALONE_NAMESPACE
        self._lookup = ResourceLookup(self._connection, self.namespace)

    def page_url(self, kind: str, identity: str) -> str:
        """Address of Kubeflow's page about an object.

        Args:
            kind: ``"runs"``, ``"recurringrun"`` or ``"experiments"``.
            identity: the server's id.

        Returns:
            The address.
        """
        return f"{self._connection.settings.host}/#/{kind}/details/{identity}"

    def ensure_version(self, package: PipelinePackage, description: str) -> PipelineVersion:
        """Find the version with a package's content; upload it if there is none.

        Args:
            package: the compiled pipeline.
            description: shown with a new version.

        Returns:
            The version.
        """
        # The pipeline is created empty: uploading it with content would give its first version the pipeline's name.
        body = self._api.V2beta1Pipeline(display_name=package.name, name=package.name, namespace=self.namespace)
        create_pipeline = self._pipelines.pipeline_service_create_pipeline
        list_pipelines = self._pipelines.pipeline_service_list_pipelines
        list_versions = self._pipelines.pipeline_service_list_pipeline_versions
        pipeline, _ = self._find_or_create(
            lambda: self._lookup.find_one(list_pipelines, "pipelines", package.name, "pipeline"),
            lambda: self._send(create_pipeline, body, purpose=f"create pipeline={package.name!r}"),
        )
        version, uploaded = self._find_or_create(
            lambda: self._lookup.find_one(
                list_versions, "pipeline_versions", package.version, "version", pipeline.pipeline_id
            ),
            lambda: self._send(
                self._uploads.upload_pipeline_version,
                str(package.path),
                name=package.version,
                pipelineid=pipeline.pipeline_id,
                description=description,
                purpose=f"accept {package.path} as version {package.version} of {package.name}",
            ),
        )
        return PipelineVersion(pipeline.pipeline_id, version.pipeline_version_id, package.version, uploaded)

    def ensure_experiment(self, name: str) -> str:
        """Find an experiment or create it.

        Args:
            name: its name.

        Returns:
            The server's id.

        Raises:
            ClusterError: also if the experiment is archived.
        """
        body = self._api.V2beta1Experiment(display_name=name, namespace=self.namespace)
        create = self._experiments.experiment_service_create_experiment
        experiment, _ = self._find_or_create(
            lambda: self._experiment(name), lambda: self._send(create, body, purpose=f"create experiment={name!r}")
        )
        if experiment.storage_state == "ARCHIVED":
            raise ClusterError(
                f"expected an active experiment, received experiment={name!r}, which is archived; restore it in "
                "Kubeflow's page, or choose another name"
            )
        return str(experiment.experiment_id)

    def find_experiment(self, name: str) -> str | None:
        """The server's id of an experiment; None if there is none of that name."""
        experiment = self._experiment(name)
        return None if experiment is None else str(experiment.experiment_id)

    def start_run(self, spec: RunSpec) -> str:
        """Start a run.

        Args:
            spec: what it does.

        Returns:
            The server's id of the run.
        """
        body = self._api.V2beta1Run(display_name=spec.name, **self._body(spec))
        run = self._send(self._runs.run_service_create_run, body, purpose=f"start the run {spec.name!r}")
        return str(run.run_id)

    def get_run(self, run_id: str) -> dict[str, Any]:
        """Read a run by the server's id.

        Returns:
            The run with its tasks, as the API's JSON.
        """
        get = self._runs.run_service_get_run
        run = self._send(get, run_id, purpose=f"show the run {run_id}", idempotent=True)
        record: dict[str, Any] = self._connection.client.sanitize_for_serialization(run)
        return record

    def task_definitions(self, run: Mapping[str, Any]) -> tuple[TaskDefinition, ...]:
        """Read the tasks of a run's pipeline.

        Args:
            run: the run, from :meth:`get_run`.

        Returns:
            The tasks; empty if the server does not show the pipeline, for example because it was deleted.

        Raises:
            ServerUnavailableError: if the server may show it later.
        """
        if run.get("pipeline_spec"):
            return read_task_definitions(run["pipeline_spec"])
        reference = run.get("pipeline_version_reference") or {}
        try:
            version = self._send(
                self._pipelines.pipeline_service_get_pipeline_version,
                reference.get("pipeline_id", ""),
                reference.get("pipeline_version_id", ""),
                purpose="show the pipeline of a run",
                idempotent=True,
            )
        except ServerUnavailableError:
            raise
        except ClusterError:
            return ()
        return read_task_definitions(version.pipeline_spec or {})

    def read_log(self, run_id: str, pod: str) -> str:
        """Read the end of a pod's log, if the server has it.

        Kubeflow's page and its API have different addresses for it; both also look where logs are archived.

        Args:
            run_id: the server's id of the run.
            pod: name of the pod.

        Returns:
            The text; empty if it cannot be read.
        """
        query = {"podname": pod, "runid": run_id, "podnamespace": self.pod_namespace}
        path = f"/apis/v1alpha1/runs/{quote(run_id, safe='')}/nodes/{quote(pod, safe='')}/log"
        return self._connection.read_log("/k8s/pod/logs", query) or self._connection.read_log(path, {})

    def list_runs(self, count: int, *, experiment_id: str = "", recurring_run_id: str = "") -> list[Any]:
        """List the newest runs of an experiment or of a recurring run.

        Args:
            count: largest number of runs.
            experiment_id: the server's id of the experiment.
            recurring_run_id: the server's id of the recurring run.

        Returns:
            ``V2beta1Run``, the newest first.
        """
        conditions = self._lookup.filter_arguments({"recurring_run_id": recurring_run_id}) if recurring_run_id else {}
        if experiment_id:
            conditions["experiment_id"] = experiment_id
        response = self._send(
            self._runs.run_service_list_runs,
            **conditions,
            sort_by="created_at desc",
            page_size=count,
            purpose="list runs",
            idempotent=True,
        )
        return list(response.runs or ())

    def list_recurring_runs(self, name: str) -> list[Any]:
        """List the recurring runs with a name, which need not be unique.

        Returns:
            ``V2beta1RecurringRun``.
        """
        listing = self._recurring_runs.recurring_run_service_list_recurring_runs
        return self._lookup.find_all(listing, "recurring_runs", name, "schedule")

    def create_recurring_run(
        self, spec: RunSpec, cron: CronSchedule, *, enabled: bool, no_catchup: bool, max_concurrency: int
    ) -> Any:
        """Create a recurring run.

        Args:
            spec: what each of its runs does.
            cron: when they start.
            enabled: False creates it paused.
            no_catchup: whether missed dates are skipped.
            max_concurrency: largest number of its runs at the same time.

        Returns:
            The ``V2beta1RecurringRun``.
        """
        api = self._api
        body = api.V2beta1RecurringRun(
            display_name=spec.name,
            trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron.expression)),
            mode=api.RecurringRunMode.ENABLE if enabled else api.RecurringRunMode.DISABLE,
            no_catchup=no_catchup,
            max_concurrency=str(max_concurrency),
            namespace=self.namespace,
            **self._body(spec),
        )
        create = self._recurring_runs.recurring_run_service_create_recurring_run
        return self._send(create, body, purpose=f"create schedule={spec.name!r}")

    def delete_recurring_run(self, recurring_run_id: str) -> None:
        """Delete a recurring run by the server's id; a run that it has started goes on."""
        self._send(
            self._recurring_runs.recurring_run_service_delete_recurring_run,
            recurring_run_id,
            # By default Kubernetes ends what a deleted schedule has started.
            propagation_policy=self._api.V2beta1DeletePropagationPolicy.ORPHAN,
            purpose=f"delete the recurring run {recurring_run_id}",
        )

    def _experiment(self, name: str) -> Any:
        listing = self._experiments.experiment_service_list_experiments
        return self._lookup.find_one(listing, "experiments", name, "experiment")

    def _body(self, spec: RunSpec) -> dict[str, Any]:
        """Fields that runs and recurring runs have in common."""
        api = self._api
        return {
            "experiment_id": spec.experiment_id,
            "pipeline_version_reference": api.V2beta1PipelineVersionReference(
                pipeline_id=spec.version.pipeline_id, pipeline_version_id=spec.version.version_id
            ),
            "runtime_config": api.V2beta1RuntimeConfig(
                parameters=dict(spec.arguments), pipeline_root=spec.pipeline_root
            ),
            "service_account": spec.service_account,
        }

    def _find_or_create(self, find: Callable[[], Any], create: Callable[[], Any]) -> tuple[Any, bool]:
        """Find an object or create it; another process may create it in between. Also whether it was created here."""
        existing = find()
        if existing is None:
            try:
                return create(), True
            except NameTakenError:
                existing = find()
                if existing is None:
                    raise
        return existing, False
