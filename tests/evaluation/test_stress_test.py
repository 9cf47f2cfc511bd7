"""The stress test draws the same images each time, and finds models that depend on how images are acquired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxr.data.image_folder import ImageFolder
from cxr.errors import DataError
from cxr.evaluation.acquisition_changes import ACQUISITION_CHANGES
from cxr.evaluation.files import write_evaluation
from cxr.evaluation.stress_test import (
    draw_stress_sample,
    measure_stress,
    predict_changed_images,
    stress_table,
    with_stress_test,
)
from cxr.images.preparation import prepare_images
from cxr.images.prepared import PreparedImages
from cxr.images.recipes import Recipe
from support.simulated_predictions import changed_predictions, evaluated, predictions

RECIPE = Recipe("s2_resize", "S2", size=32, channels=1)


class DifferenceOfHalves:
    """A network that compares the left half with the right one, relative to both: blind to brightness."""

    def probabilities(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        left, right = (half[..., 0].mean(axis=(1, 2)) for half in np.split(images.astype(float), 2, axis=2))
        # Rounded, so that the rounding of grey levels does not order images of one score.
        return np.round(left / (left + right + 1e-9), 2)


class MeanGrey:
    """A network that sees the mean grey alone."""

    def probabilities(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        return images[..., 0].mean(axis=(1, 2)) / 255


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return predictions(160)


@pytest.fixture(scope="module")
def prepared(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> PreparedImages:
    """Images of which the left half is brighter with pneumonia; no image is brighter than another as a whole."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(1)
    for path, label in zip(rows["path"], rows["label"], strict=True):
        difference = 4 * (round(2 * generator.standard_normal()) + 2 * (label == "PNEUMONIA"))
        halves = np.repeat([100 + difference, 100 - difference], 20).astype(float)
        image = np.tile(halves, (40, 1)) + generator.normal(0, 3, (40, 40))
        (root / path).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(root / f"{path}.png"), np.clip(image, 0, 255).astype(np.uint8))
        (root / f"{path}.png").rename(root / path)
    return prepare_images(
        ImageFolder(root), rows["path"].tolist(), RECIPE, root / "prepared", workers=1, progress=False
    )


def stress_of(network: Any, rows: pd.DataFrame, prepared: PreparedImages, **settings: Any) -> dict[str, Any]:
    raw = network.probabilities(np.asarray(prepared.images[prepared.rows(rows["path"])]))
    evaluation = evaluated(rows.assign(probability_raw=raw), resamples=100, **settings)
    changed = predict_changed_images(network, prepared, rows, batch_size=64)
    return measure_stress(evaluation, changed, resamples=100, seed=0)


def entry(part: dict[str, Any], key: str) -> dict[str, Any]:
    return next(change for change in part["changes"] if change["key"] == key)


def test_the_same_seed_draws_the_same_images_in_their_order(rows: pd.DataFrame) -> None:
    first, second, third = (draw_stress_sample(rows, images=20, seed=seed) for seed in (0, 0, 1))
    assert first.equals(second)
    assert set(first["path"]) != set(third["path"])
    assert first.index.is_monotonic_increasing
    assert first.groupby("split").size().to_dict() == {"test": 20, "validation": 20}
    assert (first.groupby(["split", "label"]).size() == 10).all()


def test_the_sample_does_not_depend_on_other_columns(rows: pd.DataFrame) -> None:
    other_model = rows.assign(probability_raw=rows["probability_raw"].to_numpy()[::-1])
    paths = (draw_stress_sample(table, images=20, seed=0)["path"].tolist() for table in (rows, other_model))
    assert next(paths) == next(paths)


@pytest.mark.parametrize(("images", "normal", "pneumonia"), [(60, 20, 40), (500, 20, 60), (3, 1, 2)])
def test_a_class_with_few_images_is_filled_up_with_the_other(
    rows: pd.DataFrame, images: int, normal: int, pneumonia: int
) -> None:
    counts = draw_stress_sample(rows, images=images, seed=0).query("split == 'test'")["label"].value_counts()
    assert counts.to_dict() == {"NORMAL": normal, "PNEUMONIA": pneumonia}


def test_every_image_is_predicted_under_every_change(rows: pd.DataFrame, prepared: PreparedImages) -> None:
    sample = draw_stress_sample(rows, images=15, seed=2)
    table = predict_changed_images(MeanGrey(), prepared, sample, batch_size=8).set_index(["change", "path"])
    assert len(table) == len(ACQUISITION_CHANGES) * len(sample) > 512  # more than are read at once
    for change in ACQUISITION_CHANGES:
        for path in sample["path"].iloc[[0, 7, -1]]:
            image = change.apply(np.asarray(prepared.images[prepared.rows([path])[0]]))
            expected = MeanGrey().probabilities(image[None])[0]
            assert table.loc[(change.key, path), "probability_raw"] == pytest.approx(expected)


def test_a_model_that_is_blind_to_brightness_keeps_its_auroc(rows: pd.DataFrame, prepared: PreparedImages) -> None:
    test = stress_of(DifferenceOfHalves(), rows, prepared)["test"]
    assert 0.8 < test["unchanged"]["auroc"]["value"] < 1
    for key in ("brightness_0.7", "brightness_1.3"):
        for measure in ("auroc", "sensitivity", "specificity"):
            assert entry(test, key)[measure] == test["unchanged"][measure]


def test_a_model_that_sees_brightness_alone_loses_its_threshold(prepared: PreparedImages, rows: pd.DataFrame) -> None:
    # Labels that the mean grey reveals: the network is perfect as long as nobody changes the exposure.
    grey = MeanGrey().probabilities(np.asarray(prepared.images[prepared.rows(rows["path"])]))
    labels = np.where(grey > np.median(grey), "PNEUMONIA", "NORMAL")
    validation = stress_of(MeanGrey(), rows.assign(label=labels), prepared)["validation"]
    darker, brighter = entry(validation, "brightness_0.7"), entry(validation, "brightness_1.3")
    assert validation["unchanged"]["specificity"]["value"] > 0.9
    assert darker["sensitivity"]["value"] == brighter["specificity"]["value"] == 0
    assert darker["auroc"]["value"] > 0.85, "the order of the images stays"


def test_mean_and_worst_are_those_of_the_changes() -> None:
    table = predictions(400)
    evaluation = evaluated(table, resamples=100)
    changed = changed_predictions(table, {"blur_0.015": 6.0, "crop_0.08": 2.0})
    stress = measure_stress(evaluation, changed, resamples=100, seed=0)
    for split in ("validation", "test"):
        part = table[table["split"] == split]
        labels = part["label"] == "PNEUMONIA"
        by_change = {
            key: roc_auc_score(labels, scores.set_index("path").loc[part["path"], "probability_raw"])
            for key, scores in changed.groupby("change")
        }
        aurocs = {change["key"]: change["auroc"]["value"] for change in stress[split]["changes"]}
        assert aurocs == pytest.approx(by_change)
        assert stress[split]["mean"]["auroc"]["value"] == pytest.approx(np.mean(list(by_change.values())))
        assert stress[split]["worst"]["auroc"]["change"] == "blur_0.015"
        assert stress[split]["worst"]["auroc"]["value"] == pytest.approx(min(by_change.values()))
        assert stress[split]["unchanged"] == {
            name: {key: pytest.approx(value) for key, value in figures.items()}
            for name, figures in evaluation.report[split]["at_threshold"].items()
            if name in ("auroc", "sensitivity", "specificity")
        }
        interval = stress[split]["mean"]["auroc"]
        assert interval["low"] < interval["value"] < interval["high"]


def test_a_change_without_predictions_is_refused(rows: pd.DataFrame) -> None:
    evaluation = evaluated(rows, resamples=100)
    changed = changed_predictions(rows)
    incomplete = changed[
        (changed["change"] != "jpeg_20") & ~((changed["change"] == "jpeg_50") & (changed.index % 9 == 0))
    ]
    with pytest.raises(DataError, match="too few of jpeg_50, jpeg_20"):
        measure_stress(evaluation, incomplete, resamples=100, seed=0)


def test_one_class_leaves_auroc_unknown_and_names_no_worst_change(rows: pd.DataFrame) -> None:
    healthy = rows[(rows["split"] == "validation") | (rows["label"] == "NORMAL")]
    evaluation = evaluated(healthy, resamples=100)
    stress = measure_stress(evaluation, changed_predictions(healthy), resamples=100, seed=0)
    assert np.isnan(stress["test"]["mean"]["auroc"]["value"])
    assert stress["test"]["worst"]["auroc"]["change"] is None
    assert stress["test"]["worst"]["specificity"]["change"] is not None


def test_the_test_adds_files_and_figures_and_changes_no_other(rows: pd.DataFrame, tmp_path: Path) -> None:
    plain = evaluated(rows, resamples=100)
    assert with_stress_test(plain, None, resamples=100, seed=0) is plain
    changed = changed_predictions(rows, {"gamma_1.5": 4.0})
    stressed = with_stress_test(plain, changed, resamples=100, seed=0)
    for name, evaluation in (("plain", plain), ("stressed", stressed)):
        (tmp_path / name).mkdir()
        write_evaluation(tmp_path / name, evaluation)
    files = {name: {path.name for path in (tmp_path / name).rglob("*.*")} for name in ("plain", "stressed")}
    assert files["stressed"] - files["plain"] == {"stress.json", "stress.csv", "changed_predictions.parquet"}
    for name in ("metrics.json", "predictions.parquet", "curves/roc.csv"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "stressed" / name).read_bytes()

    stress = json.loads((tmp_path / "stressed/stress.json").read_text())
    summary = stressed.summary()
    added = {key: value for key, value in summary.items() if key not in plain.summary()}
    assert added == {
        "validation_stress_auroc": pytest.approx(stress["validation"]["mean"]["auroc"]["value"]),
        "test_stress_auroc": pytest.approx(stress["test"]["mean"]["auroc"]["value"]),
        "test_stress_worst_auroc": pytest.approx(entry(stress["test"], "gamma_1.5")["auroc"]["value"]),
    }
    table = pd.read_csv(tmp_path / "stressed/curves/stress.csv")
    assert len(table) == len(stress_table(stress)) == 2 * (1 + len(ACQUISITION_CHANGES))
    row = table.query("split == 'test' and change == 'gamma_1.5'").iloc[0]
    assert row["auroc"] == pytest.approx(added["test_stress_worst_auroc"])
