"""A training goes on when its store is frozen, shut or killed in the middle."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from cxr.models.metadata import ModelMetadata
from cxr.tracking.active_run import close_trial, open_run
from cxr.tracking.finished_run import complete_run, log_evaluation, try_to_log_evaluation
from cxr.tracking.store import Store
from support.loopback import Gate, MlflowServer
from support.model_folders import ModelFolders, write_models

pytestmark = pytest.mark.usefixtures("hasty")

TIME_LIMIT = 30
"""Seconds that a training may lose to a lost server in all; MLflow's client would take minutes per epoch."""
START = 1_700_000_000.0


def row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "loss": 1 / (epoch + 2), "val_auroc": 0.7 + epoch / 70, "seconds": 4.0,
            "ended": START + 10 * epoch}  # fmt: skip


def finish(folders: ModelFolders, run_id: str | None, epochs: int) -> Path:
    """Write the files of a training, as the step does."""
    import pandas as pd

    trained = folders.models / "three_block"
    pd.DataFrame([row(epoch) for epoch in range(1, epochs + 1)]).to_csv(trained / "history.csv", index=False)
    metadata = ModelMetadata.read(trained)
    (trained / "training.json").write_text(
        json.dumps({**metadata.training, "parameters": {"seed": 0, "augmentation": {"zoom": 0.2}}, "run_id": run_id})
    )
    return trained


def steps(store: Store, run_id: str, name: str) -> list[tuple[int, float, int]]:
    history = store.client.get_metric_history(run_id, name)
    return [(metric.step, metric.value, metric.timestamp) for metric in history]


def all_epochs(epochs: int) -> list[tuple[int, float, int]]:
    return [(epoch, 1 / (epoch + 2), int(1000 * row(epoch)["ended"])) for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize("how", ["hold", "shut"])
def test_a_training_goes_on_without_its_server_and_is_logged_once_afterwards(
    server: MlflowServer, gate: Gate, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    folders = write_models(tmp_path)
    with open_run(Store(gate.uri), f"lost {how}", "three_block", {}, {"seed": 0}) as run:
        run.log_epoch(1, row(1))
        getattr(gate, how)()
        start = time.monotonic()
        with caplog.at_level(logging.WARNING, logger="cxr"):
            for epoch in range(2, 7):
                run.log_epoch(epoch, row(epoch))
            trained = finish(folders, run.run_id, 6)
            run.log_model(trained)
    assert time.monotonic() - start < TIME_LIMIT
    assert caplog.text.count("is not in MLflow yet") == 1
    assert run.run_id is not None
    assert {step for step, *_ in steps(Store(server.uri), run.run_id, "loss")} <= {1, 2}
    assert Store(server.uri).client.get_run(run.run_id).info.status == "RUNNING"

    gate.open()
    evaluation = folders.evaluations / "three_block"
    assert log_evaluation(Store(gate.uri), trained, evaluation, experiment=f"lost {how}") == run.run_id
    assert log_evaluation(Store(gate.uri), trained, evaluation, experiment=f"lost {how}") == run.run_id
    logged_run = Store(server.uri).client.get_run(run.run_id)
    assert steps(Store(server.uri), run.run_id, "loss") == all_epochs(6)
    assert (logged_run.info.status, logged_run.info.end_time) == ("FINISHED", int(1000 * row(6)["ended"]))
    assert logged_run.data.params == {"seed": "0", "augmentation.zoom": "0.2"}
    assert logged_run.data.tags["training.device.name"] == "test processor"
    assert {file.path for file in Store(server.uri).client.list_artifacts(run.run_id)} == {"training", "evaluation"}


def test_unsent_epochs_are_sent_when_the_server_comes_back(server: MlflowServer, gate: Gate) -> None:
    with open_run(Store(gate.uri), "came back", "m", {}, {}) as run:
        run.log_epoch(1, row(1))
        gate.hold()
        run.log_epoch(2, row(2))
        run.log_epoch(3, row(3))
        gate.open()
    assert run.run_id is not None
    assert steps(Store(server.uri), run.run_id, "loss") == all_epochs(3)
    assert Store(server.uri).client.get_run(run.run_id).info.status == "FINISHED"


def test_a_server_that_was_killed_and_restarted_gets_the_rest(server: MlflowServer, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    try:
        with open_run(Store(server.uri), "killed", "three_block", {}, {}) as run:
            run.log_epoch(1, row(1))
            server.freeze()
            run.log_epoch(2, row(2))  # reaches a server that doesn't read it: it may count once it goes on
            server.thaw()
            server.kill()
            run.log_epoch(3, row(3))
            trained = finish(folders, run.run_id, 3)
            run.log_model(trained)
    finally:
        server.kill()
        server.start()
    assert run.run_id is not None
    complete_run(Store(server.uri), run.run_id, trained)
    complete_run(Store(server.uri), run.run_id, trained)
    assert steps(Store(server.uri), run.run_id, "loss") == all_epochs(3)
    assert Store(server.uri).client.get_run(run.run_id).info.status == "FINISHED"


def test_requests_that_a_frozen_server_handles_late_do_not_count_twice(
    server: MlflowServer, gate: Gate, tmp_path: Path
) -> None:
    folders = write_models(tmp_path)
    with open_run(Store(gate.uri), "late", "three_block", {}, {}) as run:
        gate.hold()
        run.log_epoch(1, row(1))
        trained = finish(folders, run.run_id, 1)
    assert run.run_id is not None
    complete_run(Store(server.uri), run.run_id, trained)  # another way to the same server
    gate.open()  # now the first request gets through as well
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert steps(Store(server.uri), run.run_id, "loss") == all_epochs(1)
        time.sleep(0.5)


def test_an_evaluation_is_kept_when_the_server_goes_away_before_it_is_logged(
    server: MlflowServer, gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = write_models(tmp_path)
    trained, evaluation = folders.models / "three_block", folders.evaluations / "three_block"
    gate.hold()
    try_to_log_evaluation(Store(gate.uri), trained, evaluation, experiment="kept")
    assert "the evaluation is not in MLflow yet, `cxr register` logs it" in caplog.text
    run_id = log_evaluation(Store(server.uri), trained, evaluation, experiment="kept")
    assert run_id is not None
    assert len(Store(server.uri).client.get_metric_history(run_id, "test_auroc")) == 1


def test_a_search_goes_on_without_its_server(
    server: MlflowServer, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run(Store(gate.uri), "search", "search", {}, {}) as search:
        with open_run(Store(gate.uri), "search", "trial 0", {}, {}, parent=search.run_id) as first:
            first.log_epoch(1, row(1))
        gate.shut()
        close_trial(Store(gate.uri), first.run_id, "complete", {"best_val_auroc": 0.8})
        with open_run(Store(gate.uri), "search", "trial 1", {}, {}, parent=search.run_id) as second:
            second.log_epoch(1, row(1))
        assert second.run_id is None
        gate.open()
        close_trial(Store(gate.uri), first.run_id, "complete", {"best_val_auroc": 0.8}, [row(1), row(2)])
    assert "trial 1 is not logged" in caplog.text
    assert first.run_id is not None
    logged_run = Store(server.uri).client.get_run(first.run_id)
    assert (logged_run.data.tags["state"], logged_run.data.metrics["best_val_auroc"]) == ("complete", 0.8)
    assert steps(Store(server.uri), first.run_id, "loss") == all_epochs(2)
