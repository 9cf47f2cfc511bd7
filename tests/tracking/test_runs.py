from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.errors import RegistryError
from cxr.models.metadata import ModelCard
from cxr.tracking import close_trial, log_evaluation, open_run
from cxr.tracking.connection import client
from support.model_folders import write_models


def test_epochs_can_be_read_while_the_run_is_going_on(uri: str) -> None:
    with open_run(uri, "pneumonia", "three_block", {}, {}) as run:
        run.log_epoch(1, {"loss": 0.5, "val_auroc": math.nan})
        seen = client(uri).get_run(run.run_id)
        assert seen.info.status == "RUNNING"
        assert seen.data.metrics["loss"] == 0.5
    assert client(uri).get_run(run.run_id).info.status == "FINISHED"


def test_a_resumed_training_goes_on_with_its_run_and_logs_no_epoch_twice(uri: str) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(uri, "pneumonia", "m", {}, {"epochs": 3}) as first:
        first.log_epoch(1, {"loss": 0.7})
        first.log_epoch(2, {"loss": 0.6})
        raise KeyboardInterrupt
    assert client(uri).get_run(first.run_id).info.status == "KILLED"
    with open_run(uri, "pneumonia", "m", {}, {"epochs": 4}, run_id=first.run_id) as second:
        for epoch, loss in ((2, 0.6), (3, 0.5)):
            second.log_epoch(epoch, {"loss": loss})
    assert second.run_id == first.run_id
    logged = client(uri).get_metric_history(first.run_id, "loss")
    assert [(one.step, one.value) for one in logged] == [(1, 0.7), (2, 0.6), (3, 0.5)]
    assert client(uri).get_run(first.run_id).info.status == "FINISHED"


def test_a_failed_training_is_a_failed_run(uri: str) -> None:
    with pytest.raises(ZeroDivisionError), open_run(uri, "pneumonia", "m", {}, {}) as run:
        raise ZeroDivisionError
    assert client(uri).get_run(run.run_id).info.status == "FAILED"


def test_a_trial_is_shown_below_its_search_and_says_once_how_it_ended(uri: str) -> None:
    with open_run(uri, "e", "search", {}, {}) as search:
        with open_run(uri, "e", "trial", {}, {}, parent=search.run_id) as trial:
            trial.log_epoch(1, {"val_loss": 0.5})
        close_trial(uri, trial.run_id, "pruned", {"best_val_loss": 0.5, "unknown": math.nan})
        close_trial(uri, trial.run_id, "complete", {"best_val_loss": 0.1})
    found = client(uri).get_run(trial.run_id)
    assert found.data.tags["mlflow.parentRunId"] == search.run_id
    assert (found.data.tags["state"], found.info.status) == ("pruned", "KILLED")
    assert found.data.metrics == {"val_loss": 0.5, "best_val_loss": 0.5}
    assert "mlflow.parentRunId" not in client(uri).get_run(search.run_id).data.tags


def test_a_trial_without_a_run_is_no_error(uri: str) -> None:
    close_trial(uri, None, "killed", {})
    close_trial(uri, "0" * 32, "killed", {})
    close_trial("", "0" * 32, "killed", {})


def test_a_run_id_that_the_store_does_not_know_gets_a_new_run(uri: str) -> None:
    with open_run(uri, "pneumonia", "m", {}, {}, run_id="0" * 32) as run:
        run.log_epoch(1, {"loss": 1.0})
    assert run.run_id != "0" * 32
    assert client(uri).get_run(run.run_id).data.metrics == {"loss": 1.0}


def test_runs_on_phantoms_have_an_experiment_of_their_own_and_say_so(uri: str) -> None:
    with open_run(uri, "pneumonia", "m", {}, {}, dataset_kind="phantom") as run:
        pass
    found = client(uri).get_run(run.run_id)
    assert client(uri).get_experiment(found.info.experiment_id).name == "pneumonia (phantoms)"
    assert found.data.tags["dataset_kind"] == "phantom"


def test_nested_parameters_become_flat_and_unknown_ones_are_left_out(uri: str) -> None:
    with open_run(uri, "e", "m", {"commit": None}, {"augmentation": {"zoom": 0.2}, "dropout": None}) as run:
        pass
    found = client(uri).get_run(run.run_id).data
    assert found.params == {"augmentation.zoom": "0.2"}
    assert "commit" not in found.tags


def test_files_lie_beside_the_local_store(uri: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "history.csv").write_text("epoch\n1\n")
    with open_run(uri, "e", "m", {}, {}) as run:
        run.log_folder(tmp_path / "folder")
    assert list((tmp_path / "mlruns").rglob("training/history.csv"))
    assert [one.path for one in client(uri).list_artifacts(run.run_id)] == ["training"]


def test_an_empty_address_logs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_run("", "e", "m", {}, {}) as run:
        run.log_epoch(1, {"loss": 1.0})
        run.log_folder(tmp_path)
    assert run.run_id is None
    assert log_evaluation(tmp_path, tmp_path, uri="", experiment="e") is None
    assert not list(tmp_path.iterdir())


def test_a_store_that_does_not_answer_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, and long enough to be read as one" * 50)
    address = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(RegistryError, match=r"received tracking uri='sqlite.*start the server"):
        client(address)


def test_several_processes_may_create_the_store_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from cxr.tracking import open_run\n"
        "with open_run(sys.argv[1], 'e', sys.argv[2], {}, {}) as run: run.log_epoch(1, {'loss': 1.0})"
    )
    address = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-c", code, address]
    running = [subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE) for number in range(2)]
    assert [process.communicate()[1].decode() for process in running] == ["", ""]
    (experiment,) = client(address).search_experiments(filter_string="name = 'e'")
    assert len(client(address).search_runs([experiment.experiment_id])) == 2


def test_an_evaluation_is_attached_to_the_run_that_trained_the_model(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    trained, judged = folders.models / "three_block", folders.evaluations / "three_block"
    with open_run(uri, "pneumonia", "three_block", {}, {}) as run:
        run.log_epoch(1, {"loss": 0.7})
    (trained / "training.json").write_text(json.dumps({"run_id": run.run_id}))
    assert log_evaluation(trained, judged, uri=uri, experiment="pneumonia") == run.run_id
    found = client(uri).get_run(run.run_id).data
    report = json.loads((judged / "metrics.json").read_text())
    assert found.metrics["test_auroc"] == pytest.approx(report["test"]["at_threshold"]["auroc"]["value"])
    assert found.metrics["validation_sensitivity"] == pytest.approx(
        report["validation"]["at_threshold"]["sensitivity"]["value"]
    )
    stored = {one.path for one in client(uri).list_artifacts(run.run_id, "evaluation")}
    assert "evaluation/card.json" in stored
    log_evaluation(trained, judged, uri=uri, experiment="pneumonia")
    assert len(client(uri).get_metric_history(run.run_id, "test_auroc")) == 1


def test_a_model_from_the_cache_is_logged_once_from_its_files(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    trained, judged = folders.models / "three_block", folders.evaluations / "three_block"
    (trained / "training.json").write_text(json.dumps({"run_id": "f" * 32}))
    run_id = log_evaluation(trained, judged, uri=uri, experiment="pneumonia")
    again = log_evaluation(trained, judged, uri=uri, experiment="pneumonia")
    assert run_id == again
    connected = client(uri)
    found = connected.get_run(run_id)
    assert found.info.run_name == "three_block"
    assert found.info.status == "FINISHED"
    assert found.data.params["seed"] == "0"
    assert [(one.step, one.value) for one in connected.get_metric_history(run_id, "auroc")] == [
        (1, 0.5),
        (2, 0.8),
        (3, 0.9),
    ]
    assert [one.step for one in connected.get_metric_history(run_id, "val_auroc")] == [2, 3]
    changed = ModelCard.read(trained)
    (trained / "history.csv").write_text("epoch,loss\n1,0.1\n")
    assert changed == ModelCard.read(trained)
    assert log_evaluation(trained, judged, uri=uri, experiment="pneumonia") != run_id
