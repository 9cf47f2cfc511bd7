"""Follows a run to its end, with a line for each change of a task's state."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from cxr.errors import ClusterError
from cxr.kubeflow.api_errors import ServerUnavailableError
from cxr.kubeflow.cluster import KubeflowCluster

log = logging.getLogger(__name__)

FINAL_STATES = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
OUTAGE_TIMEOUT = 600.0
"""Seconds for which the server may be unavailable while a run is followed: the run does not need it."""


def follow_run(cluster: KubeflowCluster, run_id: str, interval: float, show: Callable[[str], None]) -> None:
    """Follow a run until it ends.

    Args:
        cluster: where it runs.
        run_id: the server's id.
        interval: seconds between two requests.
        show: called with each line.

    Raises:
        ClusterError: if the run does not succeed, with the tasks that failed; or if the server stays unavailable.
    """
    show("following the run; it continues if this command is interrupted")
    shown_states: dict[str, str] = {}
    last_response = time.monotonic()
    while True:
        try:
            run = cluster.get_run(run_id)
        except ServerUnavailableError as error:
            if time.monotonic() - last_response > OUTAGE_TIMEOUT:
                raise
            log.warning("%s; the run continues, and so does this command", error)
            time.sleep(interval)
            continue
        last_response = time.monotonic()
        for task in visible_tasks(run):
            if shown_states.get(task.task_id) != task.state:
                shown_states[task.task_id] = task.state
                duration = _format_duration(task.start_time, task.end_time)
                show(f"  {task.display_name}: {task.state.lower()}{duration}")
        if run.state in FINAL_STATES:
            break
        time.sleep(interval)
    if run.state != "SUCCEEDED":
        raise ClusterError(describe_failure(run))
    show(f"run {run_id} succeeded{_format_duration(run.created_at, run.finished_at)}")


def visible_tasks(run: Any) -> list[Any]:
    """Tasks of a run that its author knows.

    Args:
        run: a ``V2beta1Run``.

    Returns:
        Its tasks with a state, in the order in which they started, without the task for the whole run and without
        Kubeflow's helpers.
    """
    own_tasks = [task for task in _all_tasks(run) if task.state and not _is_helper(task)]
    return sorted(own_tasks, key=lambda task: str(task.start_time or task.create_time or ""))


def describe_failure(run: Any) -> str:
    """Explain why a run did not succeed.

    Args:
        run: a ``V2beta1Run`` that has ended.

    Returns:
        A sentence for the run, and a line for each task that failed by itself.
    """
    failed = [task for task in _all_tasks(run) if task.state == "FAILED"]
    parents = {task.parent_task_id for task in failed}
    # The parents of a failed task fail with it, so the innermost tasks are the causes.
    causes = [task for task in failed if task.task_id not in parents and task.display_name != "root"]
    names = ", ".join(dict.fromkeys(task.display_name for task in causes)) or "no task reported"
    lines = [f"expected run={run.run_id} to succeed, received state={run.state}: {names}"]
    lines += [f"{task.display_name}: {_error_message(task)}" for task in causes if _error_message(task)]
    if _error_message(run):
        lines.append(_error_message(run))
    return "\n".join(
        [*lines, "read the task's log in Kubeflow's page, then submit again: steps that succeeded are cached"]
    )


def _all_tasks(run: Any) -> list[Any]:
    return (run.run_details.task_details if run.run_details else None) or []


def _is_helper(task: Any) -> bool:
    """Whether a task is the whole run, or one that Kubeflow puts before or around the author's tasks."""
    name = task.display_name or ""
    return name in {"root", "executor"} or name.endswith("-driver")


def _error_message(task_or_run: Any) -> str:
    return (task_or_run.error.message or "").strip() if task_or_run.error else ""


def _format_duration(start: Any, end: Any) -> str:
    return f" after {(end - start).total_seconds():.0f} s" if start and end and end >= start else ""
