"""What somebody has deleted in MLflow: the command in the error message brings it back, and the work goes on."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr.errors import RegistryError
from cxr.promotion.log import CHALLENGER, CHAMPION, PromotionEntry
from cxr.tracking.active_run import open_run
from cxr.tracking.aliases import Aliases
from cxr.tracking.finished_run import log_evaluation
from cxr.tracking.promotion_log import PromotionLog
from cxr.tracking.store import Store
from support.forked_processes import write_command
from support.model_folders import write_models, write_store
from support.sweeps import exhaustive
from support.tracking_server import WebhookServer


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """A local store whose address a shell would split without quotes."""
    folder = tmp_path / "50%41 of it's"
    folder.mkdir()
    return Store(write_store(folder))


MLFLOW = "import sys; from mlflow.cli import cli; cli(sys.argv[1:])"


def follow_advice(work: Callable[[], object], folder: Path) -> str:
    """Run the command of the error message in a shell, where `mlflow` is a fork; returns the command."""
    with pytest.raises(RegistryError, match=r"\(deleted\); restore it") as refusal:
        work()
    command = re.search("`(.*)`", str(refusal.value))
    assert command is not None, refusal.value
    program = folder / "programs" / "mlflow"
    program.parent.mkdir()
    write_command(program, MLFLOW)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-c", command[1]], check=True, capture_output=True, env={**os.environ, "PATH": path})
    return command[1]


def test_a_deleted_experiment_comes_back_with_its_runs(local_store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path / "artifacts")

    def log_model() -> str:
        trained, evaluation = folders.models / "three_block", folders.evaluations / "three_block"
        return log_evaluation(local_store, trained, evaluation, experiment="pneumonia")

    run_id = log_model()
    experiment = local_store.experiment_id("pneumonia")
    local_store.client.delete_experiment(experiment)
    assert follow_advice(log_model, tmp_path).endswith(f"experiments restore -x {experiment}")
    assert log_model() == run_id


@pytest.mark.exhaustive  # the command is the same with the address of a server
def test_a_deleted_experiment_on_a_server_comes_back(server: WebhookServer, tmp_path: Path) -> None:
    store, name = Store(server.uri), "deleted on a server"
    store.client.delete_experiment(store.experiment_id(name))

    def train() -> None:
        with open_run(store, name, "three_block", {}, {}):
            pass

    follow_advice(train, tmp_path)
    train()


@pytest.mark.parametrize("deleted", ["run", *exhaustive("experiment")])
def test_a_deleted_promotion_log_comes_back_with_its_entries(local_store: Store, tmp_path: Path, deleted: str) -> None:
    name, client = "pneumonia-classifier", local_store.client
    client.create_registered_model(name)
    client.create_model_version(name, source="file:///nowhere")

    def promote() -> PromotionEntry | None:
        aliases = Aliases(local_store, name)
        return aliases.move(aliases.synchronize(), "run", {CHAMPION: "1", CHALLENGER: "1"}, candidate="1")

    promote()
    run = client.get_run(PromotionLog(local_store, name).run_id)
    if deleted == "experiment":
        client.delete_experiment(run.info.experiment_id)
    else:
        client.delete_run(run.info.run_id)
    follow_advice(promote, tmp_path)
    promote()
    assert [entry.number for entry in PromotionLog(local_store, name).entries()] == [1, 2]


def test_the_command_for_a_store_shows_no_password() -> None:
    command = Store("https://someone:secret@mlflow.example.org").mlflow_command("experiments restore -x 3")
    assert "secret" not in command and command.endswith("mlflow experiments restore -x 3")
