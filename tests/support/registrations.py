"""Models that are registered as versions, by this process or by others, and what the store has of them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from cxr.promotion.candidates import RunFolders, find_candidates
from cxr.promotion.report import Registration
from cxr.tracking import registry
from cxr.tracking.finished_run import log_evaluation
from cxr.tracking.store import Store
from cxr.tracking.versions import ensure_version
from support.forked_processes import ForkedProcess
from support.model_folders import ModelFolders

OTHER_PROCESS = """
import os, signal, sys
from pathlib import Path
from mlflow import MlflowClient
from cxr.tracking.store import Store
from cxr.promotion.candidates import RunFolders, find_candidates
from cxr.tracking.versions import ensure_version
models, evaluations, uri, run_id, how, *names = sys.argv[1:]
create = MlflowClient.create_model_version

def wait_and_create(*arguments, **values):
    print("ready to create", flush=True)
    sys.stdin.readline()
    version = create(*arguments, **values)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return version

if how != "at once":
    MlflowClient.create_model_version = wait_and_create
(candidate,) = find_candidates(RunFolders(Path(models), Path(evaluations), Path("splits")))
for name in names:
    version, is_new = ensure_version(Store(uri), name, candidate, run_id)
    print(version.version, is_new, flush=True)
"""
"""Register a model under each name; unless ``how`` is "at once", wait for a line before a version is created."""


def register(store: Store, run: Any, **options: Any) -> Registration:
    """Register the models of a run and store a decision of one small file.

    A registration without stored files counts as cut off: the next one waits for them.
    """
    registration = registry.register(store, run, **options)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "decision.json").write_text("{}")
        registry.store_decision(store, registration, Path(folder))
    return registration


def begin(folders: ModelFolders, store: Store, name: str) -> str:
    """Create the registered model and the run that a version belongs to."""
    store.client.create_registered_model(name)
    return log_evaluation(store, folders.models / "three_block", folders.evaluations / "three_block", experiment=name)


def ensure(folders: ModelFolders, store: Store, name: str, run_id: str) -> tuple[ModelVersion, bool]:
    """Register the model in this process."""
    (candidate,) = find_candidates(RunFolders(folders.models, folders.evaluations, folders.splits))
    return ensure_version(store, name, candidate, run_id)


def start_registration(
    folders: ModelFolders, uri: str, run_id: str, *names: str, how: str = "at once"
) -> ForkedProcess:
    """Register the model under each name in a process of its own."""
    arguments = (str(folders.models), str(folders.evaluations), uri, run_id, how, *names)
    return ForkedProcess(OTHER_PROCESS, *arguments)


def read_line(process: ForkedProcess) -> str:
    return process.stdout.readline().strip()


def write_line(process: ForkedProcess) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def versions(store: Store, name: str) -> list[ModelVersion]:
    return list(store.client.search_model_versions(f"name = '{name}'"))


def model_id(version: ModelVersion) -> str:
    """The MLflow model behind a version, whose id the registry does not keep."""
    return Path(version.source).parent.name


def states(store: Store, name: str) -> list[str]:
    """States of the MLflow models whose upload has begun."""
    experiment_id = store.client.get_experiment_by_name(name).experiment_id
    return sorted(str(model.status.value) for model in store.client.search_logged_models([experiment_id]))
