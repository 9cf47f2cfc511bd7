"""Runs that are logged from the files of a training: completely and once, by whichever process comes first."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from cxr.errors import DataError, RegistryError
from cxr.files import write_text
from cxr.models.metadata import ModelMetadata
from cxr.models.stored_files import record_digests
from cxr.tracking.active_run import open_run
from cxr.tracking.finished_run import COMPLETE_TAG, FILES_TAG, find_or_restore_run, log_evaluation
from cxr.tracking.store import Store
from support.forked_processes import ForkedProcess
from support.loopback import Gate, MlflowServer
from support.model_folders import ModelFolders, write_models
from support.sweeps import exhaustive

START = 1_700_000_000.0
ROWS = [
    {"epoch": n, "loss": 1 / (n + 2), "val_auroc": 0.1 + 0.2 * n, "seconds": 4.5, "ended": START + 10 * n}
    for n in (1, 2, 3)
]
PARAMETERS = {"seed": 0, "epochs": 3, "augmentation": {"zoom": 0.2}}
OTHER_PROCESS = """
import sys
from pathlib import Path
from cxr.tracking.finished_run import log_evaluation
from cxr.tracking.store import Store
print(log_evaluation(Store(sys.argv[3]), Path(sys.argv[1]), Path(sys.argv[2]), experiment=sys.argv[4]))
"""


def trained_folders(root: Path, run_id: str | None = None) -> ModelFolders:
    folders = write_models(root)
    trained = folders.models / "three_block"
    pd.DataFrame(ROWS).to_csv(trained / "history.csv", index=False)
    evidence = {**ModelMetadata.read(trained).training, "parameters": PARAMETERS, "run_id": run_id}
    (trained / "training.json").write_text(json.dumps(evidence))
    return folders


def log(folders: ModelFolders, store: Store, experiment: str) -> str:
    trained, evaluation = folders.models / "three_block", folders.evaluations / "three_block"
    return log_evaluation(store, trained, evaluation, experiment=experiment)


def content(store: Store, run_id: str) -> dict[str, object]:
    """All that a run contains, except what MLflow adds and how the run came about."""
    client = store.client
    run = client.get_run(run_id)
    ignored = {"restored", FILES_TAG}
    return {
        "metrics": {
            name: [(metric.step, metric.value, metric.timestamp) for metric in client.get_metric_history(run_id, name)]
            for name in run.data.metrics
        },
        "params": run.data.params,
        "tags": {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.") and k not in ignored},
        "name": run.info.run_name,
        "status": run.info.status,
        "files": sorted(
            file.path for folder in ("training", "evaluation") for file in client.list_artifacts(run_id, folder)
        ),
    }


def runs(store: Store, experiment: str) -> list[str]:
    experiment_id = store.client.get_experiment_by_name(experiment).experiment_id
    return [run.info.run_id for run in store.client.search_runs([experiment_id])]


def test_a_restored_run_contains_what_the_run_of_the_training_contains(store: Store, tmp_path: Path) -> None:
    folders = trained_folders(tmp_path)
    trained = folders.models / "three_block"
    metadata = ModelMetadata.read(trained)
    tags = {"model": "three_block", "system": "S2", "data_digest": metadata.data_digest, "data_md5": metadata.data_md5,
            "split_protocol": metadata.split_protocol, "split_digest": metadata.split_digest,
            "git_commit": metadata.git_commit}  # fmt: skip
    with open_run(store, "live", "three_block", tags, PARAMETERS) as run:
        for row in ROWS:
            run.log_epoch(int(row["epoch"]), row)
        run.log_model(trained)
    evidence = json.loads((trained / "training.json").read_text())
    (trained / "training.json").write_text(json.dumps({**evidence, "run_id": run.run_id}))
    assert log(folders, store, "live") == run.run_id
    (trained / "training.json").write_text(json.dumps({**evidence, "run_id": "f" * 32}))
    restored = log(folders, store, "elsewhere")

    live = content(store, str(run.run_id))
    assert content(store, restored) == live
    assert live["params"] == {"seed": "0", "epochs": "3", "augmentation.zoom": "0.2"}
    assert live["tags"]["training.device.name"] == "test processor"
    assert live["metrics"]["loss"] == [(row["epoch"], row["loss"], int(1000 * row["ended"])) for row in ROWS]
    assert {"training/model.keras", "training/history.csv", "evaluation/card.json"} <= set(live["files"])
    info = store.client.get_run(restored).info
    assert (info.start_time, info.end_time) == (int(1000 * (START + 5.5)), int(1000 * (START + 30)))


def test_several_processes_that_restore_at_once_make_one_run(server: MlflowServer, tmp_path: Path) -> None:
    folders, store = trained_folders(tmp_path), Store(server.uri)
    paths = [str(folders.models / "three_block"), str(folders.evaluations / "three_block")]
    processes = [ForkedProcess(OTHER_PROCESS, *paths, server.uri, "restored at once") for _ in range(3)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    (run_id,) = {out.split()[-1] for out, _ in outputs}
    assert runs(store, "restored at once") == [run_id]
    metrics = content(store, run_id)["metrics"]
    assert metrics["loss"] == [(row["epoch"], row["loss"], int(1000 * row["ended"])) for row in ROWS]
    assert len(metrics["test_auroc"]) == 1


def test_runs_created_in_the_same_moment_become_one(server: MlflowServer, tmp_path: Path) -> None:
    trained = trained_folders(tmp_path).models / "three_block"
    for attempt in range(4):
        barrier, experiment = threading.Barrier(5), f"same moment {attempt}"

        def restore(_: int, experiment: str = experiment, barrier: threading.Barrier = barrier) -> str:
            store = Store(server.uri)
            store.experiment_id(experiment)
            barrier.wait()
            return find_or_restore_run(store, trained, experiment=experiment)

        with ThreadPoolExecutor(5) as pool:
            run_ids = set(pool.map(restore, range(5)))
        assert runs(Store(server.uri), experiment) == list(run_ids)


@pytest.mark.parametrize("sent", [8_000, *exhaustive(2_000, 14_000, 24_000)])
def test_a_run_whose_restoration_was_cut_off_anywhere_is_completed(
    server: MlflowServer, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folders, experiment, store = trained_folders(tmp_path), f"cut after {sent}", Store(server.uri)
    gate.after(sent)
    with pytest.raises(RegistryError):
        log(folders, Store(gate.uri), experiment)
    assert gate.mode == "shut"
    gate.open()
    run_id = log(folders, Store(gate.uri), experiment)
    assert log(folders, Store(gate.uri), experiment) == run_id
    assert runs(store, experiment) == [run_id]
    uninterrupted = log(folders, store, f"{experiment}, whole")
    assert content(store, run_id) == content(store, uninterrupted)


def test_the_run_that_a_killed_process_has_created_is_completed(server: MlflowServer, tmp_path: Path) -> None:
    folders, store = trained_folders(tmp_path), Store(server.uri)
    complete = log(folders, store, "not killed")
    digest = store.client.get_run(complete).data.tags[FILES_TAG]
    name = store.client.get_run(complete).info.run_name
    left = store.client.create_run(store.experiment_id("killed at once"), None, {FILES_TAG: digest}, name).info.run_id
    assert log(folders, store, "killed at once") == left
    assert runs(store, "killed at once") == [left]
    assert content(store, left) == content(store, complete)


def test_the_smallest_id_wins_and_a_complete_run_always(server: MlflowServer, tmp_path: Path) -> None:
    folders, store = trained_folders(tmp_path), Store(server.uri)
    digest = store.client.get_run(log(folders, store, "any")).data.tags[FILES_TAG]
    experiment_id = store.experiment_id("asked twice")
    # A request whose answer was lost is sent again; the first one may be carried out late.
    created = [store.client.create_run(experiment_id, tags={FILES_TAG: digest}).info.run_id for _ in range(3)]
    assert log(folders, store, "asked twice") == min(created)
    assert runs(store, "asked twice") == [min(created)]
    for _ in range(3):
        store.client.create_run(experiment_id, tags={FILES_TAG: digest})
    assert log(folders, store, "asked twice") == min(created)
    assert runs(store, "asked twice") == [min(created)]
    assert COMPLETE_TAG in store.client.get_run(min(created)).data.tags


def test_an_offline_training_is_logged_later_with_its_true_times(store: Store, tmp_path: Path) -> None:
    with open_run(None, "offline", "three_block", {}, PARAMETERS) as run:
        run.log_epoch(1, ROWS[0])
    assert run.run_id is None
    run_id = log(trained_folders(tmp_path, run.run_id), store, "offline")
    info = store.client.get_run(run_id).info
    assert (info.status, info.start_time, info.end_time) == (
        "FINISHED",
        int(1000 * (START + 5.5)),
        int(1000 * (START + 30)),
    )


def test_a_training_that_continues_offline_keeps_its_run(store: Store, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(store, "half", "three_block", {}, PARAMETERS) as first:
        first.log_epoch(1, ROWS[0])
        raise KeyboardInterrupt
    with open_run(None, "half", "three_block", {}, PARAMETERS, run_id=first.run_id) as second:
        second.log_epoch(2, ROWS[1])
    assert second.run_id == first.run_id
    assert log(trained_folders(tmp_path, second.run_id), store, "half") == first.run_id
    assert runs(store, "half") == [first.run_id]
    assert [step for step, *_ in content(store, str(first.run_id))["metrics"]["loss"]] == [1, 2, 3]


@pytest.mark.parametrize("damaged", ["models/three_block/history.csv", "evaluations/three_block/plots/roc.png"])
def test_no_damaged_file_is_logged(tmp_path: Path, damaged: str) -> None:
    folders, store = trained_folders(tmp_path / "files"), Store(f"sqlite:///{tmp_path}/mlflow.db")
    write_text(folders.evaluations / "three_block/plots/roc.png", "a picture")
    for folder in (folders.models / "three_block", folders.evaluations / "three_block"):
        record_digests(folder)
    path = folders.models.parent / damaged
    whole = path.read_bytes()
    path.write_bytes(b"0" + whole[1:])
    with pytest.raises(DataError, match=rf"received .*damaged or changed .*{path.name}"):
        log(folders, store, "pneumonia")
    path.write_bytes(whole)
    run_id = log(folders, store, "pneumonia")
    assert {file.path for file in store.client.list_artifacts(run_id, "evaluation/plots")} == {
        "evaluation/plots/roc.png"
    }
