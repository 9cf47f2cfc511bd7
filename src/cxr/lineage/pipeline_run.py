"""A run of the pipeline on a cluster, as Kubeflow's API tells it."""

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

TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where a cluster with several users puts the token of a pod's service account."""
SECONDS = 10
"""How long the API may take to answer."""
FAILED = frozenset({"FAILED", "SYSTEM_ERROR", "CANCELED", "CANCELING"})


@dataclass(frozen=True)
class PipelineRun:
    """How a run went.

    Attributes:
        run_id: Kubeflow's id of the run.
        name: its name on Kubeflow's page; empty where unknown.
        failed: task to the reason that Kubeflow gives, for each task that failed.
        problem: why the API could not be asked; empty if it answered.
    """

    run_id: str
    name: str
    failed: Mapping[str, str]
    problem: str = ""

    @classmethod
    def read(cls, api: str, run_id: str, token: Path = TOKEN) -> Self:
        """Ask Kubeflow's API.

        Args:
            api: its address, e.g. ``http://ml-pipeline.kubeflow:8888``.
            run_id: Kubeflow's id of the run.
            token: file with the token of the service account; may be missing.

        Returns:
            The run; with :attr:`problem` if the API doesn't answer: a report on a failure must not fail for it.

        Raises:
            ParameterError: if the address is none.
        """
        if urlsplit(api).scheme not in {"http", "https"}:
            raise ParameterError([f"expected an address that begins with http:// or https://, received api={api!r}"])
        request = urllib.request.Request(f"{api.rstrip('/')}/apis/v2beta1/runs/{quote(run_id, safe='')}")
        if token.is_file():
            request.add_header("Authorization", f"Bearer {token.read_text().strip()}")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                told = json.load(answer)
        except (urllib.error.URLError, OSError, ValueError) as error:
            return cls(run_id, "", {}, f"{api} did not tell how the run went ({error})")
        tasks = (told.get("run_details") or {}).get("task_details") or []
        return cls(run_id, str(told.get("display_name", "")), dict(_failed(tasks)))

    def sentence(self) -> str:
        """Say how the run went.

        Returns:
            One sentence.
        """
        if self.problem:
            return f"run {self.run_id} has ended; {self.problem}; look at its page"
        if not self.failed:
            return f"run {self.run_id} has done all its steps"
        told = "; ".join(f"{task}: {why}" if why else task for task, why in self.failed.items())
        return (
            f"run {self.run_id} failed at {told}. The log of that task says what to do; what was made before it stays"
        )


def _failed(tasks: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Tasks that failed by themselves, and not because one inside them did."""
    groups = {str(task.get("task_id")) for task in tasks if task.get("child_tasks")}
    for task in tasks:
        if task.get("state") in FAILED and str(task.get("task_id")) not in groups:
            error = task.get("error") or {}
            yield str(task.get("display_name") or task.get("task_id")), str(error.get("message", "")).strip()
