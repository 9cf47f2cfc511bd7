"""Validation alone decides; test is measured with intervals; what does not belong together is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score, roc_curve

from cxr.errors import DataError
from cxr.evaluation import curves
from cxr.evaluation.files import write_evaluation
from cxr.evaluation.metrics import METRICS
from cxr.evaluation.mistakes import worst_mistakes
from cxr.evaluation.prediction import predict_rows
from support.simulated_predictions import evaluated, predictions


def test_temperature_and_threshold_do_not_depend_on_test_images() -> None:
    table = predictions()
    changed = table.copy()
    test = changed["split"] == "test"
    changed.loc[test, "probability_raw"] = 1 - changed.loc[test, "probability_raw"]
    first, second = (evaluated(rows, resamples=100) for rows in (table, changed))
    assert (first.temperature, first.operating_point) == (second.temperature, second.operating_point)
    assert first.report["validation"] == second.report["validation"]
    assert second.summary()["test_auroc"] == pytest.approx(1 - first.summary()["test_auroc"], abs=1e-6)


def test_the_metrics_of_the_test_images_are_those_of_scikit_learn() -> None:
    evaluation = evaluated(predictions(), resamples=100)
    test = evaluation.predictions[evaluation.predictions["split"] == "test"]
    labels = test["label"] == "PNEUMONIA"
    summary = evaluation.summary()
    assert summary["test_auroc"] == pytest.approx(roc_auc_score(labels, test["probability"]))
    assert summary["test_average_precision"] == pytest.approx(average_precision_score(labels, test["probability"]))
    (tn, fp), (fn, tp) = confusion_matrix(labels, test["probability"] >= evaluation.operating_point.threshold)
    assert evaluation.report["test"]["confusion"] == {
        "true_positives": tp,
        "false_positives": fp,
        "true_negatives": tn,
        "false_negatives": fn,
    }
    (tn, fp), (fn, tp) = confusion_matrix(labels, test["probability_raw"] >= 0.5)
    half = evaluation.report["test"]["uncalibrated_at_half"]
    assert half["sensitivity"]["value"] == pytest.approx(tp / (tp + fn))
    assert half["specificity"]["value"] == pytest.approx(tn / (tn + fp))


def test_calibration_reduces_the_test_loss_of_a_network_that_is_too_sure() -> None:
    evaluation = evaluated(predictions(2000, sharpness=4), resamples=100)
    test = evaluation.report["test"]
    assert evaluation.temperature > 1.5
    loss = {entry: test[entry]["log_loss"]["value"] for entry in ("at_threshold", "uncalibrated_at_half")}
    assert loss["at_threshold"] < 0.8 * loss["uncalibrated_at_half"]


def test_every_metric_has_an_interval_around_it() -> None:
    report = evaluated(predictions(), resamples=300).report
    for split in ("validation", "test"):
        assert tuple(report[split]["at_threshold"]) == tuple(METRICS)
        for name in ("auroc", "sensitivity", "specificity", "accuracy", "f1", "brier"):
            entry = report[split]["at_threshold"][name]
            assert entry["low"] < entry["value"] < entry["high"], name
    assert report["test"]["patients"] == 75
    assert report["test"]["images"] == 200


def test_each_subtype_is_measured_against_normal() -> None:
    evaluation = evaluated(predictions(1200), resamples=100)
    test = evaluation.predictions[evaluation.predictions["split"] == "test"]
    subtypes = evaluation.report["test"]["subtypes"]
    pair = test[test["subtype"].isin(["normal", "virus"])]
    expected = roc_auc_score(pair["label"] == "PNEUMONIA", pair["probability"])
    assert subtypes["virus"]["auroc"]["value"] == pytest.approx(expected)
    assert subtypes["bacteria"]["sensitivity"]["value"] > subtypes["virus"]["sensitivity"]["value"]
    assert subtypes["virus"]["specificity"] == subtypes["bacteria"]["specificity"]


def test_a_further_sensitivity_is_met_on_validation_and_reported_on_test() -> None:
    evaluation = evaluated(predictions(800), resamples=100, sensitivities=[0.99])
    validation, test = (evaluation.report[split]["further_points"][0] for split in ("validation", "test"))
    assert validation["sensitivity"]["value"] >= 0.99
    assert validation["threshold"] == test["threshold"] < evaluation.operating_point.threshold
    assert test["specificity"]["value"] < evaluation.summary()["test_specificity"]


def test_the_same_seed_gives_the_same_report() -> None:
    first, second, third = (evaluated(predictions(), resamples=100, seed=seed).report for seed in (1, 1, 2))
    assert first == second
    assert first["test"]["at_threshold"]["auroc"] != third["test"]["at_threshold"]["auroc"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="group"), "columns"),
        (lambda rows: rows[rows["split"] == "test"], "validation images"),
        (lambda rows: rows[rows["split"] == "validation"], "test images"),
        (lambda rows: rows.assign(probability_raw=np.nan), "400 images"),
        (lambda rows: rows.assign(label="UNKNOWN"), "400 images"),
        (lambda rows: rows[(rows["split"] == "test") | (rows["label"] == "NORMAL")], "both classes"),
    ],
)
def test_predictions_that_cannot_be_judged_are_refused(change, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=message):
        evaluated(change(predictions()), resamples=100)


def test_excluded_images_are_left_out() -> None:
    table = predictions()
    more = pd.concat([table, table.assign(split="excluded", probability_raw=0.5)])
    assert evaluated(more, resamples=100).report == evaluated(table, resamples=100).report


def test_the_files_are_strict_json_and_tables(tmp_path: Path) -> None:
    healthy_test = predictions()
    healthy_test = healthy_test[(healthy_test["split"] == "validation") | (healthy_test["label"] == "NORMAL")]
    evaluation = evaluated(healthy_test, resamples=100)
    write_evaluation(tmp_path, evaluation)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    report = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    assert report["test"]["at_threshold"]["auroc"] == {"value": None, "low": None, "high": None}
    assert summary["test_auroc"] is None
    assert summary["test_specificity"] == evaluation.report["test"]["at_threshold"]["specificity"]["value"]
    stored = pd.read_parquet(tmp_path / "predictions.parquet")
    pd.testing.assert_frame_equal(stored, evaluation.predictions)
    assert {path.name for path in (tmp_path / "curves").iterdir()} == {
        "roc.csv",
        "roc_band.csv",
        "precision_recall.csv",
        "calibration.csv",
    }


def test_the_roc_table_keeps_the_area_and_drops_straight_corners() -> None:
    table = predictions()
    labels, scores = table["label"] == "PNEUMONIA", table["probability_raw"]
    table_of_curve = curves.roc_curve(labels, scores)
    assert np.trapezoid(table_of_curve["sensitivity"], table_of_curve["false_positive_rate"]) == pytest.approx(
        roc_auc_score(labels, scores)
    )
    assert len(table_of_curve) < len(roc_curve(labels, scores, drop_intermediate=False)[0]) / 3


def test_precision_recall_ends_with_every_image_called() -> None:
    table = predictions()
    labels = table["label"] == "PNEUMONIA"
    table_of_curve = curves.precision_recall_curve(labels, table["probability_raw"])
    assert table_of_curve["sensitivity"].is_monotonic_increasing
    assert table_of_curve.iloc[-1][["sensitivity", "precision"]].tolist() == [1.0, pytest.approx(labels.mean())]


class Brightness:
    """Predicts the mean grey level; remembers the largest number of images it was given at once."""

    largest = 0

    def probabilities(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        self.largest = max(self.largest, len(images))
        return images.reshape(len(images), -1).mean(axis=1) / 255


def test_predictions_come_in_the_order_asked_for_and_in_parts(tmp_path: Path) -> None:
    images = np.broadcast_to(np.arange(1500)[:, None, None, None] % 256, (1500, 2, 2, 1)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    rows = np.random.default_rng(0).permutation(1500)[:1200]
    predictor = Brightness()
    stored = np.load(tmp_path / "images.npy", mmap_mode="r")
    probabilities = predict_rows(predictor, stored, rows, batch_size=64, progress=False)
    assert probabilities == pytest.approx(rows % 256 / 255)
    assert predictor.largest < 1200


def test_the_worst_mistakes_are_the_most_confident_ones() -> None:
    evaluation = evaluated(predictions(800), resamples=100)
    sheet = worst_mistakes(evaluation.predictions, evaluation.operating_point.threshold, count=3)
    test = evaluation.predictions[evaluation.predictions["split"] == "test"]
    labels = test["label"] == "PNEUMONIA"
    missed = test.loc[labels & (test["probability"] < evaluation.operating_point.threshold), "probability"]
    alarms = test.loc[~labels & (test["probability"] >= evaluation.operating_point.threshold), "probability"]
    assert sheet[sheet["kind"] == "missed"]["probability"].tolist() == sorted(missed)[:3]
    assert sheet[sheet["kind"] == "false alarm"]["probability"].tolist() == sorted(alarms, reverse=True)[:3]
