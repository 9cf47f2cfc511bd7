"""Shortcuts are detected: files that reveal the class, and networks that look outside the lungs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.errors import DataError
from cxr.evaluation.metrics import auroc
from cxr.evaluation.shortcut_checks import (
    HIDDEN_COLUMN,
    METADATA_COLUMN,
    LungsHiddenImages,
    lung_field,
    measure_shortcuts,
    metadata_baseline_scores,
    prepared_lung_field,
    with_shortcut_checks,
)
from cxr.images.recipes import apply_recipe, recipe_named
from support.manifests import manifest
from support.simulated_predictions import evaluated, predictions

SEED = 4


def split_of(files: pd.DataFrame) -> pd.DataFrame:
    """Two thirds train, the others test, in an order that the files do not reveal."""
    side = np.random.default_rng(SEED).permutation(len(files)) % 3
    return files[["path", "label"]].assign(split=np.where(side < 2, "train", "test"))


def metadata_auroc(files: pd.DataFrame) -> float:
    splits = split_of(files)
    scores = metadata_baseline_scores(splits, files, splits, seed=0)
    test = (splits["split"] == "test").to_numpy()
    assert np.isnan(scores[~test]).all()
    return float(auroc(splits.loc[test, "label"] == "PNEUMONIA", scores[test]))


def test_files_that_reveal_nothing_are_classified_by_chance() -> None:
    assert metadata_auroc(manifest(600, 600, seed=SEED)) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("fact", ["bytes", "width", "height", "mean", "sharpness", "gradient_ratio"])
def test_each_fact_that_reveals_the_class_is_detected(fact: str) -> None:
    files = manifest(200, 200, seed=SEED)
    files.loc[files["label"] == "PNEUMONIA", fact] += 3000
    assert metadata_auroc(files) > 0.99


def test_the_aspect_ratio_is_used_where_no_side_alone_reveals_the_class() -> None:
    files = manifest(200, 200, seed=SEED)
    size = np.random.default_rng(SEED).integers(200, 2000, len(files))
    is_pneumonia = (files["label"] == "PNEUMONIA").to_numpy()
    files["height"], files["width"] = size, size + is_pneumonia * size // 10
    assert metadata_auroc(files) > 0.95


def test_labels_of_test_images_are_never_used() -> None:
    files = manifest(60, 60, seed=SEED)
    splits = split_of(files)
    test = splits["split"] == "test"
    flipped = splits.assign(label=splits["label"].where(~test, "NORMAL"))
    first, second = (metadata_baseline_scores(table, files, splits, seed=0)[test] for table in (splits, flipped))
    assert np.ptp(first) > 0
    assert (first == second).all()


def test_unknown_facts_of_a_file_are_taken_as_unknown() -> None:
    files = manifest(60, 60, seed=SEED)
    files.loc[files["label"] == "PNEUMONIA", "bytes"] += 5000
    files.loc[::7, ["width", "height"]] = pd.NA
    assert metadata_auroc(files) > 0.99


class Pixel:
    """A network that uses one pixel, at a position in fractions of the side."""

    def __init__(self, down: float, across: float) -> None:
        self.down, self.across = down, across

    def probabilities(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        _, height, width, _ = images.shape
        return images[:, int(self.down * height), int(self.across * width), 0] / 255


@pytest.mark.parametrize(
    ("down", "across"), [(0.0, 0.0), (0.01, 0.99), (0.99, 0.5), (0.5, 0.01), (0.15, 0.1), (0.05, 0.5)]
)
def test_a_network_that_looks_elsewhere_keeps_its_auroc(down: float, across: float) -> None:
    result = hidden_lungs_check(Pixel(down, across))
    assert result["auroc"] == result["full_auroc"]
    assert result["full_auroc"]["value"] > 0.9
    assert result["drop"] == {"value": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(("down", "across"), [(0.5, 0.25), (0.5, 0.75), (0.25, 0.35), (0.75, 0.15), (0.75, 0.85)])
def test_a_network_that_looks_at_the_lungs_falls_to_chance(down: float, across: float) -> None:
    result = hidden_lungs_check(Pixel(down, across))
    assert result["auroc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert result["drop"]["value"] == pytest.approx(result["full_auroc"]["value"] - 0.5)
    assert 0.3 < result["drop"]["low"] < result["drop"]["value"] < result["drop"]["high"]


def hidden_lungs_check(network: Pixel) -> dict:
    """Check a network on grey images, brighter for pneumonia."""
    files = manifest(60, 60, seed=SEED)
    generator = np.random.default_rng(SEED)
    brighter = 60 * (files["label"] == "PNEUMONIA").to_numpy()
    grey = np.clip(generator.normal(100, 20, len(files)) + brighter, 0, 255).astype(np.uint8)
    images = np.broadcast_to(grey[:, None, None, None], (len(files), 48, 48, 1))
    rows = files[["path", "label"]].assign(group=files["patient"], split="test", score_metadata=0.5)
    rows["probability_raw"] = network.probabilities(images)
    recipe = recipe_named("s2_resize", size=48)
    hidden = LungsHiddenImages(images, recipe, dict.fromkeys(range(len(files)), (500, 700)))
    rows[HIDDEN_COLUMN] = network.probabilities(hidden[np.arange(len(files))])
    return measure_shortcuts(rows, resamples=100, seed=0)["lungs_hidden"]


@pytest.mark.parametrize("side", [48, 64, 128, 299])
def test_the_lung_field_is_symmetric_and_leaves_borders_and_corners(side: int) -> None:
    field = lung_field(side, side)
    assert (field == field[:, ::-1]).all()
    assert field.mean() == pytest.approx(0.56, abs=0.01)
    edge = max(side // 16, 1)
    for border in (field[:edge], field[-2 * edge :], field[:, :edge], field[:, -edge:]):
        assert not border.any()
    for corner in (field[: side // 5, : side // 7], field[-side // 8 :, : side // 3]):
        assert not corner.any()


def test_the_lung_field_hides_drawn_opacities(phantom_folder: Path) -> None:
    import cv2

    drawn = json.loads((phantom_folder / "boxes.json").read_text())
    hidden = []
    for path, entry in drawn.items():
        height, width = cv2.imread(str(phantom_folder / path), cv2.IMREAD_GRAYSCALE).shape
        field = lung_field(height, width)
        for box in entry["boxes"]:
            left, top, across, down = box
            hidden.append(field[top : top + down, left : left + across].mean())
    assert len(hidden) > 20
    assert np.mean(hidden) > 0.9


def test_hiding_does_not_modify_the_images_and_covers_all_planes() -> None:
    images = np.full((3, 20, 20, 2), 200, dtype=np.uint8)
    images.setflags(write=False)
    recipe = recipe_named("s2_resize", size=20)
    hidden = LungsHiddenImages(images, recipe, {1: (300, 400), 2: (90, 80)})[np.array([2, 1])]
    assert (images == 200).all()
    field = lung_field(20, 20)
    assert (hidden[:, field] == 0).all()
    assert (hidden[:, ~field] == 200).all()


@pytest.mark.parametrize("shape", [(600, 800), (800, 500), (512, 512)])
@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_the_same_part_of_the_radiograph_is_hidden_whatever_the_fit(fit: str, shape: tuple[int, int]) -> None:
    recipe = recipe_named("s4_resize", fit=fit)
    prepared = apply_recipe(recipe, np.where(lung_field(*shape), 255, 0).astype(np.uint8))[..., 0]
    field = prepared_lung_field(recipe, *shape)
    assert (field == (prepared > 127)).mean() > 0.995
    if fit == "squash":
        assert (field == lung_field(224, 224)).all()


def test_both_checks_are_in_the_summary() -> None:
    rows = predictions(400)
    rows[HIDDEN_COLUMN] = np.where(rows["split"] == "test", 1 - rows["probability_raw"], np.nan)
    rows[METADATA_COLUMN] = np.where(rows["split"] == "test", 0.3, np.nan)
    evaluation = evaluated(rows, resamples=100)
    summary = with_shortcut_checks(evaluation, resamples=100, seed=0).summary()
    assert summary["test_lungs_hidden_auroc"] == pytest.approx(1 - summary["test_auroc"], abs=1e-6)
    assert summary["test_metadata_auroc"] == 0.5
    assert not {"test_lungs_hidden_auroc", "test_metadata_auroc"} & set(evaluation.summary())


def test_training_images_of_one_class_leave_the_baseline_unknown() -> None:
    files = manifest(40, 40, seed=SEED)
    splits = split_of(files)
    one_class = splits[(splits["split"] == "test") | (splits["label"] == "NORMAL")]
    rows = splits.assign(group=splits["path"], probability_raw=0.5)
    rows[METADATA_COLUMN], rows[HIDDEN_COLUMN] = metadata_baseline_scores(one_class, files, splits, seed=0), 0.5
    result = measure_shortcuts(rows, resamples=100, seed=0)
    assert np.isnan(list(result["metadata"]["auroc"].values())).all()
    assert result["lungs_hidden"]["auroc"]["value"] == 0.5


def test_images_that_are_not_in_the_manifest_are_refused() -> None:
    files = manifest(40, 40)
    splits = split_of(files)
    with pytest.raises(DataError, match="manifest"):
        metadata_baseline_scores(splits, files.iloc[1:], splits, seed=0)


def test_a_manifest_from_before_a_fact_was_measured_is_refused() -> None:
    files = manifest(40, 40)
    splits = split_of(files)
    with pytest.raises(DataError, match=r"without sharpness, gradient_ratio; run `cxr validate` again"):
        metadata_baseline_scores(splits, files.drop(columns=["sharpness", "gradient_ratio"]), splits, seed=0)
