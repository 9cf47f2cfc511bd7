"""The whole job as a person runs it: DVC runs every step on a small drawn data set.

The first step is the installed command. Those that DVC starts are forks, which do not import all packages again.
In `make test`, tests/steps runs each step, and tests/contracts compares the graph with the steps. `make run` is the
same way with all networks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from support.forked_processes import COMMAND, write_command

pytestmark = pytest.mark.exhaustive

MODELS = ("three_block", "residual_separable")
"""One network with a sigmoid and one with a softmax; the others differ in layers alone."""
IMAGES = 40
EPOCHS = {"three_block": 5, "residual_separable": 2}
"""Enough of the first for a kill between two of them."""
EVALUATIONS = {model: f"artifacts/evaluations/{model}" for model in MODELS} | {
    "weighted": "artifacts/ensemble/evaluation"
}

SHORT_NETWORK = f"from cxr.models import residual_separable; residual_separable.BLOCKS = (16,); {COMMAND}"
"""Code of ``cxr`` with one residual block in place of four, which TensorFlow takes long to trace."""


def environment(*programs):
    """A person's, with as many threads as there are cores; programs in these folders come first."""
    return {name: value for name, value in os.environ.items() if not name.endswith("_THREADS")} | {
        "PATH": os.pathsep.join(map(str, [*programs, Path(sys.executable).parent, os.environ["PATH"]])),
        "DVC_NO_ANALYTICS": "1",
        "GIT_CEILING_DIRECTORIES": "/",
    }


def run(folder, *words):
    answer = subprocess.run(
        words, cwd=folder, env=environment(folder.parent / "bin"), capture_output=True, text=True, timeout=500
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    return answer.stdout + answer.stderr


@pytest.fixture(scope="module")
def project(repository, tmp_path_factory):
    """A copy of the project with small values, after fetch and dvc repro."""
    folder = tmp_path_factory.mktemp("project") / "cxr"
    folder.mkdir()
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", "pyproject.toml"):
        shutil.copy(repository / name, folder)
    shutil.copytree(repository / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".dvc").mkdir()
    shutil.copy(repository / ".dvc" / "config", folder / ".dvc")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["fetch"] |= {"phantom_images": IMAGES, "phantom_seed": 1}
    params["models"] = {name: params["models"][name] | {"phantom_epochs": EPOCHS[name]} for name in MODELS}
    params["recipes"] = {params["models"][name]["recipe"]: {"size": 48} for name in MODELS}
    params["evaluate"]["resamples"] = 100
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run(folder, "git", "init", "-q")
    run(folder, "cxr", "fetch", "--params", "params.yaml")
    (folder.parent / "bin").mkdir()
    write_command(folder.parent / "bin" / "cxr", SHORT_NETWORK)
    run(folder, "dvc", "repro")
    return folder


def test_every_image_has_one_side_and_every_test_image_one_answer(project):
    splits = pd.read_parquet(project / "artifacts/splits/splits.parquet")
    assert len(splits) == IMAGES
    assert set(splits["split"]) == {"train", "validation", "test"}
    for evaluation in EVALUATIONS.values():
        predictions = pd.read_parquet(project / evaluation / "predictions.parquet")
        expected = splits.loc[splits["split"] != "train", "path"]
        assert sorted(predictions["path"]) == sorted(expected)
        assert predictions["probability"].between(0, 1).all()


def test_no_patient_is_on_two_sides(project):
    splits = pd.read_parquet(project / "artifacts/splits/splits.parquet")
    assert (splits.groupby("patient")["split"].nunique() == 1).all()


def test_figures_in_the_report_are_those_of_the_predictions(project):
    for evaluation in EVALUATIONS.values():
        folder = project / evaluation
        summary = json.loads((folder / "summary.json").read_text())
        test = pd.read_parquet(folder / "predictions.parquet").query("split == 'test'")
        called = test["probability"] >= summary["threshold"]
        sick = test["label"] == "PNEUMONIA"
        assert summary["test_accuracy"] == pytest.approx((called == sick).mean())
        assert summary["test_sensitivity"] == pytest.approx(called[sick].mean())


def test_phantom_model_trained_without_gpu_is_challenger_and_never_champion(project):
    decision = (project / "artifacts/registration/decision.html").read_text()
    assert "champion is nobody" in decision and "the policy wants proof of a GPU" in decision
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    registered = client.get_registered_model("pneumonia-classifier")
    assert set(registered.aliases) == {"challenger"}
    versions = client.search_model_versions("name='pneumonia-classifier'")
    assert {version.tags["model"] for version in versions} == set(EVALUATIONS)
    challenger = client.get_model_version_by_alias("pneumonia-classifier", "challenger")
    scores = {
        model: json.loads((project / evaluation / "summary.json").read_text())["validation_auroc"]
        for model, evaluation in EVALUATIONS.items()
    }
    assert scores[challenger.tags["model"]] == max(scores.values())
    assert challenger.tags["dataset_kind"] == "phantom"


def test_training_shows_its_epochs_in_mlflow(project):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    run_id = json.loads((project / "artifacts/models/three_block/training.json").read_text())["run_id"]
    for metric in ("loss", "accuracy", "precision", "recall", "f1", "auroc"):
        for name in (metric, f"val_{metric}"):
            assert [point.step for point in client.get_metric_history(run_id, name)] == [1, 2, 3, 4, 5], name
    assert client.get_run(run_id).data.metrics["test_auroc"] >= 0


def test_nothing_runs_again_when_nothing_changed(project):
    assert "Running stage" not in run(project, "dvc", "repro")


def test_only_the_model_whose_values_changed_is_trained_again(project):
    text = (project / "params.yaml").read_text()
    params = yaml.safe_load(text)
    params["models"]["three_block"]["learning_rate"] = 0.002
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    try:
        status = run(project, "dvc", "status", "--json")
        changed = json.loads(status[status.index("{") : status.rindex("}") + 1])
        assert set(changed) == {"train@three_block"}
    finally:
        (project / "params.yaml").write_text(text)


def test_leaderboard_lists_every_model(project):
    shown = run(project, "dvc", "metrics", "show")
    assert all(f"{evaluation}/summary.json" in shown for evaluation in EVALUATIONS.values())


def test_plots_of_all_models_come_together(project):
    run(project, "dvc", "plots", "show", "-o", "plots")
    page = (project / "plots" / "index.html").read_text()
    assert "ROC curve on test images" in page
    assert list((project / "plots").rglob("*roc.png"))


def train(folder):
    words = [
        *("cxr", "train", "--params", "params.yaml", "--model", "three_block"),
        *("--prepared", "artifacts/prepared/s2_resize", "--tracking_uri", ""),
        *("--trained", "trained/killed", "--checkpoints", "checkpoints/killed"),
    ]
    return subprocess.Popen(words, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)


def weights(folder):
    import keras

    return keras.saving.load_model(folder / "model.keras", compile=False).get_weights()


def test_training_killed_for_good_goes_on_and_ends_with_the_same_weights(project):
    killed = train(project)
    deadline = time.monotonic() + 200
    while not list((project / "checkpoints/killed").glob("phase-0/epoch-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(30) == -signal.SIGKILL
    assert not (project / "trained/killed").exists()

    resumed = train(project)
    _, text = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, text
    assert "training goes on after epoch" in text
    whole, again = (weights(project / path) for path in ("artifacts/models/three_block", "trained/killed"))
    for first, second in zip(whole, again, strict=True):
        np.testing.assert_array_equal(first, second)
    assert not (project / "checkpoints/killed").exists()


TRANSFER = {
    "mobilenetv2": {
        "architecture": "mobilenetv2", "recipe": "s3_equalise_morphology", "weights": "backbone.weights.h5",
        "optimizer": "nadam", "epochs": 3, "phantom_epochs": 1, "unfrozen_layers": 5, "fine_tune_epochs": 1,
        "augmented_views": 1, "dropout": 0.2, "augmentation": {"horizontal_flip": True, "zoom": 0.3},
    }
}  # fmt: skip


def test_transfer_networks_have_a_graph_of_their_own_and_join_the_others(project, repository):
    import keras

    shutil.copytree(repository / "transfer", project / "transfer", ignore=shutil.ignore_patterns("dvc.lock"))
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["transfer"] = TRANSFER
    params["transfer_recipes"] = {"s3_equalise_morphology": {"size": 48}}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    assert "Running stage" not in run(project, "dvc", "repro"), "the first command must not need the weights"

    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(48, 48, 3))
    backbone.save_weights(project / "backbone.weights.h5")
    shown = run(project, "dvc", "repro", "transfer/dvc.yaml")
    assert "the backbone is frozen" in shown
    assert "the last 5 layers of the backbone are trained too" in shown
    trained = project / "artifacts/transfer/models/mobilenetv2"
    facts = json.loads((trained / "training.json").read_text())
    assert facts["epochs_run"] == 2
    assert not (project / "artifacts/checkpoints/mobilenetv2").exists()
    # Frozen layers stay as they were, and so do the last ones unless the second phase was the better one.
    again = keras.saving.load_model(trained / "model.keras", compile=False)
    first, last = backbone.layers[1].name, "Conv_1"
    np.testing.assert_array_equal(again.get_layer(first).get_weights()[0], backbone.get_layer(first).get_weights()[0])
    same = np.array_equal(again.get_layer(last).get_weights()[0], backbone.get_layer(last).get_weights()[0])
    assert same == (facts["best_epoch"] == 1)
    card = json.loads((project / "artifacts/transfer/ensemble/model/card.json").read_text())
    assert {member["model"] for member in card["members"]} == {*MODELS, "mobilenetv2"}
    decision = json.loads((project / "artifacts/transfer/registration/decision.json").read_text())
    assert "mobilenetv2" in json.dumps(decision)
    assert "Running stage" not in run(project, "dvc", "repro", "transfer/dvc.yaml")


DETECTORS = {
    "retinanet": {
        "backbone": "efficientnet_lite0", "recipe": "s1_resize", "weights": "imagenet", "channels": 8,
        "convolutions": 0, "batch_size": 16, "phantom_epochs": 1, "augmentation": {"horizontal_flip": True},
    }
}  # fmt: skip


def test_detectors_have_a_graph_of_their_own_and_are_judged_beside_a_classifier(project, repository):
    shutil.copytree(repository / "regions", project / "regions", ignore=shutil.ignore_patterns("dvc.lock"))
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["recipes"]["s1_resize"] = {"size": 64}
    params["regions"] = DETECTORS
    params["evaluate_regions"] |= {"compare_with": "three_block", "resamples": 100}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    shown = run(project, "dvc", "repro")
    assert "Running stage 'preprocess@s1_resize'" in shown
    assert "regions" not in shown, "the first command must not need boxes"

    shown = run(project, "dvc", "repro", "regions/dvc.yaml")
    assert "detector epoch 1/1" in shown
    assert not (project / "artifacts/checkpoints/regions-retinanet").exists()
    summary = json.loads((project / "artifacts/regions/evaluations/retinanet/summary.json").read_text())
    assert 0 <= summary["test_mean_average_precision"] <= 1
    methods = pd.read_csv(project / "artifacts/regions/evaluations/retinanet/methods.csv")
    assert set(methods["method"]) == {"detector", "grad_cam", "prior_with_classifier", "prior"}
    decision = json.loads((project / "artifacts/regions/registration/decision.json").read_text())
    assert decision["registered_name"] == "pneumonia-regions"
    assert [candidate["model"] for candidate in decision["candidates"]] == ["retinanet"]
    assert "Running stage" not in run(project, "dvc", "repro", "regions/dvc.yaml")


def test_detectors_of_a_data_set_without_boxes_are_refused_in_one_sentence(project, tmp_path):
    boxes = project / "data" / "boxes.json"
    boxes.rename(tmp_path / "boxes.json")
    try:
        answer = subprocess.run(
            ["dvc", "repro", "--single-item", "regions/dvc.yaml:train@retinanet"],
            cwd=project, env=environment(), capture_output=True, text=True, timeout=500,
        )  # fmt: skip
    finally:
        (tmp_path / "boxes.json").rename(boxes)
    assert answer.returncode != 0
    lines = [line for line in answer.stderr.splitlines() if line.startswith("cxr train_regions: ")]
    assert len(lines) == 1 and "expected a data set with the boxes of its opacities" in lines[0], answer.stderr
    assert "exited with 2" in answer.stderr
