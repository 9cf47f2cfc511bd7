from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cxr.errors import RegistryError
from cxr.models.metadata import ModelMetadata
from cxr.tracking.active_run import close_trial, open_run
from cxr.tracking.finished_run import log_evaluation, try_to_log_evaluation
from cxr.tracking.store import Store
from support.forked_processes import ForkedProcess
from support.model_folders import CPU, write_models


def test_epochs_can_be_read_while_the_training_runs(store: Store) -> None:
    with open_run(store, "pneumonia", "three_block", {}, {}) as run:
        run.log_epoch(1, {"loss": 0.5, "val_auroc": math.nan})
        running = store.client.get_run(run.run_id)
        assert running.info.status == "RUNNING"
        assert running.data.metrics["loss"] == 0.5
    assert store.client.get_run(run.run_id).info.status == "FINISHED"


def test_a_resumed_training_continues_its_run_and_logs_no_epoch_twice(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(store, "pneumonia", "m", {}, {"epochs": 3}) as first:
        first.log_epoch(1, {"loss": 0.7})
        first.log_epoch(2, {"loss": 0.6})
        raise KeyboardInterrupt
    assert store.client.get_run(first.run_id).info.status == "KILLED"
    with open_run(store, "pneumonia", "m", {}, {"epochs": 4}, run_id=first.run_id) as second:
        for epoch, loss in ((2, 0.6), (3, 0.5)):
            second.log_epoch(epoch, {"loss": loss})
    assert second.run_id == first.run_id
    logged = store.client.get_metric_history(first.run_id, "loss")
    assert [(metric.step, metric.value) for metric in logged] == [(1, 0.7), (2, 0.6), (3, 0.5)]
    assert store.client.get_run(first.run_id).info.status == "FINISHED"


def test_a_failed_training_is_a_failed_run(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), open_run(store, "pneumonia", "m", {}, {}) as run:
        raise ZeroDivisionError
    assert store.client.get_run(run.run_id).info.status == "FAILED"


def test_a_trial_is_shown_below_its_search_and_its_end_is_logged_once(store: Store) -> None:
    with open_run(store, "e", "search", {}, {}) as search:
        with open_run(store, "e", "trial", {}, {}, parent=search.run_id) as trial:
            trial.log_epoch(1, {"val_loss": 0.5})
        close_trial(store, trial.run_id, "pruned", {"best_val_loss": 0.5, "unknown": math.nan})
        close_trial(store, trial.run_id, "complete", {"best_val_loss": 0.1})
    logged_run = store.client.get_run(trial.run_id)
    assert logged_run.data.tags["mlflow.parentRunId"] == search.run_id
    assert (logged_run.data.tags["state"], logged_run.info.status) == ("pruned", "KILLED")
    assert logged_run.data.metrics == {"val_loss": 0.5, "best_val_loss": 0.5}
    assert "mlflow.parentRunId" not in store.client.get_run(search.run_id).data.tags


def test_a_trial_without_a_run_is_no_error(store: Store) -> None:
    close_trial(store, None, "killed", {})
    close_trial(store, "0" * 32, "killed", {})
    close_trial(None, "0" * 32, "killed", {})


def test_a_run_id_that_the_store_does_not_know_gets_a_new_run(store: Store) -> None:
    with open_run(store, "pneumonia", "m", {}, {}, run_id="0" * 32) as run:
        run.log_epoch(1, {"loss": 1.0})
    assert run.run_id != "0" * 32
    assert store.client.get_run(run.run_id).data.metrics == {"loss": 1.0}


def test_runs_on_phantoms_have_an_experiment_of_their_own_and_say_so(store: Store) -> None:
    with open_run(store, "pneumonia", "m", {}, {}, dataset_kind="phantom") as run:
        pass
    logged_run = store.client.get_run(run.run_id)
    assert store.client.get_experiment(logged_run.info.experiment_id).name == "pneumonia (phantoms)"
    assert logged_run.data.tags["dataset_kind"] == "phantom"


def test_nested_parameters_become_flat_and_unknown_ones_are_left_out(store: Store) -> None:
    with open_run(store, "e", "m", {"commit": None}, {"augmentation": {"zoom": 0.2}, "dropout": None}) as run:
        pass
    logged_run = store.client.get_run(run.run_id).data
    assert logged_run.params == {"augmentation.zoom": "0.2"}
    assert "commit" not in logged_run.tags


def test_artifacts_are_stored_beside_the_local_store(store: Store, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "history.csv").write_text("epoch\n1\n")
    with open_run(store, "e", "m", {}, {}) as run:
        run.log_folder(tmp_path / "folder")
    assert list((tmp_path / "mlruns").rglob("training/history.csv"))
    assert [file.path for file in store.client.list_artifacts(run.run_id)] == ["training"]


def test_nothing_is_logged_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_run(None, "e", "m", {}, {}) as run:
        run.log_epoch(1, {"loss": 1.0})
        run.log_folder(tmp_path)
    assert run.run_id is None
    try_to_log_evaluation(None, tmp_path, tmp_path, experiment="e")
    assert not list(tmp_path.iterdir())


def test_a_store_that_does_not_answer_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, and long enough to be read as one" * 50)
    address = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(RegistryError, match=r"received tracking uri='sqlite.*file is damaged.*restore it"):
        Store(address).connect()


def test_several_processes_may_create_the_store_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from cxr.tracking.active_run import open_run\n"
        "from cxr.tracking.store import Store\n"
        "with open_run(Store(sys.argv[1]), 'e', sys.argv[2], {}, {}) as run: run.log_epoch(1, {'loss': 1.0})"
    )
    address = f"sqlite:///{tmp_path}/mlflow.db"
    processes = [ForkedProcess(code, address, str(number)) for number in range(2)]
    assert [process.communicate(300)[1] for process in processes] == ["", ""]
    (experiment,) = Store(address).client.search_experiments(filter_string="name = 'e'")
    assert len(Store(address).client.search_runs([experiment.experiment_id])) == 2


def test_an_evaluation_is_attached_to_the_run_that_trained_the_model(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    trained, evaluation = folders.models / "three_block", folders.evaluations / "three_block"
    with open_run(store, "pneumonia", "three_block", {}, {}) as run:
        run.log_epoch(1, {"loss": 0.7})
    (trained / "training.json").write_text(json.dumps({"run_id": run.run_id}))
    assert log_evaluation(store, trained, evaluation, experiment="pneumonia") == run.run_id
    logged_run = store.client.get_run(run.run_id).data
    metrics = json.loads((evaluation / "metrics.json").read_text())
    assert logged_run.metrics["test_auroc"] == pytest.approx(metrics["test"]["at_threshold"]["auroc"]["value"])
    assert logged_run.metrics["validation_sensitivity"] == pytest.approx(
        metrics["validation"]["at_threshold"]["sensitivity"]["value"]
    )
    stored = {file.path for file in store.client.list_artifacts(run.run_id, "evaluation")}
    assert "evaluation/card.json" in stored
    log_evaluation(store, trained, evaluation, experiment="pneumonia")
    assert len(store.client.get_metric_history(run.run_id, "test_auroc")) == 1


def test_the_data_sets_of_a_model_are_inputs_of_its_run_once_and_can_be_searched_for(
    store: Store, tmp_path: Path
) -> None:
    dataset = {"name": "kermany", "kind": "patients", "source": "s3://bucket/kermany"}
    training = {"device": CPU, "seconds": 1.5, "epochs_run": 3, "train_images": 120}
    folders = write_models(tmp_path, dataset=dataset, training=training)
    trained, evaluation = folders.models / "three_block", folders.evaluations / "three_block"
    run_id = log_evaluation(store, trained, evaluation, experiment="pneumonia")
    summary = evaluation / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "threshold": 0.5}))
    assert log_evaluation(store, trained, evaluation, experiment="pneumonia") == run_id, "it is logged anew"
    client = store.client
    inputs = client.get_run(run_id).inputs.dataset_inputs
    assert len(inputs) == 3
    sets = {entry.tags[0].value: entry.dataset for entry in inputs}
    assert {context: data.name for context, data in sets.items()} == {
        "training": "kermany train", "validation": "kermany validation", "test": "kermany test",
    }  # fmt: skip
    assert len({data.digest for data in sets.values()}) == 3
    metrics = json.loads((evaluation / "metrics.json").read_text())["test"]
    profile = json.loads(sets["test"].profile)
    assert {name: profile[name] for name in ("images", "patients", "normal", "pneumonia")} == {
        name: metrics[name] for name in ("images", "patients", "normal", "pneumonia")
    }
    assert json.loads(sets["training"].profile)["num_rows"] == 120
    assert json.loads(sets["training"].source) == {"uri": "s3://bucket/kermany"}
    assert sets["training"].source_type == "s3"
    experiment_id = client.get_experiment_by_name("pneumonia").experiment_id
    (match,) = client.search_runs([experiment_id], "dataset.name = 'kermany test' AND dataset.context = 'test'")
    assert match.info.run_id == run_id


def test_models_of_one_split_with_other_numbers_of_training_images_show_their_own(store: Store, tmp_path: Path) -> None:
    dataset, shown = {"name": "phantom", "kind": "phantom"}, []
    for images in (64, 401):
        training = {"device": CPU, "seconds": 1.5, "epochs_run": 3, "train_images": images}
        folders = write_models(tmp_path / str(images), dataset=dataset, training=training)
        trained, evaluation = folders.models / "three_block", folders.evaluations / "three_block"
        run_id = log_evaluation(store, trained, evaluation, experiment="pneumonia")
        inputs = {entry.tags[0].value: entry.dataset for entry in store.client.get_run(run_id).inputs.dataset_inputs}
        shown.append(json.loads(inputs["training"].profile)["num_rows"])
    assert shown == [64, 401]


def test_a_model_from_the_cache_is_logged_once_from_its_files(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    trained, evaluation = folders.models / "three_block", folders.evaluations / "three_block"
    (trained / "training.json").write_text(json.dumps({"run_id": "f" * 32}))
    run_id = log_evaluation(store, trained, evaluation, experiment="pneumonia")
    again = log_evaluation(store, trained, evaluation, experiment="pneumonia")
    assert run_id == again
    client = store.client
    logged_run = client.get_run(run_id)
    assert logged_run.info.run_name == "three_block"
    assert logged_run.info.status == "FINISHED"
    assert logged_run.data.params["seed"] == "0"
    assert [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "auroc")] == [
        (1, 0.5),
        (2, 0.8),
        (3, 0.9),
    ]
    assert [metric.step for metric in client.get_metric_history(run_id, "val_auroc")] == [2, 3]
    metadata = ModelMetadata.read(trained)
    (trained / "history.csv").write_text("epoch,loss\n1,0.1\n")
    assert metadata == ModelMetadata.read(trained)
    assert log_evaluation(store, trained, evaluation, experiment="pneumonia") != run_id
