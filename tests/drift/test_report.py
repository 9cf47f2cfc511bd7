"""The report of a comparison: a page that needs no other file, and drift.json for programs."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from cxr.drift.detection import detect_drift
from cxr.drift.report import ReportContext, write_report
from cxr.evaluation.validation_scores import ValidationScores
from cxr.inference.reference.reference import Reference
from cxr.serving.prediction_log_reader import logged_image_path, read_prediction_log
from support.logged_predictions import ALL_TIME, NOON, make_features, make_results, write_prediction_log
from support.model_folders import make_metadata
from support.window_limits import WINDOW_LIMITS

pytestmark = pytest.mark.usefixtures("figures_are_drawn")


def write_drifted_report(
    folder: Path, training: Reference | None, validation: ValidationScores, *, pixels: bool
) -> Path:
    results = make_results(make_features(90, 1, brighter=25), 1, refused=2)
    log = write_prediction_log(folder / "log", results, days=3, pixels=pixels)
    rows = read_prediction_log(log, *ALL_TIME).rows
    comparison = detect_drift(rows, ("3", "three_block"), training, validation, WINDOW_LIMITS, seed=0)
    context = ReportContext("3", "champion", make_metadata(), training, validation, NOON - timedelta(days=3), NOON, 1)
    report = folder / "report"
    report.mkdir()
    write_report(
        report, comparison, rows, context, image_path=lambda name: logged_image_path(log, name), entries={"extra": 1}
    )
    return report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, training: Reference, validation: ValidationScores) -> Path:
    """Report of a window with drift, whose images were stored."""
    return write_drifted_report(tmp_path_factory.mktemp("report"), training, validation, pixels=True)


def test_page_needs_no_other_file(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert "<h1>drift</h1>" in page and "drift in mean" in page and "1 lines were cut off" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page), "no other file, no network"
    assert page.count("data:image/png") == 5
    assert page.count("data:image/jpeg") == 8, "examples"


def test_page_without_stored_images_and_without_training_statistics(
    tmp_path: Path, validation: ValidationScores
) -> None:
    page = (write_drifted_report(tmp_path, None, validation, pixels=False) / "report.html").read_text()
    assert page.count("data:image/png") == 3
    assert "data:image/jpeg" not in page
    assert "register it again" in page


def test_drift_json_has_every_value(report: Path) -> None:
    values = json.loads((report / "drift.json").read_text())
    assert (values["outcome"], values["version"], values["rows"], values["refused"]) == ("drift", "3", 90, 2)
    assert values["damaged_lines"] == values["extra"] == 1
    mean = next(test for test in values["findings"] if test["name"] == "mean")
    assert mean["drifted"] and mean["distance"] > mean["limit"] and mean["corrected"] >= mean["p_value"]
    assert mean["change"] == [None, None], "unknown is null"
