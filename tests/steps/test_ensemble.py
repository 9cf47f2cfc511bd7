"""The step ensemble: from evaluated models to weights, an evaluation, a comparison and a folder that answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from cxr.errors import DataError, MissingInputError
from cxr.evaluation.calibration import apply_temperature, pool
from cxr.evaluation.metrics import auroc, log_loss
from cxr.models.metadata import ModelCard
from cxr.plots.evaluation import NAMES
from cxr.steps.ensemble import Ensemble
from cxr.steps.parameters import gather
from support.half_lungs import MEMBERS, USED, ensemble_step
from support.model_folders import CPU, Folders, card

HalfLungs = tuple[Folders, Path]


def figures(table: pd.DataFrame, split: str) -> tuple[float, float]:
    part = table[table["split"] == split]
    sick = part["label"] == "PNEUMONIA"
    return float(auroc(sick, part["probability"])), float(log_loss(sick, part["probability"]))


def test_the_folder_holds_what_prediction_needs_and_an_evaluation_as_of_any_model(half_lungs: HalfLungs) -> None:
    _, folder = half_lungs
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    wanted = {"comparison.json", "model/card.json"}
    wanted |= {f"model/members/{name}/{file}" for name in USED for file in ("model.keras", "card.json")}
    wanted |= {f"evaluation/{name}" for name in ("card.json", "metrics.json", "summary.json", "predictions.parquet")}
    wanted |= {f"evaluation/plots/{name}.png" for name in NAMES if name != "training"}
    wanted |= {f"evaluation/curves/{name}.csv" for name in ("roc", "roc_band", "precision_recall", "calibration")}
    assert files == wanted


def test_the_card_lists_every_member_with_its_weight_and_card(half_lungs: HalfLungs) -> None:
    folders, folder = half_lungs
    made = ModelCard.read(folder / "model")
    assert made == ModelCard.read(folder / "evaluation")
    assert (made.model, made.system, made.calibrated) == ("weighted", "S3", True)
    assert [one.model for one in made.members] == sorted(MEMBERS)
    assert [one.model for one in made.members if one.weight > 0] == USED
    assert next(one.weight for one in made.members if one.model == "reversed") == 0
    for one in made.members:
        assert one.card == ModelCard.read(folders.evaluations / one.model)
    for name in USED:
        assert ModelCard.read(folder / "model" / "members" / name) == ModelCard.read(folders.evaluations / name)
    assert made.recipe == {"name": "s2_resize + s4_resize"}
    assert made.training == {"device": {**CPU}, "seconds": 3.0}
    assert made.parameters == 90


def test_the_answers_are_the_members_pooled(half_lungs: HalfLungs) -> None:
    folders, folder = half_lungs
    made = ModelCard.read(folder / "model")
    found = pd.read_parquet(folder / "evaluation" / "predictions.parquet")
    tables = [pd.read_parquet(folders.evaluations / one.model / "predictions.parquet") for one in made.members]
    raw = pool([table["probability"] for table in tables], [one.weight for one in made.members])
    assert found["probability_raw"].to_numpy() == pytest.approx(raw)
    assert made.temperature == pytest.approx(1, abs=1e-3), "fitted weights leave nothing to calibrate"
    assert found["probability"].to_numpy() == pytest.approx(apply_temperature(raw, made.temperature))
    for table in tables:
        assert figures(found, "validation")[1] <= figures(table, "validation")[1]


def test_the_comparison_is_with_the_best_member_on_validation(half_lungs: HalfLungs) -> None:
    folders, folder = half_lungs
    found = json.loads((folder / "comparison.json").read_text())
    tables = {name: pd.read_parquet(folders.evaluations / name / "predictions.parquet") for name in MEMBERS}
    best = max(tables, key=lambda name: figures(tables[name], "validation")[0])
    assert (found["ours"], found["theirs"]) == ("weighted", best)
    pooled = pd.read_parquet(folder / "evaluation" / "predictions.parquet")
    for position, name in enumerate(("auroc", "log_loss")):
        for split in ("validation", "test"):
            assert found[split][name]["ours"] == pytest.approx(figures(pooled, split)[position])
            assert found[split][name]["theirs"] == pytest.approx(figures(tables[best], split)[position])
    # Two halves know more than one, on new images too.
    assert found["test"]["auroc"]["difference"] > 0 > found["test"]["log_loss"]["difference"]
    assert found["bootstrap"]["resamples"] == 200
    assert found["sentence"].startswith(f"On 60 test images weighted has a higher AUROC than {best}")


def test_the_same_models_give_the_same_files(half_lungs: HalfLungs, tmp_path: Path) -> None:
    folders, folder = half_lungs
    ensemble_step(folders, tmp_path / "ensemble").execute()
    for name in ("comparison.json", "model/card.json", "evaluation/metrics.json", "evaluation/curves/roc.csv"):
        assert (tmp_path / "ensemble" / name).read_bytes() == (folder / name).read_bytes(), name


def test_named_members_alone_are_joined_and_logged_once(half_lungs: HalfLungs, uri: str, tmp_path: Path) -> None:
    folders, _ = half_lungs
    for _ in range(2):
        ensemble_step(folders, tmp_path / "ensemble", members=["right"], tracking_uri=uri).execute()
    assert [(one.model, one.weight) for one in ModelCard.read(tmp_path / "ensemble/model").members] == [("right", 1)]
    comparison = json.loads((tmp_path / "ensemble" / "comparison.json").read_text())
    assert comparison["test"]["auroc"]["p_value"] == 1
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    summary = json.loads((tmp_path / "ensemble/evaluation/summary.json").read_text())
    assert run.info.run_name == "weighted"
    assert run.data.params["weights.right"] == "1.0"
    assert run.data.metrics["test_auroc"] == pytest.approx(summary["test_auroc"])
    assert "restored" not in run.data.tags
    assert "plots" in {Path(one.path).name for one in client.list_artifacts(run.info.run_id, "evaluation")}


def test_without_the_raw_images_only_the_sheet_of_mistakes_is_missing(half_lungs: HalfLungs, tmp_path: Path) -> None:
    folders, _ = half_lungs
    ensemble_step(folders, tmp_path / "ensemble", data=tmp_path / "missing").execute()
    drawn = {path.stem for path in (tmp_path / "ensemble/evaluation/plots").iterdir()}
    assert drawn == set(NAMES) - {"training", "mistakes"}


def test_phantoms_and_patients_are_never_joined(half_lungs: HalfLungs, tmp_path: Path) -> None:
    folders = Folders(tmp_path / "models", tmp_path / "evaluations", half_lungs[0].images)
    shutil.copytree(half_lungs[0].models, folders.models)
    shutil.copytree(half_lungs[0].evaluations, folders.evaluations)
    for place in (folders.models, folders.evaluations):
        path = place / "left" / "card.json"
        drawn = {**json.loads(path.read_text()), "dataset": {"name": "phantom", "kind": "phantom"}}
        path.write_text(json.dumps(drawn))
    with pytest.raises(DataError, match="left=phantom, reversed=patients, right=patients"):
        ensemble_step(folders, tmp_path / "ensemble").execute()
    assert not (tmp_path / "ensemble").exists()
    ensemble_step(folders, tmp_path / "ensemble", members=["left"]).execute()
    assert ModelCard.read(tmp_path / "ensemble" / "model").dataset_kind == "phantom"


def test_a_member_that_was_not_evaluated_is_named(half_lungs: HalfLungs, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"received none of: vgg16; .*ensemble\.members"):
        ensemble_step(half_lungs[0], tmp_path / "ensemble", members=["left", "vgg16"]).execute()


def test_the_section_evaluate_may_hold_what_only_evaluate_needs() -> None:
    sections = {"evaluate": {"batch_size": 3, "target": 0.9, "colour": 1}}
    values, problems = gather(Ensemble, {}, sections)
    assert values == {"target": 0.9}
    assert len(problems) == 1 and "evaluate.colour=1" in problems[0]


def test_a_card_without_members_stays_as_it_was() -> None:
    assert card().files == ("model.keras",)
    assert card().pooled == ()
