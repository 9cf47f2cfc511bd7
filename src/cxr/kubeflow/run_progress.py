"""Follows a run to its end, with a line for each change of a task, and says where and why a run failed."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cxr.errors import ClusterError
from cxr.kubeflow.api_errors import ServerUnavailableError
from cxr.kubeflow.cluster import KubeflowCluster
from cxr.lineage.pipeline_tasks import FAILED_STATES, TaskDefinition, TaskStatus, failed_tasks, read_task_statuses

log = logging.getLogger(__name__)

FINAL_STATES = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
OUTAGE_TIMEOUT = 600.0
"""Seconds for which the server may be unavailable while a run is followed: the run does not need it."""
VOLUME_PATIENCE = 60.0
"""Seconds that a volume may take to be created or deleted before its task is shown."""
QUIET_PATIENCE = 900.0
"""Seconds without a change after which it is said what a run may wait for."""
MAX_ERROR_LINES = 10
CXR_LINE = re.compile(r"cxr [\w ]+: ")
"""Beginning of the lines of an error of this project."""
FATAL_LINE = re.compile(r"F\d{4} \S+ +\d+ \S+\] (.+)")
"""The last line of Kubeflow's driver or launcher, when it fails; the group is the message."""
EXCEPTION_LINE = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt)\b.*")
ERROR_LINES_PATTERN = "] (cxr |F[0-9]{4} )"
"""Pattern for ``grep -E`` of the same lines, where ``kubectl logs --prefix`` ends a pod's name with a bracket."""


def follow_run(cluster: KubeflowCluster, run_id: str, interval: float, show: Callable[[str], None]) -> None:
    """Follow a run until it ends.

    Args:
        cluster: where it runs.
        run_id: the server's id.
        interval: seconds between two requests.
        show: called with each line.

    Raises:
        ClusterError: if the run does not succeed, with the task that failed first; or if the server stays unavailable.
    """
    show("following the run; it continues if this command is interrupted")
    shown_lines: dict[str, str] = {}
    definitions: tuple[TaskDefinition, ...] | None = None
    last_response = last_change = time.monotonic()
    while True:
        try:
            run = cluster.get_run(run_id)
            if definitions is None:
                definitions = cluster.task_definitions(run)
        except ServerUnavailableError as error:
            if time.monotonic() - last_response > OUTAGE_TIMEOUT:
                raise
            log.warning("%s; the run continues, and so does this command", error)
            time.sleep(interval)
            continue
        last_response = time.monotonic()
        for status in visible_tasks(run, definitions):
            line = describe_task(status)
            if shown_lines.get(status.definition.key) != line:
                shown_lines[status.definition.key] = line
                last_change = last_response
                show(f"  {line}")
        if run.get("state") in FINAL_STATES:
            break
        if last_response - last_change > QUIET_PATIENCE:
            last_change = math.inf
            show(
                f"  no change for {QUIET_PATIENCE / 60:.0f} minutes: a long training, or a pod waits for a node, a "
                f"volume or an image: kubectl -n {cluster.pod_namespace} get pods,pvc; containers.hours ends the run"
            )
        time.sleep(interval)
    if run["state"] != "SUCCEEDED":
        raise ClusterError("\n".join(describe_failure(cluster, run, definitions)))
    show(f"run {run_id} succeeded{_format_duration(_moment(run, 'created_at'), _moment(run, 'finished_at'))}")


def visible_tasks(run: Mapping[str, Any], definitions: Sequence[TaskDefinition]) -> list[TaskStatus]:
    """Tasks of a run that its author wants to see.

    Args:
        run: the run, as the API's JSON.
        definitions: tasks of its pipeline; empty if unknown.

    Returns:
        The steps that have begun, in the order in which they started. Kubeflow's own tasks are among them only if
        they failed or take long.
    """
    return [status for status in _task_statuses(run, definitions) if not _is_unremarkable(status)]


def describe_task(status: TaskStatus) -> str:
    """Describe how far a task is.

    Args:
        status: the task.

    Returns:
        For example ``"train plain_cnn: succeeded after 90 s"``.
    """
    if status.cached:
        return f"{status.name}: taken from the cache"
    if status.state == "RUNNING" and status.tries > 1:
        retries = status.definition.retries
        return f"{status.name}: trying again (try {status.tries}{f' of {retries + 1}' if retries else ''})"
    if status.state == "SKIPPED":
        return f"{status.name}: skipped"
    tries = f" in try {status.tries}" if status.tries > 1 else ""
    return f"{status.name}: {status.state.lower()}{tries}{_format_duration(status.start, status.end)}"


def describe_failure(
    cluster: KubeflowCluster, run: Mapping[str, Any], definitions: Sequence[TaskDefinition]
) -> list[str]:
    """Explain why a run did not succeed.

    Args:
        cluster: where it ran.
        run: the run, which has ended, as the API's JSON.
        definitions: tasks of its pipeline; empty if unknown.

    Returns:
        Lines: the task that failed first, the error in its log if the server has it, and the command that shows the
        log.
    """
    run_id = str(run["run_id"])
    headline, *commands = locate_failure(cluster, run, definitions)
    failed = failed_tasks(_task_statuses(run, definitions))
    reasons = error_lines(cluster.read_log(run_id, failed[0].pod)) if failed and failed[0].pod else []
    message = (run.get("error") or {}).get("message")
    return [
        f"expected run={run_id} to succeed, received state={run['state']}: {headline}",
        *([str(message).strip()] if message else []),
        *reasons,
        *commands,
        "submit again when it is repaired: steps that succeeded are taken from the cache",
    ]


def locate_failure(
    cluster: KubeflowCluster, run: Mapping[str, Any], definitions: Sequence[TaskDefinition]
) -> list[str]:
    """Say where a run failed.

    Args:
        cluster: where it ran.
        run: the run, which did not succeed, as the API's JSON.
        definitions: tasks of its pipeline; empty if unknown.

    Returns:
        A line with the task that failed first, and lines with the commands that show more.
    """
    namespace, run_id = cluster.pod_namespace, run["run_id"]
    failed = failed_tasks(_task_statuses(run, definitions))
    all_errors = (
        f"kubectl -n {namespace} logs -l pipeline/runid={run_id} -c main --prefix --tail=-1 "
        f"| grep -E '{ERROR_LINES_PATTERN}'"
    )
    if failed:
        cause = " before it started: Kubeflow could not prepare it" if failed[0].driver_failed else ""
        command = f"kubectl -n {namespace} logs {failed[0].pod} -c main" if failed[0].pod else all_errors
        return [f"{failed[0].name} failed{cause}", f"log: {command}"]
    return [
        "failed; Kubeflow does not say where",
        f"pods that failed: kubectl -n {namespace} get pods -l pipeline/runid={run_id} "
        "--field-selector status.phase=Failed",
        f"their errors: {all_errors}",
        "if the list of tasks stopped long before the end, the run's record passed Argo's limit of 1 MB: train fewer "
        "models in one run (--models)",
    ]


def error_lines(text: str) -> list[str]:
    """Find the error in the log of a step or of Kubeflow.

    Args:
        text: the log.

    Returns:
        The last error of this project; or else the last exception; or else the last fatal error of Kubeflow's driver
        or launcher; empty if there is none.
    """
    lines = [line.rstrip() for line in text.splitlines()]
    own_lines = [line for line in lines if CXR_LINE.match(line)]
    if own_lines:
        return own_lines[:MAX_ERROR_LINES]
    exceptions = [line for line in lines if EXCEPTION_LINE.fullmatch(line)]
    fatal = [match[1] for line in lines if (match := FATAL_LINE.match(line))]
    return exceptions[-1:] or fatal[-1:]


def _task_statuses(run: Mapping[str, Any], definitions: Sequence[TaskDefinition]) -> tuple[TaskStatus, ...]:
    return read_task_statuses((run.get("run_details") or {}).get("task_details") or (), definitions)


def _is_unremarkable(status: TaskStatus) -> bool:
    """Whether a task is Kubeflow's own, and neither failed nor takes long."""
    if status.definition.kind != "volume" or status.state in FAILED_STATES:
        return False
    if status.end is not None or status.start is None:
        return True
    return (datetime.now(UTC) - status.start).total_seconds() < VOLUME_PATIENCE


def _moment(run: Mapping[str, Any], field: str) -> datetime | None:
    return datetime.fromisoformat(run[field]) if run.get(field) else None


def _format_duration(start: datetime | None, end: datetime | None) -> str:
    return f" after {(end - start).total_seconds():.0f} s" if start and end and end >= start else ""
