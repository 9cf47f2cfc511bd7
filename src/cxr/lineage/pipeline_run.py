"""The outcome of a pipeline run on a cluster, asked of Kubeflow inside the run's last task."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit

from cxr.errors import ParameterError
from cxr.lineage.pipeline_tasks import (
    FAILED_STATES,
    SUCCEEDED_STATES,
    TaskDefinition,
    all_succeeded,
    failed_tasks,
    read_task_definitions,
    read_task_statuses,
)

TOKEN_FILE = Path("/var/run/secrets/kubeflow/pipelines/token")
"""File in which a cluster with several users puts the token of a pod's service account."""
TIMEOUT_SECONDS = 10
RunOutcome = Literal["succeeded", "failed", "unknown"]


@dataclass(frozen=True)
class PipelineRun:
    """The outcome of a run.

    Attributes:
        run_id: Kubeflow's id of the run.
        name: its name on Kubeflow's page; empty if unknown.
        outcome: how it ended. It is unknown unless Kubeflow says so: a false success is worse than none.
        failed: names of the tasks that failed, the first one first; empty if none did, or Kubeflow does not say where.
        reason: what Kubeflow says about the failure; usually empty.
        problem: why the tasks are unknown; empty if the API answered.
    """

    run_id: str
    name: str
    outcome: RunOutcome
    failed: tuple[str, ...] = ()
    reason: str = ""
    problem: str = ""

    @classmethod
    def read(cls, run_id: str, *, api: str | None, final_status: str | None = None, token: Path = TOKEN_FILE) -> Self:
        """Read the outcome: from what Kubeflow passed to the last task, and from its API.

        The API knows which task failed, but its record of a large run may have stopped long before the end. So it
        never turns a failure into a success.

        Args:
            run_id: Kubeflow's id of the run.
            api: address of the API, for example ``http://ml-pipeline.kubeflow:8888``; None asks nobody.
            final_status: status of the tasks before, as JSON (``PipelineTaskFinalStatus``); None if there is none.
            token: file with the token of the service account; may be missing.

        Returns:
            The outcome. If the API does not answer, :attr:`problem` says why: the report of a failure must not fail
            itself.

        Raises:
            ParameterError: if ``api`` is not an address.
        """
        outcome, reason = _read_final_status(final_status)
        if api is None:
            return cls(run_id, "", outcome, reason=reason, problem="nobody was asked for its tasks: api is null")
        if urlsplit(api).scheme not in {"http", "https"}:
            raise ParameterError([f"expected an address that begins with http:// or https://, received api={api!r}"])
        root = f"{api.rstrip('/')}/apis/v2beta1"
        try:
            run = _get(f"{root}/runs/{quote(run_id, safe='')}", token)
        except (urllib.error.URLError, OSError, ValueError) as error:
            return cls(run_id, "", outcome, reason=reason, problem=f"{api} gave no information about it ({error})")
        definitions = _read_definitions(root, run, token)
        statuses = read_task_statuses((run.get("run_details") or {}).get("task_details") or (), definitions)
        failed = tuple(status.name for status in failed_tasks(statuses))
        if failed or run.get("state") in FAILED_STATES:
            outcome = "failed"
        elif outcome == "unknown" and all_succeeded(statuses, definitions):
            outcome = "succeeded"
        return cls(run_id, str(run.get("display_name", "")), outcome, failed, reason)

    def sentence(self) -> str:
        """Say in a sentence how the run ended."""
        details = f" ({self.reason})" if self.reason else ""
        problem = f"; {self.problem}" if self.problem else ""
        if self.outcome == "succeeded":
            return f"run {self.run_id} has finished all its steps"
        if self.outcome == "unknown":
            return f"run {self.run_id} has ended, Kubeflow does not say how{problem}; look at its page"
        if not self.failed:
            return f"run {self.run_id} failed; Kubeflow does not say where{details}{problem}; see the logs of its pods"
        return (
            f"run {self.run_id} failed at {', '.join(self.failed)}{details}. The log of that task says what to do; "
            "outputs of earlier steps stay"
        )


def _read_final_status(text: str | None) -> tuple[RunOutcome, str]:
    """Outcome and message of ``PipelineTaskFinalStatus``; a state that is no end, such as RUNNING, is unknown."""
    try:
        status = json.loads(text or "null")
    except ValueError:
        return "unknown", ""
    if not isinstance(status, Mapping):
        return "unknown", ""
    state = str(status.get("state") or "").upper()
    error = status.get("error")
    message = str(error.get("message") or "").strip() if isinstance(error, Mapping) else ""
    if state in FAILED_STATES:
        return "failed", message
    return ("succeeded" if state in SUCCEEDED_STATES else "unknown"), message


def _read_definitions(root: str, run: Mapping[str, Any], token: Path) -> tuple[TaskDefinition, ...]:
    """Tasks of the run's pipeline, for their display names; empty if the API does not show the pipeline."""
    if run.get("pipeline_spec"):
        return read_task_definitions(run["pipeline_spec"])
    reference = run.get("pipeline_version_reference") or {}
    pipeline, version = (quote(str(reference.get(key, "")), safe="") for key in ("pipeline_id", "pipeline_version_id"))
    try:
        return read_task_definitions(_get(f"{root}/pipelines/{pipeline}/versions/{version}", token)["pipeline_spec"])
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return ()


def _get(address: str, token: Path) -> dict[str, Any]:
    """Send a request to the API.

    Raises:
        ValueError: if the answer is no JSON object.
    """
    request = urllib.request.Request(address)
    if token.is_file():
        request.add_header("Authorization", f"Bearer {token.read_text().strip()}")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        values = json.load(response)
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, received {type(values).__name__}")
    return values
