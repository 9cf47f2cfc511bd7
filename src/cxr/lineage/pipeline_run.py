"""The outcome of a pipeline run on a cluster, read from Kubeflow's API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from cxr.errors import ParameterError

TOKEN_FILE = Path("/var/run/secrets/kubeflow/pipelines/token")
"""File in which a cluster with several users puts the token of a pod's service account."""
TIMEOUT_SECONDS = 10
FAILED_STATES = frozenset({"FAILED", "SYSTEM_ERROR", "CANCELED", "CANCELING"})


@dataclass(frozen=True)
class PipelineRun:
    """The outcome of a run.

    Attributes:
        run_id: Kubeflow's id of the run.
        name: its name on Kubeflow's page; empty if unknown.
        failed: name of each failed task to the reason that Kubeflow gives.
        problem: why the outcome is unknown; empty if the API answered.
    """

    run_id: str
    name: str
    failed: Mapping[str, str]
    problem: str = ""

    @classmethod
    def read(cls, api: str, run_id: str, token: Path = TOKEN_FILE) -> Self:
        """Read the outcome from Kubeflow's API.

        Args:
            api: address of the API, for example ``http://ml-pipeline.kubeflow:8888``.
            run_id: Kubeflow's id of the run.
            token: file with the token of the service account; may be missing.

        Returns:
            The outcome. If the API does not answer, :attr:`problem` says why: the report of a failure must not fail
            itself.

        Raises:
            ParameterError: if ``api`` is not an address.
        """
        if urlsplit(api).scheme not in {"http", "https"}:
            raise ParameterError([f"expected an address that begins with http:// or https://, received api={api!r}"])
        request = urllib.request.Request(f"{api.rstrip('/')}/apis/v2beta1/runs/{quote(run_id, safe='')}")
        if token.is_file():
            request.add_header("Authorization", f"Bearer {token.read_text().strip()}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                run = json.load(response)
        except (urllib.error.URLError, OSError, ValueError) as error:
            return cls(run_id, "", {}, f"{api} gave no information about the run ({error})")
        tasks = (run.get("run_details") or {}).get("task_details") or []
        return cls(run_id, str(run.get("display_name", "")), dict(_failed_tasks(tasks)))

    def sentence(self) -> str:
        """Say in a sentence how the run ended."""
        if self.problem:
            return f"run {self.run_id} has ended; {self.problem}; look at its page"
        if not self.failed:
            return f"run {self.run_id} has finished all its steps"
        tasks = "; ".join(f"{task}: {reason}" if reason else task for task, reason in self.failed.items())
        return (
            f"run {self.run_id} failed at {tasks}. The log of that task says what to do; outputs of earlier steps stay"
        )


def _failed_tasks(tasks: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Tasks that failed themselves, without the groups that failed because a task inside them did."""
    groups = {str(task.get("task_id")) for task in tasks if task.get("child_tasks")}
    for task in tasks:
        if task.get("state") in FAILED_STATES and str(task.get("task_id")) not in groups:
            error = task.get("error") or {}
            yield str(task.get("display_name") or task.get("task_id")), str(error.get("message", "")).strip()
