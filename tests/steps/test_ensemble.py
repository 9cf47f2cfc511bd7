"""The step ensemble: from evaluated models to weights, an evaluation, a comparison and a folder that predicts."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.errors import DataError, MissingInputError
from cxr.evaluation.calibration import apply_temperature, pool_probabilities
from cxr.evaluation.metrics import auroc, log_loss
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.models.prediction_sets import UNCERTAIN
from cxr.models.stored_files import damaged_files, record_digests
from cxr.plots.evaluation import PLOT_NAMES
from cxr.steps.ensemble import Ensemble
from cxr.steps.parameters import merge_parameters
from cxr.tables import write_table
from support.half_lungs import MEMBERS, USED, ensemble_step
from support.model_folders import CPU, ModelFolders, make_metadata

HalfLungs = tuple[ModelFolders, Path]


def auroc_and_log_loss(table: pd.DataFrame, split: str) -> tuple[float, float]:
    rows = table[table["split"] == split]
    labels = rows["label"] == "PNEUMONIA"
    return float(auroc(labels, rows["probability"])), float(log_loss(labels, rows["probability"]))


def test_the_folder_holds_what_prediction_needs_and_an_evaluation_as_of_any_model(half_lungs: HalfLungs) -> None:
    _, folder = half_lungs
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    expected = {"comparison.json", "model/card.json"}
    expected |= {f"model/members/{name}/{file}" for name in USED for file in ("model.keras", "card.json")}
    expected |= {f"evaluation/{name}" for name in ("card.json", "metrics.json", "summary.json", "predictions.parquet")}
    expected |= {"evaluation/stress.json", "evaluation/changed_predictions.parquet", "evaluation/curves/stress.csv"}
    expected |= {f"evaluation/plots/{name}.png" for name in PLOT_NAMES if name != "training"}
    expected |= {f"evaluation/curves/{name}.csv" for name in ("roc", "roc_band", "precision_recall", "calibration")}
    folders = ("model", "evaluation", *(f"model/members/{name}" for name in USED))
    assert files == expected | {f"{name}/digests.json" for name in folders}
    assert [damaged_files(folder / name) for name in folders] == [[]] * len(folders)


def test_the_metadata_lists_every_member_with_its_weight_and_metadata(half_lungs: HalfLungs) -> None:
    folders, folder = half_lungs
    metadata = ModelMetadata.read(folder / "model")
    assert metadata == ModelMetadata.read(folder / "evaluation")
    assert (metadata.model, metadata.system, metadata.calibrated) == ("weighted", "S3", True)
    assert [member.model for member in metadata.members] == sorted(MEMBERS)
    assert [member.model for member in metadata.members if member.weight > 0] == USED
    assert next(member.weight for member in metadata.members if member.model == "reversed") == 0
    for member in metadata.members:
        assert member.card == ModelMetadata.read(folders.evaluations / member.model)
    for name in USED:
        assert ModelMetadata.read(folder / "model" / "members" / name) == ModelMetadata.read(folders.evaluations / name)
    assert metadata.recipe == {"name": "s2_resize + s4_resize"}
    assert metadata.training == {"device": {**CPU}, "seconds": 3.0}
    assert metadata.parameters == 90


def test_the_predictions_are_those_of_the_members_pooled(half_lungs: HalfLungs) -> None:
    folders, folder = half_lungs
    metadata = ModelMetadata.read(folder / "model")
    predictions = pd.read_parquet(folder / "evaluation" / "predictions.parquet")
    tables = [
        pd.read_parquet(folders.evaluations / member.model / "predictions.parquet") for member in metadata.members
    ]
    raw = pool_probabilities([table["probability"] for table in tables], [member.weight for member in metadata.members])
    assert predictions["probability_raw"].to_numpy() == pytest.approx(raw)
    assert metadata.temperature == pytest.approx(1, abs=1e-3), "fitted weights leave nothing to calibrate"
    assert predictions["probability"].to_numpy() == pytest.approx(apply_temperature(raw, metadata.temperature))
    for table in tables:
        assert auroc_and_log_loss(predictions, "validation")[1] <= auroc_and_log_loss(table, "validation")[1]


def test_the_comparison_is_with_the_best_member_on_validation(half_lungs: HalfLungs) -> None:
    folders, folder = half_lungs
    comparison = json.loads((folder / "comparison.json").read_text())
    tables = {name: pd.read_parquet(folders.evaluations / name / "predictions.parquet") for name in MEMBERS}
    best = max(tables, key=lambda name: auroc_and_log_loss(tables[name], "validation")[0])
    assert (comparison["ours"], comparison["theirs"]) == ("weighted", best)
    pooled = pd.read_parquet(folder / "evaluation" / "predictions.parquet")
    for position, name in enumerate(("auroc", "log_loss")):
        for split in ("validation", "test"):
            assert comparison[split][name]["ours"] == pytest.approx(auroc_and_log_loss(pooled, split)[position])
            assert comparison[split][name]["theirs"] == pytest.approx(auroc_and_log_loss(tables[best], split)[position])
    # Both halves together are better than one, on new images too.
    assert comparison["test"]["auroc"]["difference"] > 0 > comparison["test"]["log_loss"]["difference"]
    assert comparison["bootstrap"]["resamples"] == 200
    assert comparison["sentence"].startswith(f"On 60 test images weighted has a higher AUROC than {best}")


def test_the_same_models_give_the_same_files(half_lungs: HalfLungs, tmp_path: Path) -> None:
    folders, folder = half_lungs
    ensemble_step(folders, tmp_path / "ensemble").execute()
    for name in ("comparison.json", "model/card.json", "evaluation/metrics.json", "evaluation/curves/roc.csv"):
        assert (tmp_path / "ensemble" / name).read_bytes() == (folder / name).read_bytes(), name


def test_an_ensemble_of_a_coverage_says_uncertain_as_its_evaluation_does(half_lungs: HalfLungs, tmp_path: Path) -> None:
    folders, plain = half_lungs
    folder = tmp_path / "ensemble"
    ensemble_step(folders, folder, coverage=0.9).execute()
    metadata, report = (
        ModelMetadata.read(folder / "model"),
        json.loads((folder / "evaluation/metrics.json").read_text()),
    )
    assert metadata == ModelMetadata.read(folder / "evaluation")
    sets = metadata.prediction_sets
    assert sets is not None and asdict(sets) == report["prediction_sets"]
    assert (sets.coverage, sets.normal_images, sets.pneumonia_images) == (0.9, 30, 30)
    assert replace(metadata, prediction_sets=None) == ModelMetadata.read(plain / "model")
    table = pd.read_parquet(folder / "evaluation/predictions.parquet").set_index("path")
    test_images = [path for path in folders.images if table.loc[path.name, "split"] == "test"]
    labels = Counter(prediction.label for prediction in Predictor.load(folder / "model").predict(test_images))
    counts = report["test"]["prediction_sets"]["counts"]
    expected = {NORMAL: counts["normal"], PNEUMONIA: counts["pneumonia"], UNCERTAIN: counts["both"] + counts["none"]}
    assert labels == Counter({name: count for name, count in expected.items() if count})
    assert labels[UNCERTAIN] > 0


def test_an_ensemble_has_the_slices_of_its_members_and_needs_them(half_lungs: HalfLungs, tmp_path: Path) -> None:
    folders, _ = half_lungs
    with pytest.raises(DataError, match=r"slices ward, received none of: ward; run `cxr evaluate` for each model"):
        ensemble_step(folders, tmp_path / "refused", slices=["ward"]).execute()
    assert not (tmp_path / "refused").exists()
    evaluations = tmp_path / "evaluations"
    shutil.copytree(folders.evaluations, evaluations)
    for name in MEMBERS:
        path = evaluations / name / "predictions.parquet"
        table = pd.read_parquet(path)
        wards = pd.Categorical(["B" if number % 3 else "A" for number in range(len(table))], ordered=True)
        write_table(path, table.assign(**{"slice.ward": wards}))
        record_digests(evaluations / name)
    folder = tmp_path / "ensemble"
    ensemble_step(replace(folders, evaluations=evaluations), folder, slices=["ward"]).execute()
    test = json.loads((folder / "evaluation" / "metrics.json").read_text())["test"]
    rows = pd.read_parquet(folder / "evaluation" / "predictions.parquet").query("split == 'test'")
    threshold = ModelMetadata.read(folder / "model").threshold
    for entry in test["slices"]["measured"]:
        sick = rows[(rows["slice.ward"] == entry["slice"]) & (rows["label"] == PNEUMONIA)]
        assert entry["sensitivity"]["value"] == pytest.approx((sick["probability"] >= threshold).mean())
    assert [entry["slice"] for entry in test["slices"]["measured"]] == ["A", "B"]


def test_only_named_members_are_joined_and_logged_once(half_lungs: HalfLungs, uri: str, tmp_path: Path) -> None:
    folders, _ = half_lungs
    for _ in range(2):
        ensemble_step(folders, tmp_path / "ensemble", members=["right"], tracking_uri=uri).execute()
    assert [(member.model, member.weight) for member in ModelMetadata.read(tmp_path / "ensemble/model").members] == [
        ("right", 1)
    ]
    comparison = json.loads((tmp_path / "ensemble" / "comparison.json").read_text())
    assert comparison["test"]["auroc"]["p_value"] == 1
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    summary = json.loads((tmp_path / "ensemble/evaluation/summary.json").read_text())
    assert run.info.run_name == "weighted"
    assert run.data.params["weights.right"] == "1.0"
    assert run.data.metrics["test_auroc"] == pytest.approx(summary["test_auroc"])
    assert "restored" not in run.data.tags
    assert "plots" in {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "evaluation")}


def test_without_the_raw_images_only_the_sheet_of_mistakes_is_missing(half_lungs: HalfLungs, tmp_path: Path) -> None:
    folders, _ = half_lungs
    ensemble_step(folders, tmp_path / "ensemble", data=tmp_path / "missing").execute()
    drawn = {path.stem for path in (tmp_path / "ensemble/evaluation/plots").iterdir()}
    assert drawn == set(PLOT_NAMES) - {"training", "mistakes"}


def test_phantoms_and_patients_are_never_joined(half_lungs: HalfLungs, tmp_path: Path) -> None:
    folders = ModelFolders(tmp_path / "models", tmp_path / "evaluations", half_lungs[0].images)
    shutil.copytree(half_lungs[0].models, folders.models)
    shutil.copytree(half_lungs[0].evaluations, folders.evaluations)
    for folder in (folders.models, folders.evaluations):
        path = folder / "left" / "card.json"
        drawn = {**json.loads(path.read_text()), "dataset": {"name": "phantom", "kind": "phantom"}}
        path.write_text(json.dumps(drawn))
    with pytest.raises(DataError, match="left=phantom, reversed=patients, right=patients"):
        ensemble_step(folders, tmp_path / "ensemble").execute()
    assert not (tmp_path / "ensemble").exists()
    ensemble_step(folders, tmp_path / "ensemble", members=["left"]).execute()
    assert ModelMetadata.read(tmp_path / "ensemble" / "model").dataset_kind == "phantom"


def test_a_member_that_was_not_evaluated_is_named(half_lungs: HalfLungs, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"received none of: vgg16; .*ensemble\.members"):
        ensemble_step(half_lungs[0], tmp_path / "ensemble", members=["left", "vgg16"]).execute()


def test_the_section_evaluate_may_hold_what_only_evaluate_needs() -> None:
    sections = {"evaluate": {"batch_size": 3, "target": 0.9, "colour": 1}}
    values, problems = merge_parameters(Ensemble, {}, sections)
    assert values == {"target": 0.9}
    assert len(problems) == 1 and "evaluate.colour=1" in problems[0]


def test_metadata_without_members_has_one_network() -> None:
    assert make_metadata().files == ("model.keras",)
    assert make_metadata().weighted_members == ()
