"""A store that goes away in the middle of a training, frozen, shut or killed: the training doesn't notice."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from cxr.models.metadata import ModelCard
from cxr.tracking import close_trial, log_evaluation, open_run, send_evaluation
from cxr.tracking.connection import client
from cxr.tracking.runs import complete
from support.loopback import Gate, MlflowServer
from support.model_folders import Folders, write_models

pytestmark = pytest.mark.usefixtures("hasty")

SHORT = 30
"""Seconds that a training may lose to a lost server altogether; MLflow's client would take minutes per epoch."""
BEGAN = 1_700_000_000.0


def row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "loss": 1 / (epoch + 2), "val_auroc": 0.7 + epoch / 70, "seconds": 4.0,
            "ended": BEGAN + 10 * epoch}  # fmt: skip


def finish(folders: Folders, run_id: str | None, epochs: int) -> Path:
    """Write what a training leaves, as the step does."""
    import pandas as pd

    trained = folders.models / "three_block"
    pd.DataFrame([row(epoch) for epoch in range(1, epochs + 1)]).to_csv(trained / "history.csv", index=False)
    card = ModelCard.read(trained)
    (trained / "training.json").write_text(
        json.dumps({**card.training, "parameters": {"seed": 0, "augmentation": {"zoom": 0.2}}, "run_id": run_id})
    )
    return trained


def steps(uri: str, run_id: str, name: str) -> list[tuple[int, float, int]]:
    found = client(uri).get_metric_history(run_id, name)
    return [(one.step, one.value, one.timestamp) for one in found]


def whole(epochs: int) -> list[tuple[int, float, int]]:
    return [(epoch, 1 / (epoch + 2), int(1000 * row(epoch)["ended"])) for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize("how", ["hold", "shut"])
def test_a_training_goes_on_without_its_server_and_is_logged_once_afterwards(
    server: MlflowServer, gate: Gate, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    folders = write_models(tmp_path)
    with open_run(gate.uri, f"lost {how}", "three_block", {}, {"seed": 0}) as run:
        run.log_epoch(1, row(1))
        getattr(gate, how)()
        began = time.monotonic()
        with caplog.at_level(logging.WARNING, logger="cxr"):
            for epoch in range(2, 7):
                run.log_epoch(epoch, row(epoch))
            trained = finish(folders, run.run_id, 6)
            run.log_model(trained)
    assert time.monotonic() - began < SHORT
    assert caplog.text.count("is not in MLflow yet") == 1
    assert run.run_id is not None
    assert {step for step, *_ in steps(server.uri, run.run_id, "loss")} <= {1, 2}
    assert client(server.uri).get_run(run.run_id).info.status == "RUNNING"

    gate.open()
    judged = folders.evaluations / "three_block"
    assert log_evaluation(trained, judged, uri=gate.uri, experiment=f"lost {how}") == run.run_id
    assert log_evaluation(trained, judged, uri=gate.uri, experiment=f"lost {how}") == run.run_id
    found = client(server.uri).get_run(run.run_id)
    assert steps(server.uri, run.run_id, "loss") == whole(6)
    assert (found.info.status, found.info.end_time) == ("FINISHED", int(1000 * row(6)["ended"]))
    assert found.data.params == {"seed": "0", "augmentation.zoom": "0.2"}
    assert found.data.tags["training.device.name"] == "test processor"
    assert {one.path for one in client(server.uri).list_artifacts(run.run_id)} == {"training", "evaluation"}


def test_epochs_arrive_by_themselves_when_the_server_comes_back(server: MlflowServer, gate: Gate) -> None:
    with open_run(gate.uri, "came back", "m", {}, {}) as run:
        run.log_epoch(1, row(1))
        gate.hold()
        run.log_epoch(2, row(2))
        run.log_epoch(3, row(3))
        gate.open()
    assert run.run_id is not None
    assert steps(server.uri, run.run_id, "loss") == whole(3)
    assert client(server.uri).get_run(run.run_id).info.status == "FINISHED"


def test_a_killed_and_restarted_server_is_told_the_rest(server: MlflowServer, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    try:
        with open_run(server.uri, "killed", "three_block", {}, {}) as run:
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
    complete(client(server.uri), run.run_id, trained)
    complete(client(server.uri), run.run_id, trained)
    assert steps(server.uri, run.run_id, "loss") == whole(3)
    assert client(server.uri).get_run(run.run_id).info.status == "FINISHED"


def test_what_a_frozen_server_takes_late_does_not_count_twice(server: MlflowServer, gate: Gate, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    with open_run(gate.uri, "late", "three_block", {}, {}) as run:
        gate.hold()
        run.log_epoch(1, row(1))
        trained = finish(folders, run.run_id, 1)
    assert run.run_id is not None
    complete(client(server.uri), run.run_id, trained)  # another way to the same server
    gate.open()  # now the first request gets through as well
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert steps(server.uri, run.run_id, "loss") == whole(1)
        time.sleep(0.5)


def test_an_evaluation_is_kept_when_the_server_goes_away_before_it_is_logged(
    server: MlflowServer, gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = write_models(tmp_path)
    trained, judged = folders.models / "three_block", folders.evaluations / "three_block"
    gate.hold()
    send_evaluation(trained, judged, uri=gate.uri, experiment="kept")
    assert "the evaluation is not in MLflow yet, `cxr register` logs it" in caplog.text
    run_id = log_evaluation(trained, judged, uri=server.uri, experiment="kept")
    assert run_id is not None
    assert len(client(server.uri).get_metric_history(run_id, "test_auroc")) == 1


def test_a_search_goes_on_without_its_server(
    server: MlflowServer, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run(gate.uri, "search", "search", {}, {}) as search:
        with open_run(gate.uri, "search", "trial 0", {}, {}, parent=search.run_id) as first:
            first.log_epoch(1, row(1))
        gate.shut()
        close_trial(gate.uri, first.run_id, "complete", {"best_val_auroc": 0.8})
        with open_run(gate.uri, "search", "trial 1", {}, {}, parent=search.run_id) as second:
            second.log_epoch(1, row(1))
        assert second.run_id is None
        gate.open()
        close_trial(gate.uri, first.run_id, "complete", {"best_val_auroc": 0.8}, [row(1), row(2)])
    assert "trial 1 is not logged" in caplog.text
    assert first.run_id is not None
    found = client(server.uri).get_run(first.run_id)
    assert (found.data.tags["state"], found.data.metrics["best_val_auroc"]) == ("complete", 0.8)
    assert steps(server.uri, first.run_id, "loss") == whole(2)
