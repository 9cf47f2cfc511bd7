"""Registrations that are killed before each call that writes to the store, and completed by the next one.

``main`` runs in a process that has opened no store yet, and prints one line of JSON per registration. Each
registration is a fork of that process.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

import cxr.promotion.report  # imported before the forks
import cxr.tracking.registry  # noqa: F401
from cxr.steps.register import Register
from cxr.tracking import aliases, promotion_log
from cxr.tracking.aliases import Aliases
from cxr.tracking.store import Store

WRITES = ("create_", "log_", "set_", "delete_", "finalize_", "update_")
"""Beginnings of the names of calls that change a store: kills before two calls that only read leave the same store."""
KILLED = 9


def content(uri: str, name: str) -> dict[str, Any]:
    """What a store holds of a registered model: all that a killed registration could leave half done."""
    store = Store(uri)
    client = store.connect()
    log = Aliases(store, name).log
    experiments = [run.experiment_id for run in client.search_experiments() if name in run.name or not store.is_server]
    versions = client.search_model_versions(f"name = '{name}'")
    return {
        "versions": sorted(
            (str(version.version), sorted(version.tags), version.tags.get("decision", "")[-4:]) for version in versions
        ),
        "aliases": {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()},
        "entries": [(entry.number, entry.kind, entry.candidate, entry.champion, entry.applied, entry.reasons)
                    for entry in log.entries()],
        "runs": sorted(
            (str(run.info.run_name), run.info.status, sorted(run.data.metrics), sorted(run.data.params),
             sorted(run.data.tags), files(client, run.info.run_id))
            for experiment in experiments
            for run in client.search_runs([experiment])
        ),
        "models": sorted(
            {str(model.status.value) for model in client.search_logged_models(experiments)} - {"FAILED"}
        ),
    }  # fmt: skip


def files(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    """Paths of a run's files."""
    paths = []
    for entry in client.list_artifacts(run_id, folder):
        paths += files(client, run_id, entry.path) if entry.is_dir else [entry.path]
    return sorted(paths)


def kill_before(number: int, calls: list[str]) -> None:
    """Let this process end before its n-th writing call; a call inside another one does not count."""
    is_inside = False

    def counting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def counted(*values: Any, **options: Any) -> Any:
            nonlocal is_inside
            if is_inside:
                return original(*values, **options)
            calls.append(name)
            if len(calls) == number:
                os._exit(KILLED)
            is_inside = True
            try:
                return original(*values, **options)
            finally:
                is_inside = False

        return counted

    for name in [name for name in dir(MlflowClient) if name.startswith(WRITES)]:
        setattr(MlflowClient, name, counting(name, getattr(MlflowClient, name)))


def in_process(work: Callable[[], Any]) -> tuple[int, Any]:
    """Exit status and result of work in a process of its own."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.write(writer, json.dumps(work()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return status, json.loads(result) if status == 0 else None


def write_line(values: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(values)}\n")
    sys.stdout.flush()


def main(work: Path, every: int, values: dict[str, Any]) -> None:
    """Print the calls and the outcome of a whole registration, then those of killed ones, each completed by another.

    Args:
        work: folder with the models and, unless it is on a server, the store.
        every: kill before each n-th call alone.
        values: fields of the step.
    """
    aliases.PATIENCE = promotion_log.PATIENCE = 0.0
    is_server = str(values["tracking_uri"]).startswith("http")
    before = work.with_name("before")
    shutil.copytree(work, before)

    def registration(number: int) -> tuple[int, Any]:
        """Register and return the writing calls, or end before the n-th."""
        calls: list[str] = []
        name = f"killed {round_number}"
        step = Register(**(values | {"experiment": name, "registered_name": name} if is_server else values))

        def register() -> list[str]:
            kill_before(number, calls)
            step.execute()
            return calls

        return in_process(register)

    def outcome() -> Any:
        name = f"killed {round_number}" if is_server else "pneumonia-classifier"
        return json.loads(json.dumps(in_process(lambda: content(values["tracking_uri"], name))[1]).replace(name, ""))

    round_number = 0
    _, calls = registration(0)
    write_line({"calls": calls, "content": outcome()})
    for number in range(1, len(calls) + 1, every):
        round_number = number
        if not is_server:
            shutil.rmtree(work)
            shutil.copytree(before, work)
        killed, _ = registration(number)
        completed, _ = registration(0)
        write_line({"before": calls[number - 1], "statuses": [killed, completed], "content": outcome()})
