"""What needs no lungs is found out: files that give the class away, and networks that look elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.errors import DataError
from cxr.evaluation.evaluate import evaluate
from cxr.evaluation.metrics import auroc
from cxr.evaluation.shortcut_checks import (
    HIDDEN_COLUMN,
    METADATA_COLUMN,
    LungsHidden,
    hide_lungs,
    honesty,
    lung_field,
    metadata_scores,
)
from support.judged_models import predictions
from support.manifests import manifest

SEED = 4


def split_of(files: pd.DataFrame) -> pd.DataFrame:
    """Two thirds train, the others test, in no order that the files show."""
    side = np.random.default_rng(SEED).permutation(len(files)) % 3
    return files[["path", "label"]].assign(split=np.where(side < 2, "train", "test"))


def metadata_auroc(files: pd.DataFrame) -> float:
    splits = split_of(files)
    scores = metadata_scores(splits, files, splits)
    test = (splits["split"] == "test").to_numpy()
    assert np.isnan(scores[~test]).all()
    return float(auroc(splits.loc[test, "label"] == "PNEUMONIA", scores[test]))


def test_files_that_give_nothing_away_are_judged_by_chance() -> None:
    assert metadata_auroc(manifest(600, 600, seed=SEED)) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("fact", ["bytes", "width", "height", "mean"])
def test_each_fact_that_gives_the_class_away_is_found(fact: str) -> None:
    files = manifest(200, 200, seed=SEED)
    files.loc[files["label"] == "PNEUMONIA", fact] += 3000
    assert metadata_auroc(files) > 0.99


def test_the_aspect_ratio_is_seen_although_no_side_alone_tells() -> None:
    files = manifest(200, 200, seed=SEED)
    size = np.random.default_rng(SEED).integers(200, 2000, len(files))
    sick = (files["label"] == "PNEUMONIA").to_numpy()
    files["height"], files["width"] = size, size + sick * size // 10
    assert metadata_auroc(files) > 0.95


def test_labels_of_test_images_are_never_seen() -> None:
    files = manifest(60, 60, seed=SEED)
    splits = split_of(files)
    test = splits["split"] == "test"
    flipped = splits.assign(label=splits["label"].where(~test, "NORMAL"))
    first, second = (metadata_scores(table, files, splits)[test] for table in (splits, flipped))
    assert np.ptp(first) > 0
    assert (first == second).all()


def test_unknown_facts_of_a_file_are_taken_as_unknown() -> None:
    files = manifest(60, 60, seed=SEED)
    files.loc[files["label"] == "PNEUMONIA", "bytes"] += 5000
    files.loc[::7, ["width", "height"]] = pd.NA
    assert metadata_auroc(files) > 0.99


class Pixel:
    """A network that sees one pixel, given in fractions of the side."""

    def __init__(self, down: float, across: float) -> None:
        self.down, self.across = down, across

    def probabilities(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        _, height, width, _ = images.shape
        return images[:, int(self.down * height), int(self.across * width), 0] / 255


@pytest.mark.parametrize(
    ("down", "across"), [(0.0, 0.0), (0.01, 0.99), (0.99, 0.5), (0.5, 0.01), (0.15, 0.1), (0.05, 0.5)]
)
def test_a_network_that_looks_elsewhere_keeps_its_auroc(down: float, across: float) -> None:
    found = judged(Pixel(down, across))
    assert found["auroc"] == found["full_auroc"]
    assert found["full_auroc"]["value"] > 0.9
    assert found["drop"] == {"value": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(("down", "across"), [(0.5, 0.25), (0.5, 0.75), (0.25, 0.35), (0.75, 0.15), (0.75, 0.85)])
def test_a_network_that_looks_at_the_lungs_falls_to_chance(down: float, across: float) -> None:
    found = judged(Pixel(down, across))
    assert found["auroc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert found["drop"]["value"] == pytest.approx(found["full_auroc"]["value"] - 0.5)
    assert 0.3 < found["drop"]["low"] < found["drop"]["value"] < found["drop"]["high"]


def judged(network: Pixel) -> dict:
    """Check a network on grey images, brighter for pneumonia."""
    files = manifest(60, 60, seed=SEED)
    generator = np.random.default_rng(SEED)
    brighter = 60 * (files["label"] == "PNEUMONIA").to_numpy()
    grey = np.clip(generator.normal(100, 20, len(files)) + brighter, 0, 255).astype(np.uint8)
    images = np.broadcast_to(grey[:, None, None, None], (len(files), 48, 48, 1))
    rows = files[["path", "label"]].assign(group=files["patient"], split="test", score_metadata=0.5)
    rows["probability_raw"] = network.probabilities(images)
    rows[HIDDEN_COLUMN] = LungsHidden(network).probabilities(images)
    return honesty(rows, resamples=100)["lungs_hidden"]


@pytest.mark.parametrize("side", [48, 64, 128, 299])
def test_the_field_is_symmetric_and_leaves_borders_and_corners(side: int) -> None:
    field = lung_field(side, side)
    assert (field == field[:, ::-1]).all()
    assert field.mean() == pytest.approx(0.56, abs=0.01)
    edge = max(side // 16, 1)
    for border in (field[:edge], field[-2 * edge :], field[:, :edge], field[:, -edge:]):
        assert not border.any()
    for corner in (field[: side // 5, : side // 7], field[-side // 8 :, : side // 3]):
        assert not corner.any()


def test_the_field_hides_drawn_opacities(phantom_folder: Path) -> None:
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


def test_hiding_leaves_the_images_as_they_are_and_covers_all_planes() -> None:
    images = np.full((3, 20, 20, 2), 200, dtype=np.uint8)
    images.setflags(write=False)
    hidden = hide_lungs(images)
    assert (images == 200).all()
    field = lung_field(20, 20)
    assert (hidden[:, field] == 0).all()
    assert (hidden[:, ~field] == 200).all()


def test_both_figures_stand_in_the_summary() -> None:
    rows = predictions(400)
    rows[HIDDEN_COLUMN] = np.where(rows["split"] == "test", 1 - rows["probability_raw"], np.nan)
    rows[METADATA_COLUMN] = np.where(rows["split"] == "test", 0.3, np.nan)
    found = evaluate(rows, resamples=100)
    summary = found.with_entries(honesty=honesty(rows, resamples=100)).summary()
    assert summary["test_lungs_hidden_auroc"] == pytest.approx(1 - summary["test_auroc"], abs=1e-6)
    assert summary["test_metadata_auroc"] == 0.5
    assert not {"test_lungs_hidden_auroc", "test_metadata_auroc"} & set(found.summary())


def test_training_images_of_one_class_leave_the_baseline_unknown() -> None:
    files = manifest(40, 40, seed=SEED)
    splits = split_of(files)
    one_class = splits[(splits["split"] == "test") | (splits["label"] == "NORMAL")]
    rows = splits.assign(group=splits["path"], probability_raw=0.5)
    rows[METADATA_COLUMN], rows[HIDDEN_COLUMN] = metadata_scores(one_class, files, splits), 0.5
    found = honesty(rows, resamples=100)
    assert np.isnan(list(found["metadata"]["auroc"].values())).all()
    assert found["lungs_hidden"]["auroc"]["value"] == 0.5


def test_images_that_are_not_in_the_manifest_are_refused() -> None:
    files = manifest(40, 40)
    splits = split_of(files)
    with pytest.raises(DataError, match="manifest"):
        metadata_scores(splits, files.iloc[1:], splits)
