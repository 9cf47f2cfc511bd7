"""What this project asks of Kubeflow Pipelines: versions, experiments, runs and recurring runs, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cxr.errors import ClusterError, ParameterError
from cxr.kubeflow.api_errors import NameTakenError
from cxr.kubeflow.connection import Access, Connection
from cxr.kubeflow.cron import Cron
from cxr.kubeflow.listing import Names
from cxr.kubeflow.pipeline_package import Package
from cxr.kubeflow.run_spec import Version, Work


class Cluster:
    """Kubeflow Pipelines on a cluster, in one namespace."""

    def __init__(self, access: Access, namespace: str | None) -> None:
        """Make the first contact.

        Args:
            access: address, token, certificates and patience.
            namespace: namespace of an installation with several users; another installation has none to choose.

        Raises:
            ClusterError: if there is no Kubeflow Pipelines that answers.
            ParameterError: if the installation needs a namespace and there is none.
        """
        import kfp_server_api as api

        self._api = api
        self._connection = Connection(access)
        client = self._connection.client
        self._pipelines = api.PipelineServiceApi(client)
        self._uploads = api.PipelineUploadServiceApi(client)
        self._experiments = api.ExperimentServiceApi(client)
        self._runs = api.RunServiceApi(client)
        self._recurring = api.RecurringRunServiceApi(client)
        health = self._ask(api.HealthzServiceApi(client).healthz_service_get_healthz, doing="answer", again=True)
        if health.multi_user and not namespace:
            raise ParameterError(
                [f"expected a namespace, since {access.host} has several users; received namespace=null"]
            )
        self.namespace = namespace if health.multi_user else None
        self._names = Names(self._connection, self.namespace)

    def page(self, kind: str, identity: str) -> str:
        """Address of a page about something.

        Args:
            kind: ``"runs"``, ``"recurringrun"`` or ``"experiments"``.
            identity: the server's id.

        Returns:
            The address.
        """
        return f"{self._connection.access.host}/#/{kind}/details/{identity}"

    def version(self, package: Package, description: str) -> Version:
        """Find the version with a package's content; upload it if there is none.

        Args:
            package: the compiled pipeline.
            description: shown with a new version.

        Returns:
            The version.

        Raises:
            ClusterError: in plain words.
        """
        # Uploading a pipeline would name its first version as the pipeline: it is made empty.
        body = self._api.V2beta1Pipeline(display_name=package.name, name=package.name, namespace=self.namespace)
        pipeline = self._ensured(
            lambda: self._names.one(
                self._pipelines.pipeline_service_list_pipelines, "pipelines", package.name, "pipeline"
            ),
            lambda: self._ask(
                self._pipelines.pipeline_service_create_pipeline, body, doing=f"make pipeline={package.name!r}"
            ),
        )
        uploads: list[Any] = []

        def upload() -> Any:
            uploads.append(
                self._ask(
                    self._uploads.upload_pipeline_version,
                    str(package.path),
                    name=package.version,
                    pipelineid=pipeline.pipeline_id,
                    description=description,
                    doing=f"take {package.path} as version {package.version} of {package.name}",
                )
            )
            return uploads[0]

        version = self._ensured(
            lambda: self._names.one(
                self._pipelines.pipeline_service_list_pipeline_versions,
                "pipeline_versions",
                package.version,
                "version",
                pipeline.pipeline_id,
            ),
            upload,
        )
        return Version(pipeline.pipeline_id, version.pipeline_version_id, package.version, uploaded=bool(uploads))

    def experiment(self, name: str) -> str:
        """Find an experiment, or make it.

        Args:
            name: its name.

        Returns:
            The server's id.

        Raises:
            ClusterError: in plain words, also if it is archived.
        """
        body = self._api.V2beta1Experiment(display_name=name, namespace=self.namespace)
        create = self._experiments.experiment_service_create_experiment
        found = self._ensured(
            lambda: self._experiment(name), lambda: self._ask(create, body, doing=f"make experiment={name!r}")
        )
        if found.storage_state == "ARCHIVED":
            raise ClusterError(
                f"expected an active experiment, received experiment={name!r}, which is archived; restore it in "
                "Kubeflow's page, or choose another name"
            )
        return str(found.experiment_id)

    def start(self, work: Work) -> str:
        """Start a run.

        Args:
            work: what it does.

        Returns:
            The server's id of the run.

        Raises:
            ClusterError: in plain words.
        """
        body = self._api.V2beta1Run(display_name=work.name, **self._body(work))
        made = self._ask(self._runs.run_service_create_run, body, doing=f"start the run {work.name!r}")
        return str(made.run_id)

    def run(self, run_id: str) -> Any:
        """Look at a run.

        Args:
            run_id: the server's id.

        Returns:
            A ``V2beta1Run`` with its tasks.

        Raises:
            ClusterError: in plain words.
        """
        return self._ask(self._runs.run_service_get_run, run_id, doing=f"show the run {run_id}", again=True)

    def runs(self, number: int, *, experiment_id: str = "", recurring_run_id: str = "") -> list[Any]:
        """List the newest runs of an experiment, or of a recurring run.

        Args:
            number: how many at most.
            experiment_id: the server's id of the experiment.
            recurring_run_id: the server's id of the recurring run.

        Returns:
            ``V2beta1Run``, the newest first.

        Raises:
            ClusterError: in plain words.
        """
        where = self._names.where({"recurring_run_id": recurring_run_id}) if recurring_run_id else {}
        if experiment_id:
            where["experiment_id"] = experiment_id
        listing = self._runs.run_service_list_runs
        answer = self._ask(listing, **where, sort_by="created_at desc", page_size=number, doing="list runs", again=True)
        return list(answer.runs or ())

    def experiment_id(self, name: str) -> str | None:
        """Find an experiment without making it.

        Args:
            name: its name.

        Returns:
            The server's id, or None.

        Raises:
            ClusterError: in plain words.
        """
        found = self._experiment(name)
        return None if found is None else str(found.experiment_id)

    def recurring(self, name: str) -> list[Any]:
        """List the recurring runs of a name; the name need not be unique.

        Args:
            name: their name.

        Returns:
            ``V2beta1RecurringRun``.

        Raises:
            ClusterError: in plain words.
        """
        listing = self._recurring.recurring_run_service_list_recurring_runs
        return self._names.all(listing, "recurring_runs", name, "schedule")

    def schedule(self, work: Work, cron: Cron, *, enabled: bool, no_catchup: bool, max_concurrency: int) -> Any:
        """Make a recurring run.

        Args:
            work: what each of its runs does.
            cron: when.
            enabled: False makes it paused.
            no_catchup: whether dates that were missed are left out.
            max_concurrency: how many of its runs may go on at once.

        Returns:
            The ``V2beta1RecurringRun``.

        Raises:
            ClusterError: in plain words.
        """
        api = self._api
        body = api.V2beta1RecurringRun(
            display_name=work.name,
            trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron.text)),
            mode=api.RecurringRunMode.ENABLE if enabled else api.RecurringRunMode.DISABLE,
            no_catchup=no_catchup,
            max_concurrency=str(max_concurrency),
            namespace=self.namespace,
            **self._body(work),
        )
        create = self._recurring.recurring_run_service_create_recurring_run
        return self._ask(create, body, doing=f"make schedule={work.name!r}")

    def unschedule(self, recurring_run_id: str) -> None:
        """Delete a recurring run; a run of it that is going on goes on.

        Args:
            recurring_run_id: the server's id.

        Raises:
            ClusterError: in plain words.
        """
        self._ask(
            self._recurring.recurring_run_service_delete_recurring_run,
            recurring_run_id,
            # By default Kubernetes ends what a deleted schedule has started.
            propagation_policy=self._api.V2beta1DeletePropagationPolicy.ORPHAN,
            doing=f"delete the recurring run {recurring_run_id}",
        )

    def _experiment(self, name: str) -> Any:
        listing = self._experiments.experiment_service_list_experiments
        return self._names.one(listing, "experiments", name, "experiment")

    def _body(self, work: Work) -> dict[str, Any]:
        """Fields that runs and recurring runs have in common."""
        api = self._api
        return {
            "experiment_id": work.experiment_id,
            "pipeline_version_reference": api.V2beta1PipelineVersionReference(
                pipeline_id=work.version.pipeline_id, pipeline_version_id=work.version.version_id
            ),
            "runtime_config": api.V2beta1RuntimeConfig(
                parameters=dict(work.arguments), pipeline_root=work.pipeline_root
            ),
            "service_account": work.service_account,
        }

    def _ensured(self, find: Callable[[], Any], make: Callable[[], Any]) -> Any:
        """Find something, or make it; another process may be faster."""
        found = find()
        if found is not None:
            return found
        try:
            return make()
        except NameTakenError:
            found = find()
            if found is None:
                raise
            return found

    def _ask(self, request: Callable[..., Any], *arguments: Any, doing: str, again: bool = False, **named: Any) -> Any:
        return self._connection.ask(request, *arguments, doing=doing, again=again, **named)
