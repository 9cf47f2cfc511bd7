"""A shadow beside the version that answered: agreement, differences, disagreements and drift of both."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.drift.shadow_comparison import (
    ShadowComparison,
    choose_pair,
    compare_with_shadow,
    find_disagreements,
    other_pairs,
    rows_of_pair,
)
from cxr.drift.shadow_report import ComparedVersion, ShadowReport, detect_drift_of_both, write_shadow_report
from cxr.errors import MissingInputError
from cxr.evaluation.validation_scores import ValidationScores
from cxr.inference.checked_prediction import PredictionResult
from cxr.inference.predictor import Prediction
from cxr.inference.reference.reference import Reference
from cxr.inference.reference.refusals import Refusal
from cxr.serving.prediction_log_reader import logged_image_path, read_prediction_log
from support.logged_predictions import ALL_TIME, NOON, make_features, make_served_model, write_prediction_log
from support.model_folders import make_metadata
from support.window_limits import WINDOW_LIMITS

pytestmark = pytest.mark.usefixtures("figures_are_drawn")

REFUSED_IMAGE = None
"""In place of a probability."""
THRESHOLD, SHADOW_THRESHOLD = 0.5, 0.4
SHADOW = make_served_model(
    "4", "challenger", make_metadata("shallow").with_calibration(1.0, SHADOW_THRESHOLD, "by hand")
)


def answers(probabilities: Sequence[float | None], threshold: float, seed: int = 1) -> list[PredictionResult]:
    results = []
    for probability, features in zip(probabilities, make_features(len(probabilities), seed), strict=True):
        if probability is None:
            results.append(PredictionResult(None, Refusal("turned", "it looks turned"), features))
        else:
            label = PNEUMONIA if probability >= threshold else NORMAL
            results.append(PredictionResult(Prediction(probability, label, threshold, probability), None, features))
    return results


def logged_rows(
    folder: Path,
    probabilities: Sequence[float | None],
    shadow: Sequence[float | None],
    *,
    dropped: int = 0,
    **options: bool,
) -> pd.DataFrame:
    """Rows of a log in which the shadow has answered for all images but the last ones."""
    shadow_results = [*answers(shadow, SHADOW_THRESHOLD), *[None] * dropped]
    results = answers(probabilities, THRESHOLD)
    write_prediction_log(folder, results, shadow=SHADOW, shadow_results=shadow_results, **options)
    return read_prediction_log(folder, *ALL_TIME).rows


def compare(rows: pd.DataFrame) -> ShadowComparison:
    return compare_with_shadow(rows, choose_pair(rows, None, None))


def test_agreement_and_differences_are_those_of_the_images_that_both_predict(tmp_path: Path) -> None:
    rows = logged_rows(
        tmp_path / "log",
        [0.9, 0.8, 0.2, 0.1, REFUSED_IMAGE, 0.7, 0.6],
        [0.95, 0.3, 0.45, 0.1, REFUSED_IMAGE, REFUSED_IMAGE],
        dropped=1,
    )  # fmt: skip
    comparison = compare(rows)
    assert (comparison.images, comparison.unanswered, comparison.predicted, comparison.same) == (6, 1, 4, 3)
    assert comparison.outcomes == {
        "NORMAL": {"NORMAL": 1, "PNEUMONIA": 1},
        "PNEUMONIA": {"NORMAL": 1, "PNEUMONIA": 1, "REFUSED": 1},
        "REFUSED": {"REFUSED": 1},
    }
    assert comparison.agreement["value"] == 0.5
    assert comparison.kappa == pytest.approx(cohen_kappa_score([1, 1, 0, 0], [1, 0, 1, 0])) == 0
    difference = [0.05, -0.5, 0.25, 0.0]
    assert comparison.mean_difference == pytest.approx(np.mean(difference))
    assert comparison.mean_absolute_difference == pytest.approx(0.2)
    assert comparison.difference_quantiles[0.5] == pytest.approx(np.median(difference))
    assert (comparison.positive, comparison.shadow_positive) == (2, 2), "each by its own threshold"
    assert "version 3 (three_block) and its shadow, version 4 (shallow)" in comparison.sentence()
    disagreements = find_disagreements(rows_of_pair(rows, comparison.pair))
    assert disagreements["probability"].tolist() == [0.7, 0.8, 0.2], "refusals first, then by the difference"


def test_uncertain_answers_of_a_shadow_with_a_coverage_are_an_outcome_of_their_own(tmp_path: Path) -> None:
    probabilities, labels = [0.9, 0.8, 0.2, 0.1, 0.6], [PNEUMONIA, "UNCERTAIN", "UNCERTAIN", NORMAL, "UNCERTAIN"]
    shadow_results = [
        replace(answer, prediction=replace(answer.prediction, label=label))
        for answer, label in zip(answers(probabilities, SHADOW_THRESHOLD), labels, strict=True)
    ]
    results = answers([0.9, 0.8, 0.2, 0.1, REFUSED_IMAGE], THRESHOLD)
    write_prediction_log(tmp_path / "log", results, shadow=SHADOW, shadow_results=shadow_results)
    comparison = compare(read_prediction_log(tmp_path / "log", *ALL_TIME).rows)
    assert comparison.outcomes == {
        "NORMAL": {"NORMAL": 1, "UNCERTAIN": 1},
        "PNEUMONIA": {"PNEUMONIA": 1, "UNCERTAIN": 1},
        "REFUSED": {"UNCERTAIN": 1},
    }
    assert (comparison.predicted, comparison.same_label) == (4, 2)
    assert comparison.kappa == pytest.approx(cohen_kappa_score([1, 1, 0, 0], [1, 2, 2, 0]))
    assert comparison.shadow_positive == 2, "by the threshold, whatever the label says"


def test_one_and_the_same_label_leaves_kappa_unknown(tmp_path: Path) -> None:
    comparison = compare(logged_rows(tmp_path / "log", [0.9, 0.8], [0.9, 0.7]))
    assert comparison.agreement["value"] == 1 and math.isnan(comparison.kappa)
    assert "kappa unknown" in comparison.sentence()
    refused = compare(logged_rows(tmp_path / "refused", [REFUSED_IMAGE], [REFUSED_IMAGE]))
    assert refused.predicted == 0 and refused.same == 1 and "no image with a probability" in refused.sentence()


def test_the_newest_shadow_is_compared_unless_another_is_named(tmp_path: Path) -> None:
    first = make_served_model("2", "challenger")
    for shadow, day in ((first, NOON - timedelta(days=1)), (SHADOW, NOON)):
        write_prediction_log(
            tmp_path / "log", answers([0.9], THRESHOLD), last=day, shadow=shadow,
            shadow_results=answers([0.8], SHADOW_THRESHOLD),
        )  # fmt: skip
    rows = read_prediction_log(tmp_path / "log", *ALL_TIME).rows
    pair = choose_pair(rows, None, None)
    assert (pair.version, pair.shadow_version) == ("3", "4")
    assert [other.shadow_version for other in other_pairs(rows, pair)] == ["2"]
    assert choose_pair(rows, "3", "2").shadow_version == "2"
    assert compare_with_shadow(rows, pair).images == 1
    with pytest.raises(
        MissingInputError, match=r"\(3 and 2, 3 and 4\), received served_version=None, shadow_version=9"
    ):
        choose_pair(rows, None, "9")


def test_a_log_without_a_shadow_says_how_to_get_one(tmp_path: Path) -> None:
    rows = logged_rows(tmp_path / "log", [0.9, 0.8], [])
    with pytest.raises(MissingInputError, match=r"received 2 rows without any; log them with `cxr serve --shadow"):
        choose_pair(rows, None, None)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, training: Reference, validation: ValidationScores) -> Path:
    """Report of a shadow whose probabilities are far from its validation, with stored images."""
    root = tmp_path_factory.mktemp("shadow")
    probabilities = validation.probability[:80].tolist()
    shadow = [min(0.99, 0.5 + probability / 2) for probability in probabilities]
    rows = logged_rows(root / "log", [REFUSED_IMAGE, *probabilities], [0.3, *shadow], pixels=True)
    pair = choose_pair(rows, None, None)
    versions = (
        ComparedVersion(make_metadata(), training, validation),
        ComparedVersion(make_metadata("shallow"), training, validation),
    )
    drifts = detect_drift_of_both(rows, pair, versions, WINDOW_LIMITS, seed=0)
    (root / "report").mkdir()
    comparison, both = compare_with_shadow(rows, pair), rows_of_pair(rows, pair)
    write_shadow_report(
        root / "report",
        ShadowReport(
            comparison, both, versions, drifts, NOON - timedelta(days=1), NOON, 1, ("the window also has more",)
        ),
        image_path=lambda row_id: logged_image_path(root / "log", row_id),
    )
    return root / "report"


def test_drift_is_measured_for_both_versions_by_their_own_answers(report: Path) -> None:
    values = json.loads((report / "comparison.json").read_text())
    drifted = {
        name: {test["name"] for test in values["drift"][name]["findings"] if test["drifted"]}
        for name in ("version", "shadow")
    }
    assert "probability" not in drifted["version"] and "probability" in drifted["shadow"]
    assert values["drift"]["version"]["refused"] == 1 and values["drift"]["shadow"]["refused"] == 0
    assert not any(note.startswith("embedding") for note in values["drift"]["shadow"]["notes"])
    assert values["notes"] == ["the window also has more"] and values["damaged_lines"] == 1


def test_the_page_needs_no_other_file_and_the_table_has_every_disagreement(report: Path) -> None:
    page, values = (report / "report.html").read_text(), json.loads((report / "comparison.json").read_text())
    assert not re.search(r"(src|href)=\"(?!data:)", page), "no other file, no network"
    assert page.count("data:image/png") == 5 and values["sentence"] in page
    names = {path.name for path in (report / "plots").iterdir()}
    assert names == {
        "probabilities.png", "differences.png", "version_probabilities.png", "shadow_probabilities.png",
        "disagreements.png",
    }  # fmt: skip
    with (report / "disagreements.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == values["disagreements"] > 1
    assert (table[0]["outcome"], table[0]["refusal"], table[0]["shadow_outcome"]) == ("REFUSED", "turned", "NORMAL")
    assert table[0]["image"] == f"pixels/{table[0]['id']}.png"


def test_a_report_without_images_and_without_the_versions_has_what_the_log_says(tmp_path: Path) -> None:
    rows = logged_rows(tmp_path / "log", [0.9, 0.8], [0.9, 0.3])
    pair = choose_pair(rows, None, None)
    drifts = detect_drift_of_both(rows, pair, (None, None), WINDOW_LIMITS, seed=0)
    (tmp_path / "report").mkdir()
    write_shadow_report(
        tmp_path / "report",
        ShadowReport(compare_with_shadow(rows, pair), rows_of_pair(rows, pair), (None, None), drifts, NOON, NOON, 0),
        image_path=lambda row_id: logged_image_path(tmp_path / "log", row_id),
    )
    assert {path.name for path in (tmp_path / "report" / "plots").iterdir()} == {"probabilities.png", "differences.png"}
    values = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert values["drift"] == {"version": None, "shadow": None}
    assert all("cannot be read" in note for note in values["notes"]) and len(values["notes"]) == 2
    assert "cannot be read" in (tmp_path / "report" / "report.html").read_text()
