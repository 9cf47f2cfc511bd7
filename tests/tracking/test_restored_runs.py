"""Runs that a store is told from their files: whole, once, by whoever comes first."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from cxr.errors import RegistryError
from cxr.models.metadata import ModelCard
from cxr.tracking import log_evaluation, open_run
from cxr.tracking.claims import CLAIM_TAG, FILES_TAG, claim
from cxr.tracking.connection import client, experiment_id
from support.loopback import Gate, MlflowServer
from support.model_folders import Folders, write_models

BEGAN = 1_700_000_000.0
ROWS = [
    {"epoch": n, "loss": 1 / (n + 2), "val_auroc": 0.1 + 0.2 * n, "seconds": 4.5, "ended": BEGAN + 10 * n}
    for n in (1, 2, 3)
]
VALUES = {"seed": 0, "epochs": 3, "augmentation": {"zoom": 0.2}}
ANOTHER_PROCESS = """
import sys
from pathlib import Path
from cxr.tracking import log_evaluation
print(log_evaluation(Path(sys.argv[1]), Path(sys.argv[2]), uri=sys.argv[3], experiment=sys.argv[4]))
"""


def trained_folders(root: Path, run_id: str | None = None) -> Folders:
    folders = write_models(root)
    trained = folders.models / "three_block"
    pd.DataFrame(ROWS).to_csv(trained / "history.csv", index=False)
    facts = {**ModelCard.read(trained).training, "parameters": VALUES, "run_id": run_id}
    (trained / "training.json").write_text(json.dumps(facts))
    return folders


def log(folders: Folders, uri: str, experiment: str) -> str:
    trained, judged = folders.models / "three_block", folders.evaluations / "three_block"
    run_id = log_evaluation(trained, judged, uri=uri, experiment=experiment)
    assert run_id is not None
    return run_id


def told(uri: str, run_id: str) -> dict[str, object]:
    """All that a run tells, but for what MLflow adds and for how it came about."""
    connected = client(uri)
    run = connected.get_run(run_id)
    passing = {"restored", CLAIM_TAG, FILES_TAG}
    return {
        "metrics": {
            name: [(one.step, one.value, one.timestamp) for one in connected.get_metric_history(run_id, name)]
            for name in run.data.metrics
        },
        "params": run.data.params,
        "tags": {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.") and k not in passing},
        "name": run.info.run_name,
        "status": run.info.status,
        "files": sorted(
            one.path for part in ("training", "evaluation") for one in connected.list_artifacts(run_id, part)
        ),
    }


def runs(uri: str, experiment: str) -> list[str]:
    connected = client(uri)
    where = connected.get_experiment_by_name(experiment).experiment_id
    return [run.info.run_id for run in connected.search_runs([where])]


def test_a_restored_run_tells_what_the_run_of_the_training_told(uri: str, tmp_path: Path) -> None:
    folders = trained_folders(tmp_path)
    trained = folders.models / "three_block"
    card = ModelCard.read(trained)
    tags = {"model": "three_block", "system": "S2", "data_digest": card.data_digest, "data_md5": card.data_md5,
            "split_protocol": card.split_protocol, "split_digest": card.split_digest,
            "git_commit": card.git_commit}  # fmt: skip
    with open_run(uri, "live", "three_block", tags, VALUES) as run:
        for row in ROWS:
            run.log_epoch(int(row["epoch"]), row)
        run.log_model(trained)
    facts = json.loads((trained / "training.json").read_text())
    (trained / "training.json").write_text(json.dumps({**facts, "run_id": run.run_id}))
    assert log(folders, uri, "live") == run.run_id
    (trained / "training.json").write_text(json.dumps({**facts, "run_id": "f" * 32}))
    restored = log(folders, uri, "elsewhere")

    live = told(uri, str(run.run_id))
    assert told(uri, restored) == live
    assert live["params"] == {"seed": "0", "epochs": "3", "augmentation.zoom": "0.2"}
    assert live["tags"]["training.device.name"] == "test processor"
    assert live["metrics"]["loss"] == [(row["epoch"], row["loss"], int(1000 * row["ended"])) for row in ROWS]
    assert {"training/model.keras", "training/history.csv", "evaluation/card.json"} <= set(live["files"])
    info = client(uri).get_run(restored).info
    assert (info.start_time, info.end_time) == (int(1000 * (BEGAN + 5.5)), int(1000 * (BEGAN + 30)))


def test_several_processes_that_restore_at_once_make_one_run(server: MlflowServer, tmp_path: Path) -> None:
    folders = trained_folders(tmp_path)
    paths = [str(folders.models / "three_block"), str(folders.evaluations / "three_block")]
    command = [sys.executable, "-c", ANOTHER_PROCESS, *paths, server.uri, "restored at once"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], ended
    (run_id,) = {out.split()[-1] for out, _ in ended}
    assert runs(server.uri, "restored at once") == [run_id]
    metrics = told(server.uri, run_id)["metrics"]
    assert metrics["loss"] == [(row["epoch"], row["loss"], int(1000 * row["ended"])) for row in ROWS]
    assert len(metrics["test_auroc"]) == 1


def test_claims_made_in_the_same_moment_agree_on_one_run(server: MlflowServer) -> None:
    connected = client(server.uri)
    where = experiment_id(connected, server.uri, "same moment")
    for attempt in range(4):
        together = threading.Barrier(5)

        def claim_together(_: int, digest: str = f"files {attempt}", together: threading.Barrier = together) -> str:
            together.wait()
            return claim(client(server.uri), where, digest, name="m", started=None, tags={})

        with ThreadPoolExecutor(5) as pool:
            agreed = set(pool.map(claim_together, range(5)))
        left = connected.search_runs([where], f"tags.`{CLAIM_TAG}` = 'files {attempt}'")
        assert [run.info.run_id for run in left] == list(agreed)


@pytest.mark.parametrize("sent", [2_000, 8_000, 14_000, 24_000])
def test_a_run_whose_restoration_was_cut_off_anywhere_is_made_whole(
    server: MlflowServer, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("cxr.tracking.claims.STALE", 1.0)
    folders, experiment = trained_folders(tmp_path), f"cut after {sent}"
    gate.after(sent)
    with pytest.raises(RegistryError):
        log(folders, gate.uri, experiment)
    assert gate.mode == "shut"
    gate.open()
    run_id = log(folders, gate.uri, experiment)
    assert log(folders, gate.uri, experiment) == run_id
    assert runs(server.uri, experiment) == [run_id]
    whole = log(folders, server.uri, f"{experiment}, whole")
    assert told(server.uri, run_id) == told(server.uri, whole)


def test_the_claim_of_a_killed_process_is_taken_over(uri: str, tmp_path: Path) -> None:
    folders = trained_folders(tmp_path)
    first = log(folders, uri, "first")
    connected = client(uri)
    digest = connected.get_run(first).data.tags[FILES_TAG]
    left = connected.create_run(experiment_id(connected, uri, "second"), tags={CLAIM_TAG: digest}).info.run_id
    began = time.monotonic()
    taken = log(folders, uri, "second")
    assert time.monotonic() - began > 5, "a process that is only slow must have its time"
    assert taken != left
    assert runs(uri, "second") == [taken]


def test_a_claim_that_nobody_answers_for_does_not_stay(uri: str, tmp_path: Path) -> None:
    folders = trained_folders(tmp_path)
    good = log(folders, uri, "asked twice")
    connected = client(uri)
    digest = connected.get_run(good).data.tags[FILES_TAG]
    # A request whose answer was lost is sent again; the first one may be carried out late.
    connected.create_run(experiment_id(connected, uri, "asked twice"), tags={CLAIM_TAG: digest})
    assert log(folders, uri, "asked twice") == good
    assert runs(uri, "asked twice") == [good]


def test_a_training_offline_is_logged_later_with_its_true_times(uri: str, tmp_path: Path) -> None:
    with open_run("", "offline", "three_block", {}, VALUES) as run:
        run.log_epoch(1, ROWS[0])
    assert run.run_id is None
    run_id = log(trained_folders(tmp_path, run.run_id), uri, "offline")
    info = client(uri).get_run(run_id).info
    assert (info.status, info.start_time, info.end_time) == (
        "FINISHED",
        int(1000 * (BEGAN + 5.5)),
        int(1000 * (BEGAN + 30)),
    )


def test_a_training_that_goes_on_offline_keeps_its_run(uri: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(uri, "half", "three_block", {}, VALUES) as first:
        first.log_epoch(1, ROWS[0])
        raise KeyboardInterrupt
    with open_run("", "half", "three_block", {}, VALUES, run_id=first.run_id) as second:
        second.log_epoch(2, ROWS[1])
    assert second.run_id == first.run_id
    assert log(trained_folders(tmp_path, second.run_id), uri, "half") == first.run_id
    assert runs(uri, "half") == [first.run_id]
    assert [step for step, *_ in told(uri, str(first.run_id))["metrics"]["loss"]] == [1, 2, 3]
