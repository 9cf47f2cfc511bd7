"""Following a run to its end, with a line for each change of a task."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from cxr.errors import ClusterError
from cxr.kubeflow.api_errors import NoContactError
from cxr.kubeflow.cluster import Cluster

log = logging.getLogger(__name__)

ENDED = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
PATIENCE = 600.0
"""Seconds for which the server may be away while a run is followed: the run does not need it."""


def follow(cluster: Cluster, run_id: str, seconds: float, show: Callable[[str], None]) -> None:
    """Watch a run until it ends.

    Args:
        cluster: where it runs.
        run_id: the server's id.
        seconds: pause between two looks.
        show: takes each line.

    Raises:
        ClusterError: if it does not succeed, naming the tasks that failed; or if the server stays away.
    """
    show("following the run; it goes on if this command is interrupted")
    told: dict[str, str] = {}
    heard = time.monotonic()
    while True:
        try:
            run = cluster.run(run_id)
        except NoContactError as error:
            if time.monotonic() - heard > PATIENCE:
                raise
            log.warning("%s; the run goes on, and so does this command", error)
            time.sleep(seconds)
            continue
        heard = time.monotonic()
        for task in tasks(run):
            if told.get(task.task_id) != task.state:
                told[task.task_id] = task.state
                show(f"  {task.display_name}: {task.state.lower()}{_took(task)}")
        if run.state in ENDED:
            break
        time.sleep(seconds)
    if run.state != "SUCCEEDED":
        raise ClusterError(failure(run))
    show(f"run {run_id} succeeded{_took(run)}")


def tasks(run: Any) -> list[Any]:
    """Tasks of a run as its author knows them.

    Args:
        run: a ``V2beta1Run``.

    Returns:
        Its tasks with a state, in the order in which they began, without the whole and without Kubeflow's helpers.
    """
    every = (run.run_details.task_details if run.run_details else None) or []
    own = [task for task in every if task.state and not _helper(task)]
    return sorted(own, key=lambda task: str(task.start_time or task.create_time or ""))


def failure(run: Any) -> str:
    """Say why a run did not succeed.

    Args:
        run: a ``V2beta1Run`` that has ended.

    Returns:
        A sentence for the run, and a line for each task that failed by itself.
    """
    every = (run.run_details.task_details if run.run_details else None) or []
    failed = [task for task in every if task.state == "FAILED"]
    above = {task.parent_task_id for task in failed}
    # What holds a failed task fails with it: the innermost ones are those to look at.
    culprits = [task for task in failed if task.task_id not in above and task.display_name != "root"]
    names = ", ".join(dict.fromkeys(task.display_name for task in culprits)) or "no task told"
    lines = [f"expected run={run.run_id} to succeed, received state={run.state}: {names}"]
    lines += [f"{task.display_name}: {_words(task.error)}" for task in culprits if _words(task.error)]
    if _words(run.error):
        lines.append(_words(run.error))
    return "\n".join([*lines, "read the task's log in Kubeflow's page, then submit again: what succeeded is cached"])


def _helper(task: Any) -> bool:
    """Whether a task is the whole run, or one that Kubeflow puts before or around the author's."""
    name = task.display_name or ""
    return name in {"root", "executor"} or name.endswith("-driver")


def _words(error: Any) -> str:
    return (error.message or "").strip() if error else ""


def _took(one: Any) -> str:
    begun = getattr(one, "start_time", None) or getattr(one, "created_at", None)
    ended = getattr(one, "end_time", None) or getattr(one, "finished_at", None)
    return f" after {(ended - begun).total_seconds():.0f} s" if begun and ended and ended >= begun else ""
