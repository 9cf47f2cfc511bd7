"""The step evaluate: from a trained model's folder to metrics, plots, calibrated metadata and MLflow."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest

from cxr.data.image_folder import ImageFolder
from cxr.errors import DataError, MissingInputError, ParameterError
from cxr.evaluation.acquisition_changes import ACQUISITION_CHANGES
from cxr.evaluation.metrics import auroc
from cxr.images.preparation import prepare_images
from cxr.images.prepared import PreparedImages
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.plots.evaluation import PLOT_NAMES
from cxr.steps.evaluate import Evaluate
from support.figures import drawn_figures
from support.model_folders import HISTORY, RECIPE, make_metadata, small_network

SPLIT_DIGEST = "5" * 64
RATIOS = [0.7, 0.15, 0.15]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, split, prepared images and a model, as earlier steps write them; read only."""
    root = tmp_path_factory.mktemp("pipeline")
    generator = np.random.default_rng(0)
    rows = []
    (root / "data").mkdir()
    for number in range(60):
        is_pneumonia = number % 3 > 0
        subtype = ("normal", "bacteria", "virus")[number % 3]
        image = generator.normal(100 + 12 * is_pneumonia, 25, size=(40, 52))
        path = f"{subtype}_{number}.png"
        cv2.imwrite(str(root / "data" / path), np.clip(image, 0, 255).astype(np.uint8))
        patient = f"{subtype}-{number // 6}"
        label = "PNEUMONIA" if is_pneumonia else "NORMAL"
        split = ("validation", "test", "train", "excluded")[number // 15]
        rows.append((path, label, subtype, patient, patient, split))
    splits = pd.DataFrame(rows, columns=["path", "label", "subtype", "patient", "group", "split"])
    (root / "splits").mkdir()
    splits.to_parquet(root / "splits" / "splits.parquet")
    (root / "splits" / "achieved.json").write_text(json.dumps({"digest": SPLIT_DIGEST, "ratios": RATIOS}))
    facts = splits[["path"]].assign(bytes=generator.integers(900, 1100, len(splits)), width=52, height=40)
    (root / "manifest").mkdir()
    for name in ("mean", "sharpness", "gradient_ratio"):
        facts[name] = generator.normal(100, 5, len(splits))
    facts.to_parquet(root / "manifest" / "manifest.parquet")
    images = ImageFolder(root / "data")
    prepare_images(images, splits["path"].tolist(), RECIPE, root / "prepared", workers=None, progress=False)
    trained = root / "model"
    trained.mkdir()
    small_network(0).save(trained / "model.keras")
    make_metadata(split_digest=SPLIT_DIGEST).write(trained)
    history = pd.read_csv(StringIO(HISTORY)).assign(ended=[1.7e9, 1.7e9 + 20, 1.7e9 + 40])
    history.to_csv(trained / "history.csv", index=False)
    (trained / "training.json").write_text(json.dumps({"run_id": None}))
    return root


def step(pipeline: Path, evaluation: Path, **changes: Any) -> Evaluate:
    values: dict[str, Any] = {
        "model": "three_block",
        "trained": pipeline / "model",
        "prepared": pipeline / "prepared",
        "splits": pipeline / "splits",
        "manifest": pipeline / "manifest",
        "data": pipeline / "data",
        "evaluation": evaluation,
        "resamples": 100,
        "tracking_uri": "",
    }
    return Evaluate.build({**values, **changes})


@pytest.fixture(scope="module")
def evaluated(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation without the raw images; read only."""
    folder = tmp_path_factory.mktemp("evaluated") / "evaluation"
    with drawn_figures():
        step(pipeline, folder, data=pipeline / "missing").execute()
    return folder


def test_the_folder_holds_everything_and_predictions_match_the_calibrated_metadata(
    pipeline: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folder = tmp_path / "evaluation"
    step(pipeline, folder, tracking_uri=uri).execute()
    assert {path.stem for path in (folder / "plots").iterdir()} == set(PLOT_NAMES)
    assert {path.name for path in folder.iterdir()} == {
        "metrics.json",
        "summary.json",
        "predictions.parquet",
        "stress.json",
        "changed_predictions.parquet",
        "card.json",
        "digests.json",
        "plots",
        "curves",
    }
    curve = pd.read_csv(folder / "curves" / "training.csv")
    assert [*curve.columns][:2] == ["epoch", "loss"]
    assert "ended" not in curve, "a time of day, for the tracking store"

    predictions = pd.read_parquet(folder / "predictions.parquet")
    assert predictions["split"].value_counts().to_dict() == {"validation": 15, "test": 15}
    metadata = ModelMetadata.read(folder)
    predictor = Predictor.load(pipeline / "model", metadata)
    predicted = predictor.predict([pipeline / "data" / path for path in predictions["path"]])
    assert [prediction.probability for prediction in predicted] == pytest.approx(
        predictions["probability"].tolist(), abs=1e-6
    )
    report = json.loads((folder / "metrics.json").read_text())
    assert (metadata.temperature, metadata.threshold) == (
        report["temperature"],
        report["operating_point"]["threshold"],
    )
    called = [prediction.label == "PNEUMONIA" for prediction in predicted]
    test = (predictions["split"] == "test") & (predictions["label"] == "PNEUMONIA")
    true_positives = sum(is_called for is_called, is_counted in zip(called, test, strict=True) if is_counted)
    assert true_positives == report["test"]["confusion"]["true_positives"]

    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.data.metrics["test_auroc"] == pytest.approx(report["test"]["at_threshold"]["auroc"]["value"])
    stress = json.loads((folder / "stress.json").read_text())
    logged = run.data.metrics["validation_stress_auroc"]
    assert logged == pytest.approx(stress["validation"]["mean"]["auroc"]["value"])
    files = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "evaluation")}
    assert "evaluation/stress.json" in files


def test_the_report_has_shortcut_checks_and_speed(evaluated: Path) -> None:
    report = json.loads((evaluated / "metrics.json").read_text())
    summary = json.loads((evaluated / "summary.json").read_text())
    test = pd.read_parquet(evaluated / "predictions.parquet").query("split == 'test'")
    hidden = auroc(test["label"] == "PNEUMONIA", test["probability_raw_lungs_hidden"])
    assert summary["test_lungs_hidden_auroc"] == pytest.approx(float(hidden))
    assert report["honesty"]["lungs_hidden"]["full_auroc"]["value"] == pytest.approx(summary["test_auroc"])
    assert (test["probability_raw_lungs_hidden"] != test["probability_raw"]).all()
    baseline = auroc(test["label"] == "PNEUMONIA", test["score_metadata"])
    assert summary["test_metadata_auroc"] == pytest.approx(float(baseline))
    assert report["split_ratios"] == RATIOS
    assert report["speed"]["images"] == 30
    assert report["speed"]["images_per_second"] > 0
    assert report["speed"]["device"]["name"]


def test_the_changed_images_are_predicted_by_the_network_itself(pipeline: Path, evaluated: Path) -> None:
    changed = pd.read_parquet(evaluated / "changed_predictions.parquet")
    predictor, prepared = Predictor.load(pipeline / "model"), PreparedImages.open(pipeline / "prepared")
    assert len(changed) == 30 * len(ACQUISITION_CHANGES)
    for change in ACQUISITION_CHANGES[::5]:
        rows = changed[changed["change"] == change.key]
        images = np.stack([change.apply(prepared.images[row]) for row in prepared.rows(rows["path"])])
        assert rows["probability_raw"].to_numpy() == pytest.approx(predictor.probabilities(images), abs=1e-6)


def test_without_the_stress_test_everything_else_is_the_same(pipeline: Path, evaluated: Path, tmp_path: Path) -> None:
    step(pipeline, tmp_path / "plain", data=pipeline / "missing", stress=False).execute()
    names = {path.name for path in (tmp_path / "plain").rglob("*.*")}
    assert not {"stress.json", "changed_predictions.parquet", "stress.csv", "stress.png"} & names
    plain, stressed = (json.loads((folder / "summary.json").read_text()) for folder in (tmp_path / "plain", evaluated))
    assert plain == {key: value for key, value in stressed.items() if "stress" not in key} != stressed


@drawn_figures()
def test_a_coverage_adds_prediction_sets_to_card_report_and_mlflow_and_changes_nothing_else(
    pipeline: Path, evaluated: Path, tmp_path: Path
) -> None:
    uri, folder = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "evaluation"
    step(pipeline, folder, data=pipeline / "missing", coverage=0.8, tracking_uri=uri).execute()
    metadata, plain = ModelMetadata.read(folder), ModelMetadata.read(evaluated)
    sets = metadata.prediction_sets
    assert sets is not None and (sets.coverage, sets.normal_images, sets.pneumonia_images) == (0.8, 5, 10)
    assert replace(metadata, prediction_sets=None) == plain
    assert "prediction_sets" not in (evaluated / "card.json").read_text() + (evaluated / "metrics.json").read_text()
    for name in ("predictions.parquet", "stress.json", "curves/roc.csv", "plots/scores.png"):
        assert (folder / name).read_bytes() == (evaluated / name).read_bytes(), name
    report = json.loads((folder / "metrics.json").read_text())
    assert report["prediction_sets"] == asdict(sets)
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.data.metrics["test_uncertain"] == report["test"]["prediction_sets"]["uncertain"]["value"]
    assert run.data.metrics["coverage"] == 0.8


def test_a_coverage_for_which_validation_is_too_small_is_refused_before_the_network_predicts(
    pipeline: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    shutil.copyfile(pipeline / "model" / "card.json", tmp_path / "model" / "card.json")
    with pytest.raises(ParameterError, match=r"at least 19 .* coverage=0\.95, received normal=5, pneumonia=10"):
        step(pipeline, tmp_path / "evaluation", trained=tmp_path / "model", coverage=0.95).execute()
    assert not (tmp_path / "evaluation").exists()


@drawn_figures()
def test_slices_come_from_manifest_and_patients_and_change_nothing_else(
    pipeline: Path, evaluated: Path, tmp_path: Path
) -> None:
    data, folder = tmp_path / "data", tmp_path / "evaluation"
    data.mkdir()
    paths = pd.read_parquet(pipeline / "splits" / "splits.parquet")[["path", "patient"]]
    sexes = ["F" if number % 2 else "M" for number in range(len(paths) - 1)]
    paths.assign(sex=[*sexes, ""], birth=paths["patient"]).to_csv(data / "patients.csv", index=False)
    step(pipeline, folder, data=data, slices=["sex", "brightness"], slice_min_patients=1).execute()
    report, plain = (json.loads((name / "metrics.json").read_text()) for name in (folder, evaluated))
    predictions = pd.read_parquet(folder / "predictions.parquet")
    test = predictions[predictions["split"] == "test"]
    counts = {entry["slice"]: entry["images"] for entry in report["test"]["slices"]["measured"][:2]}
    assert counts == test["slice.sex"].value_counts().to_dict() == {"M": 7, "F": 8}
    assert sum(entry["column"] == "brightness" for entry in report["test"]["slices"]["measured"]) == 3
    assert "birth" not in str(list(predictions)) and "sex" not in predictions
    worst = report["test"]["slices"]["worst"]
    assert (
        json.loads((folder / "summary.json").read_text())["test_worst_slice_sensitivity"]
        == (worst["sensitivity"]["value"])
    )
    for entry in (report, *(report[split] for split in ("validation", "test"))):
        del entry["slices"]
    assert {name: value for name, value in report.items() if name != "speed"} == {
        name: value for name, value in plain.items() if name != "speed"
    }
    for name in ("card.json", "stress.json", "curves/roc.csv", "plots/scores.png"):
        assert (folder / name).read_bytes() == (evaluated / name).read_bytes(), name


def test_a_slice_of_no_column_is_refused_before_the_network_predicts(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    shutil.copyfile(pipeline / "model" / "card.json", tmp_path / "model" / "card.json")
    with pytest.raises(ParameterError, match=r"columns of bytes, .*size, brightness; .*received slices=sex"):
        step(pipeline, tmp_path / "evaluation", trained=tmp_path / "model", slices=["sex"]).execute()
    assert not (tmp_path / "evaluation").exists()


def test_phantoms_have_their_own_number_of_changed_images(pipeline: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "model"
    drawn.mkdir()
    (drawn / "model.keras").write_bytes((pipeline / "model" / "model.keras").read_bytes())
    make_metadata(split_digest=SPLIT_DIGEST, dataset={"name": "phantom", "kind": "phantom"}).write(drawn)
    step(pipeline, tmp_path / "evaluation", trained=drawn, phantom_stress_images=4).execute()
    stress = json.loads((tmp_path / "evaluation" / "stress.json").read_text())
    assert [stress[split]["images"] for split in ("validation", "test")] == [4, 4]
    assert stress["test"]["normal"] == 2


def test_a_manifest_of_other_images_is_refused(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    facts = pd.read_parquet(pipeline / "manifest" / "manifest.parquet")
    facts.iloc[:-20].to_parquet(tmp_path / "manifest" / "manifest.parquet")
    with pytest.raises(DataError, match="manifest that the split was made from"):
        step(pipeline, tmp_path / "evaluation", manifest=tmp_path / "manifest").execute()
    assert not (tmp_path / "evaluation").exists()


def test_a_model_trained_on_another_split_is_refused(pipeline: Path, tmp_path: Path) -> None:
    other_model = tmp_path / "model"
    other_model.mkdir()
    (other_model / "model.keras").write_bytes((pipeline / "model" / "model.keras").read_bytes())
    make_metadata(split_digest="6" * 64).write(other_model)
    with pytest.raises(DataError, match="split that three_block was trained on"):
        step(pipeline, tmp_path / "evaluation", trained=other_model).execute()
    assert not (tmp_path / "evaluation").exists()


def test_a_model_of_another_name_is_refused(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="model=three_block"):
        step(pipeline, tmp_path / "evaluation", model="shallow").execute()


def test_images_of_another_recipe_are_refused(pipeline: Path, tmp_path: Path) -> None:
    other_model = tmp_path / "model"
    other_model.mkdir()
    (other_model / "model.keras").write_bytes((pipeline / "model" / "model.keras").read_bytes())
    make_metadata(split_digest=SPLIT_DIGEST, recipe={**RECIPE.to_dict(), "size": 32}).write(other_model)
    with pytest.raises(DataError, match="recipe that three_block was trained on"):
        step(pipeline, tmp_path / "evaluation", trained=other_model).execute()


def test_the_sheet_of_mistakes_does_without_the_raw_images(evaluated: Path) -> None:
    assert (evaluated / "plots" / "mistakes.png").stat().st_size > 10_000


def test_missing_inputs_are_named(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="trained"):
        step(pipeline, tmp_path / "evaluation", trained=tmp_path / "none").execute()


def test_wrong_parameters_are_reported_together() -> None:
    with pytest.raises(ParameterError) as caught:
        Evaluate.build(
            {
                "model": "m",
                "trained": "a",
                "prepared": "b",
                "evaluation": "c",
                "rule": "guess",
                "target": 2,
                "sensitivities": [0.5, 1.5],
                "resamples": 1,
                "coverage": 1.0,
                "slices": ["sex", "sex"],
                "colour": "red",
            }
        )
    text = str(caught.value)
    for part in (
        "rule='guess'",
        "target=2",
        "sensitivities=[0.5, 1.5]",
        "resamples=1",
        "coverage=1.0",
        "slices=['sex', 'sex']",
        "unknown parameter colour",
    ):
        assert part in text
