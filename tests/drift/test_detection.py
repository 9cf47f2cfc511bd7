"""Drift detection: which changes of a window are called drift, and which are not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cxr.drift.detection import detect_drift
from cxr.drift.window_comparison import WindowComparison
from cxr.drift.window_rows import summarize_by_day
from cxr.evaluation.validation_scores import ValidationScores
from cxr.images.decoding import decode_grey
from cxr.images.strict_decoding import DecodedImage
from cxr.inference.checked_prediction import PredictionResult
from cxr.inference.reference.features import STATISTICS
from cxr.inference.reference.fitting import fit_reference
from cxr.inference.reference.poses import extract_posed_features
from cxr.inference.reference.reference import ImageFeatures, Reference
from cxr.inference.reference.refusals import find_refusal
from cxr.serving.prediction_log_reader import read_prediction_log
from support.logged_predictions import (
    ALL_TIME,
    REFERENCE_FACTS,
    make_features,
    make_reference,
    make_results,
    make_served_model,
    write_prediction_log,
)
from support.reference_limits import LIMITS
from support.window_limits import WINDOW_LIMITS

VERSION = ("3", "three_block")


def compare(
    rows: pd.DataFrame, reference: Reference | None, validation: ValidationScores | None,
    version: tuple[str, str] = VERSION, seed: int = 0, **limits: float,
) -> WindowComparison:  # fmt: skip
    return detect_drift(rows, version, reference, validation, replace(WINDOW_LIMITS, **limits), seed=seed)


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Rows of a log, as written and read."""

    def write_and_read(images: list[ImageFeatures], seed: int = 7, **options: Any) -> pd.DataFrame:
        folder = tmp_path / f"log{len(list(tmp_path.iterdir()))}"
        return read_prediction_log(write_prediction_log(folder, make_results(images, seed, **options)), *ALL_TIME).rows

    return write_and_read


def drifted_names(comparison: WindowComparison) -> set[str]:
    return {test.name for test in comparison.drifted}


def test_false_alarm_rate_on_training_images_is_at_most_two_percent(
    training: Reference, validation: ValidationScores
) -> None:
    """Images and scores are split at random: one part is the reference, the window comes from the other."""
    alarms, significant = [], 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        count = (60, 90, 130)[seed % 3]
        order = generator.permutation(len(training.statistics))
        window, remaining = order[:count], order[count:]
        rows = pd.DataFrame(
            {
                "version": "3", "model": "three_block", "refusal": None, "threshold": 0.5,
                "probability": validation.probability[window],
                "label": np.where(validation.probability[window] >= 0.5, "PNEUMONIA", "NORMAL"),
                "embedding": list(training.embeddings[window]),
                **{f"film.{name}": training.statistics[window, column] for column, name in enumerate(STATISTICS)},
            }
        )  # fmt: skip
        comparison = compare(
            rows,
            replace(training, statistics=training.statistics[remaining], embeddings=training.embeddings[remaining]),
            ValidationScores(validation.probability[remaining], validation.pneumonia[remaining]),
            seed=seed,
        )
        assert len(comparison.tests) == len(STATISTICS) + 4, "every comparison was made"
        significant += any(test.difference.p_value < 0.05 for test in comparison.tests)
        alarms += [seed] if comparison.drifted else []
    assert len(alarms) <= 2, f"windows of the seeds {alarms}"
    assert significant > 25, "without correction and limits, many windows would be called drift"


def test_images_of_the_same_scanner_are_no_drift(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    comparison = compare(rows(make_features(300, 1), refused=4), training, validation)
    assert comparison.outcome == "no drift"
    assert comparison.sentence() == "no drift in 12 comparisons, 300 rows"
    assert (comparison.version_rows, comparison.refused, comparison.notes) == (300, 4, ())


def test_brighter_images_drift_only_in_their_mean(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    comparison = compare(rows(make_features(60, 1, brighter=20)), training, validation)
    assert drifted_names(comparison) == {"mean"}
    assert comparison.sentence().startswith("drift in mean (distance 0.")
    mean = comparison.drifted[0]
    assert mean.window_value - mean.reference_value == pytest.approx(20, abs=8)


def test_shifted_embeddings_drift_only_in_the_embedding(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    assert drifted_names(compare(rows(make_features(60, 1, moved=0.7)), training, validation)) == {"embedding"}


def test_significant_but_small_difference_is_no_drift(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    window = rows(make_features(3000, 1, brighter=6))
    comparison = compare(window, training, validation)
    mean = next(test for test in comparison.tests if test.name == "mean")
    assert mean.corrected_p_value < 0.01 and not mean.drifted
    assert drifted_names(compare(window, training, validation, distance=0.05)) == {"mean"}


def test_more_pneumonia_drifts_in_predictions_and_its_share_is_estimated(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    comparison = compare(rows(make_features(300, 1), ill=0.9), training, validation)
    assert drifted_names(comparison) == {"probability", "share of pneumonia"}
    share = next(test for test in comparison.tests if test.name == "share of pneumonia")
    assert share.change[0] < share.window_value - share.reference_value < share.change[1]
    assert share.change[0] > 0
    assert comparison.estimated_pneumonia == pytest.approx(0.9, abs=0.1)


def test_uncertain_labels_change_no_comparison(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    """The share of pneumonia is that at the threshold, as on validation."""
    window = rows(make_features(300, 1), ill=0.9)
    unsure = window["probability"].between(0.3, 0.9)
    assert unsure.sum() > 60
    with_uncertain = window.assign(label=window["label"].mask(unsure, "UNCERTAIN"))
    plain, compared = compare(window, training, validation), compare(with_uncertain, training, validation)
    assert compared.tests == plain.tests
    assert compared.estimated_pneumonia == plain.estimated_pneumonia


def test_more_refusals_than_at_training_are_drift_although_nothing_else_can_be_compared(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    comparison = compare(rows(make_features(60, 1), refused=55), training, validation)
    assert drifted_names(comparison) == {"share refused"}
    assert comparison.outcome == "drift"
    assert [note.split(" not")[0] for note in comparison.notes] == ["images", "predictions"]
    assert not drifted_names(compare(rows(make_features(60, 1), refused=2), training, validation))
    frequent_refusals = make_reference(make_features(100, 3), {"test": {"films": 300, "refused": 90}})
    fewer_refusals = compare(rows(make_features(60, 1)), frequent_refusals, validation)
    assert not drifted_names(fewer_refusals)


def test_too_few_images_are_an_outcome_of_their_own(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    window = rows(make_features(49, 1, brighter=200))
    comparison = compare(window, training, validation)
    assert comparison.outcome == "too few to tell"
    assert "49 rows of this version" in comparison.sentence() and "at least 50" in comparison.sentence()
    assert compare(window, training, validation, films=49).outcome == "drift"
    assert compare(window.iloc[:0], training, validation).outcome == "too few to tell"


def test_other_versions_count_only_with_the_statistics_of_their_images(
    tmp_path: Path, training: Reference, validation: ValidationScores
) -> None:
    folder = write_prediction_log(tmp_path, make_results(make_features(120, 1), 1))
    results = make_results(make_features(120, 2, brighter=30), 2, ill=0.0, refused=40)
    write_prediction_log(folder, results, make_served_model("2", ""))
    window = read_prediction_log(folder, *ALL_TIME).rows
    comparison = compare(window, training, validation)
    assert drifted_names(comparison) == {"mean"}
    tested_rows = {test.name: test.rows for test in comparison.tests}
    assert {name: tested_rows[name] for name in ("mean", "probability", "embedding")} == {
        "mean": 200, "probability": 120, "embedding": 120
    }  # fmt: skip
    assert comparison.notes == ("120 rows are of other versions: only their statistics are compared",)
    other_version = compare(window, training, validation, ("2", "three_block"))
    assert {"probability", "share of pneumonia", "share refused"} <= drifted_names(other_version)
    assert compare(window, training, validation, ("", "three_block")).version_rows == 0, (
        "a model from a folder has no version"
    )


def test_version_without_training_statistics_or_scores_is_compared_by_the_other(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    window = rows(make_features(100, 1))
    assert {test.group for test in compare(window, None, validation).tests} == {"answers"}
    without_scores = compare(window, training, None)
    assert {test.group for test in without_scores.tests} == {"films", "refusals"}
    assert "scores of its validation" in without_scores.notes[0] and math.isnan(without_scores.estimated_pneumonia)
    uncounted = compare(window, make_reference(make_features(100, 3), {}), validation)
    assert "false alarms of this version were not counted" in uncounted.notes[0]


def apply_gamma(grey: NDArray[np.uint8], power: float) -> NDArray[np.uint8]:
    return np.asarray(255 * (grey / 255) ** power, dtype=np.uint8)


def reduce_contrast(grey: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    return np.asarray(grey.mean() + share * (grey.astype(np.float64) - grey.mean()), dtype=np.uint8)


CHANGES: dict[str, tuple[Callable[[NDArray[np.uint8]], NDArray[np.uint8]], str]] = {
    "as they are": (lambda grey: grey, ""),
    "gamma": (lambda grey: apply_gamma(grey, 0.7), "mean"),
    "less contrast": (lambda grey: reduce_contrast(grey, 0.7), "contrast"),
    "unsharp": (lambda grey: cv2.GaussianBlur(grey, (0, 0), 4.0), "sharpness"),
    "inverted": (lambda grey: 255 - grey, "share refused"),
}


@dataclass(frozen=True)
class PhantomScanners:
    """Small phantoms, which of them are from the digital scanner, and a reference that was fitted on all."""

    images: list[NDArray[np.uint8]]
    digital: NDArray[np.bool_]
    reference: Reference


@pytest.fixture(scope="module")
def phantoms(phantom_folder: Path) -> PhantomScanners:
    boxes = json.loads((phantom_folder / "boxes.json").read_text())
    images = []
    for path in boxes:
        grey = decode_grey((phantom_folder / path).read_bytes())
        size = (256, round(256 * grey.shape[0] / grey.shape[1]))
        images.append(np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8))
    features = [extract_posed_features(DecodedImage(image)) for image in images]
    reference = fit_reference(features, list(boxes), dataset_kind="phantom", **LIMITS)
    digital = np.array([entry["style"] == "digital" for entry in boxes.values()])
    return PhantomScanners(images, digital, replace(reference, facts=REFERENCE_FACTS))


def log_checked_images(reference: Reference, images: list[NDArray[np.uint8]], folder: Path) -> pd.DataFrame:
    """Rows of a log whose refusals come from the real check."""
    decoded = [DecodedImage(image) for image in images]
    features = [reference.features(image) for image in decoded]
    results = []
    for image, image_features, result in zip(decoded, features, make_results(features, 3), strict=True):
        refusal = find_refusal(reference, image, image_features)
        results.append(PredictionResult(None if refusal else result.prediction, refusal, result.features))
    return read_prediction_log(write_prediction_log(folder, results), *ALL_TIME).rows


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_images_are_detected_in_sixty_images(change: str, phantoms: PhantomScanners, tmp_path: Path) -> None:
    change_image, name = CHANGES[change]
    images = [change_image(image) for image in phantoms.images]
    comparison = compare(log_checked_images(phantoms.reference, images, tmp_path), phantoms.reference, None)
    assert name in drifted_names(comparison) if name else not drifted_names(comparison), comparison.sentence()


def test_another_scanner_is_detected_in_some_twenty_images(phantoms: PhantomScanners, tmp_path: Path) -> None:
    digital = phantoms.digital
    reference = replace(
        phantoms.reference,
        statistics=phantoms.reference.statistics[digital],
        embeddings=phantoms.reference.embeddings[digital],
    )
    images = [image for image, is_digital in zip(phantoms.images, digital, strict=True) if not is_digital]
    comparison = compare(log_checked_images(reference, images, tmp_path), reference, None, films=15)
    assert {"contrast", "sharpness"} & drifted_names(comparison), comparison.sentence()


def test_days_are_summarized(tmp_path: Path) -> None:
    folder = write_prediction_log(tmp_path, make_results(make_features(100, 1), 1, refused=10), days=4)
    table = summarize_by_day(read_prediction_log(folder, *ALL_TIME).rows, ["mean"])
    assert table["rows"].tolist() == [25] * 4
    assert table["answered"].sum() == 90
    assert table["mean"].between(85, 115).all()
    assert (table["pneumonia_low"] < table["pneumonia"]).all() and (table["pneumonia"] < table["pneumonia_high"]).all()


def test_metrics_are_finite_and_have_the_same_names_with_and_without_drift(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    no_drift = compare(rows(make_features(100, 1)), training, validation).metrics()
    drift = compare(rows(make_features(100, 1, brighter=40)), training, validation).metrics()
    assert set(no_drift) == set(drift)
    assert (no_drift["drifted"], drift["drifted"]) == (0, 1)
    assert drift["distance/mean"] > 0.15 > no_drift["distance/mean"]
    assert {"share_of_pneumonia", "share_refused", "p_value/embedding"} <= set(no_drift)
    assert all(math.isfinite(value) for value in drift.values())
