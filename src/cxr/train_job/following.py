"""Runs a TrainJob to its end: creates it, shows its progress, reports why it failed, and deletes it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cxr.errors import ClusterError, TrainingError
from cxr.train_job.api_server import ApiServer, ServerOutageError
from cxr.train_job.manifest import API_VERSION, NODE

log = logging.getLogger(__name__)

OUTAGE_SECONDS = 600.0
"""Time for which the API server may be unavailable: the training does not need it."""
JOB_LABEL = "jobset.sigs.k8s.io/jobset-name"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Labels of the pods of a TrainJob: its name, and the number of the process."""
MAX_ERROR_LINES = 10


def run_train_job(server: ApiServer, manifest: Mapping[str, Any], interval: float) -> None:
    """Run a TrainJob and delete it at the end, also when this process is asked to stop.

    If the job is there already, an earlier try of the same task was killed without deleting it. It is followed. If it
    has failed, it is deleted first, and a new one goes on after the last finished epoch.

    Args:
        server: the API server.
        manifest: the TrainJob.
        interval: seconds between two looks.

    Raises:
        TrainingError: if the job fails or disappears, with the reason and the errors of its processes.
        ClusterError: if the API server refuses a request, or stays unavailable.
    """
    run = _TrainJobRun(server, manifest)
    last_answer = time.monotonic()
    try:
        while True:
            try:
                if run.advance():
                    return
                last_answer = time.monotonic()
            except ServerOutageError as error:
                if time.monotonic() - last_answer > OUTAGE_SECONDS:
                    raise
                log.warning("%s; the training goes on, and so does this task", error)
            time.sleep(interval)
    finally:
        run.delete()


class _TrainJobRun:
    """A TrainJob and what was shown of it so far."""

    def __init__(self, server: ApiServer, manifest: Mapping[str, Any]) -> None:
        self._server = server
        self._manifest = manifest
        self._name = manifest["metadata"]["name"]
        self._jobs = f"/apis/{API_VERSION}/namespaces/{server.namespace}/trainjobs"
        self._is_own = False
        """Whether the job that is there was created or accepted by this process."""
        self._may_exist = False
        self._progress = ""
        self._lines_shown: Counter[str] = Counter()

    def advance(self) -> bool:
        """Look at the job once, create it if it is not there, and show what is new.

        Returns:
            Whether it is complete.
        """
        job = self._server.find(f"{self._jobs}/{self._name}")
        if job is None:
            if self._is_own:
                raise TrainingError(
                    f"expected TrainJob {self._name} to run to its end, but somebody deleted it; start the task again: "
                    "training goes on after the last finished epoch"
                )
            self._may_exist = True  # even if the answer gets lost
            self._server.create(self._jobs, self._manifest)
            self._is_own = True
            log.info("TrainJob %s: created, %d nodes", self._name, self._manifest["spec"]["trainer"]["numNodes"])
            return False
        self._may_exist = True
        if not self._is_own:
            if "deletionTimestamp" in job["metadata"]:
                return False
            if _condition(job, "Failed"):
                log.info("TrainJob %s: an earlier try has failed; it is made anew", self._name)
                self._server.delete(f"{self._jobs}/{self._name}")
                return False
            self._is_own = True
        pods = self._find_pods()
        self._show_progress(pods)
        failure = _condition(job, "Failed")
        if failure is not None:
            raise TrainingError("\n".join(self._describe_failure(failure, pods)))
        return _condition(job, "Complete") is not None

    def delete(self) -> None:
        """Delete the job; a failure is only reported, because the training has ended or is to be given up."""
        if not self._may_exist:
            return
        try:
            self._server.delete(f"{self._jobs}/{self._name}")
        except ClusterError as error:
            log.warning("%s; delete it: kubectl -n %s delete trainjob %s", error, self._server.namespace, self._name)

    def _find_pods(self) -> list[dict[str, Any]]:
        """Pods of the job, the newest last."""
        path = f"/api/v1/namespaces/{self._server.namespace}/pods?labelSelector={JOB_LABEL}%3D{self._name}"
        pods: list[dict[str, Any]] = (self._server.find(path) or {}).get("items", [])
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def _show_progress(self, pods: Sequence[Mapping[str, Any]]) -> None:
        """Log the phases of the pods if they have changed, and the new lines of the first process."""
        phases = Counter(str(pod["status"].get("phase", "Unknown")) for pod in pods)
        progress = ", ".join(f"{count} {phase.lower()}" for phase, count in sorted(phases.items()))
        if progress != self._progress:
            self._progress = progress
            log.info("TrainJob %s: pods: %s", self._name, progress)
        first = [pod["metadata"] for pod in pods if pod["metadata"].get("labels", {}).get(INDEX_LABEL) == "0"]
        if first:
            name = str(first[-1]["name"])
            lines = self._server.read_log(name, NODE)
            for line in lines[self._lines_shown[name] :]:
                log.info("process 0: %s", line)
            self._lines_shown[name] = max(self._lines_shown[name], len(lines))

    def _describe_failure(self, condition: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> list[str]:
        """The Trainer's reason, and the last errors of the processes that failed."""
        lines = [
            f"expected TrainJob {self._name} to complete, received {condition.get('reason')}: "
            f"{condition.get('message')}"
        ]
        for pod in pods:
            if pod["status"].get("phase") == "Failed":
                name = str(pod["metadata"]["name"])
                written = self._server.read_log(name, NODE)
                own = [line for line in written if line.startswith("cxr ")]
                lines += [f"{name}: {line}" for line in (own or written)[-MAX_ERROR_LINES:]]
        return lines


def _condition(job: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The condition of a job with this type, if it is true."""
    conditions: Sequence[Mapping[str, Any]] = (job.get("status") or {}).get("conditions") or ()
    return next((entry for entry in conditions if entry["type"] == kind and entry["status"] == "True"), None)
