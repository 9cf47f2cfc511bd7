"""The checks that Great Expectations runs on a manifest, and the pages it builds."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cxr.data.checks.drift import BaselineStatistics, DatasetComparison
from cxr.data.checks.rules import CheckResult, list_checks
from cxr.data.dataset import DatasetCard
from support.dataset_validation import CHECK_BOUNDS, compare_datasets, run_checks
from support.manifests import manifest

CARD = DatasetCard("kermany", "patients", "kermany.tar", 50, 0, "CC BY 4.0")


def no_drift() -> DatasetComparison:
    return compare_datasets(BaselineStatistics.from_manifest(manifest(), CARD, "a" * 64), None)


def run(frame: pd.DataFrame, docs: Path, **options: object) -> dict[str, CheckResult]:
    return {result.name: result for result in run_checks(frame, no_drift(), docs, **options)}


def failed(results: dict[str, CheckResult]) -> dict[str, tuple[str, ...]]:
    return {name: result.paths for name, result in results.items() if result.passed is False}


def test_a_sound_manifest_passes_every_check(tmp_path: Path) -> None:
    results = run(manifest(), tmp_path, card=CARD)
    assert failed(results) == {}
    assert list(results) == [check.name for check in list_checks(CHECK_BOUNDS, None)]
    assert [name for name, result in results.items() if result.passed is None] == ["drift"]


FAULTS: list[tuple[list[int], dict[str, object], set[str]]] = [
    ([0], {"readable": False, "width": None, "height": None, "status": "quarantined"}, {"decodable"}),
    ([1], {"status": "refused", "problem": "cmyk"}, {"refused"}),
    ([2], {"label": None, "status": "quarantined"}, {"known_class"}),
    ([3], {"patient": None, "status": "quarantined"}, {"known_name"}),
    ([4], {"width": 60, "height": 60}, {"shortest_side"}),
    ([5], {"width": 10_000, "height": 6_000}, {"megapixels"}),
    ([6], {"width": 1_000}, {"aspect"}),
    ([7], {"label": None}, {"known_class", "labelled"}),
    ([8], {"grey": False}, {"grey_content"}),
    ([9], {"mode": "RGB"}, {"usual_mode"}),
    ([10], {"problem": "other_modality"}, {"usual_modality"}),
    ([10, 12], {"copies": 2, "duplicate_group": "same-1"}, {"copies"}),
    ([14, 16], {"near_group": "near-2", "duplicate_group": "same-2"}, {"lookalikes"}),
    ([18, 20], {"duplicate_group": "same-3"}, {"labels_of_picture"}),
    ([21, 22], {"duplicate_group": "same-4"}, {"splits_of_picture"}),
    ([23, 24], {"patient": "bacteria-9", "splits_of_patient": 2}, {"splits_of_patient", "test_patients"}),
    ([26, 28], {"patient": "bacteria-8", "splits_of_patient": 2}, {"splits_of_patient"}),
    ([30, 31], {"patient": "bacteria-7", "splits_of_patient": 2}, {"splits_of_patient", "test_patients"}),
]
"""Rows, their faulty values, and the checks that must list exactly these rows."""


@pytest.fixture(scope="module")
def faulty() -> pd.DataFrame:
    frame = manifest()
    for rows, values, _ in FAULTS:
        for column, value in values.items():
            frame.loc[rows, column] = value
    frame.loc[[28, 30], "official_split"] = "val"
    return frame


@pytest.fixture(scope="module")
def faulty_results(faulty: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> dict[str, CheckResult]:
    return run(
        faulty, tmp_path_factory.mktemp("docs"), card=CARD, bounds=replace(CHECK_BOUNDS, max_quarantined_share=0.5)
    )


@pytest.mark.parametrize("name", [check.name for check in list_checks(CHECK_BOUNDS, None)])
def test_each_check_lists_exactly_the_files_that_break_it(
    name: str, faulty: pd.DataFrame, faulty_results: dict[str, CheckResult]
) -> None:
    expected = [row for rows, _, checks in FAULTS if name in checks for row in rows]
    assert faulty_results[name].paths == tuple(sorted(faulty.loc[expected, "path"]))
    assert (faulty_results[name].passed is False) == bool(expected)


def test_a_quarantined_twin_with_the_other_label_is_not_a_fault(tmp_path: Path) -> None:
    frame = manifest()
    frame.loc[[2, 30], "duplicate_group"] = "same-1"
    frame.loc[30, ["status", "problem"]] = ["quarantined", "mislabelled"]
    assert failed(run(frame, tmp_path)) == {}


def test_shares_and_counts_are_compared_with_their_bounds(tmp_path: Path) -> None:
    frame = manifest(2, 48)
    frame.loc[10:14, ["status", "problem"]] = ["quarantined", "truncated"]
    results = run(frame, tmp_path, card=DatasetCard("kermany", "patients", "x", 60, 0, "unknown"))
    failures = failed(results)
    assert set(failures) == {"complete", "left_out", "pneumonia_share"}
    assert results["complete"].observed == "50 files"
    assert results["left_out"].observed == "a share of 0.100"
    assert failures["left_out"] == tuple(sorted(frame.loc[10:14, "path"]))
    assert (
        failed(run(frame, tmp_path, bounds=replace(CHECK_BOUNDS, max_pneumonia_share=1.0, max_quarantined_share=0.1)))
        == {}
    )


def test_severity_decides_what_a_broken_rule_does(tmp_path: Path) -> None:
    frame = manifest()
    frame.loc[3, "grey"] = False
    frame.loc[3, "mode"] = "RGB"
    frame.loc[[2, 4], "copies"] = 2
    results = run(frame, tmp_path, severities={"grey_content": "critical", "usual_mode": "off"})
    selected = [results[name] for name in ("grey_content", "copies", "usual_mode")]
    assert [result.outcome for result in selected] == ["failed", "warning", "not run"]
    assert [result.stops for result in selected] == [True, False, False]


def test_without_one_accepted_image_the_critical_checks_of_images_fail(tmp_path: Path) -> None:
    frame = manifest()
    frame["status"] = "quarantined"
    results = run(frame, tmp_path, bounds=replace(CHECK_BOUNDS, max_quarantined_share=1.0))
    assert results["labelled"].stops
    assert results["labelled"].observed == "no accepted image"


def test_drift_names_the_statistics_that_moved(tmp_path: Path) -> None:
    accepted, current = manifest(100, 150), manifest(100, 150)
    current["bytes"] += 2000
    comparison = compare_datasets(
        BaselineStatistics.from_manifest(current, CARD, "b" * 64),
        BaselineStatistics.from_manifest(accepted, CARD, "a" * 64),
    )
    results = {result.name: result for result in run_checks(current, comparison, tmp_path)}
    assert results["drift"].outcome == "warning"
    assert results["drift"].paths == ("bytes of NORMAL", "bytes of PNEUMONIA")


def test_the_data_docs_show_the_first_files_that_break_a_rule_whatever_their_names(tmp_path: Path) -> None:
    frame = manifest(40, 40)
    frame.loc[:29, "grey"] = False
    frame.loc[7, "path"] = "test/<b>$path</b>.jpeg"
    run(frame, tmp_path)
    page = next(tmp_path.glob("validations/accepted_images/**/*.html")).read_text("utf-8")
    shown = sorted(frame.loc[:29, "path"])[:20]
    assert "test/<b>" not in page
    assert "test/&lt;b&gt;$path&lt;/b&gt;.jpeg" in page
    assert all(path in page for path in shown if path != "test/<b>$path</b>.jpeg")
    assert "Every image is grey: no coloured pixels (warning). Images: test/" in page
    assert " and 10 more." in page


def test_data_docs_need_nothing_from_outside_and_show_each_outcome(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    frame = manifest()
    frame.loc[3, "grey"] = False
    run(frame, tmp_path, run_name="abc")
    pages = {path.relative_to(tmp_path).parts[0]: path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    assert set(pages) == {"index.html", "expectations", "validations"}
    for html in pages.values():
        assert not re.findall(r"<script|<link|<img|\ssrc=|url\(|@import", html)
        assert "<style>" in html
    results = next(tmp_path.glob("validations/accepted_images/**/*.html")).read_text("utf-8")
    assert frame.loc[3, "path"] in results
    assert "Every image is grey: no coloured pixels (warning)." in results
    cells = [re.sub("<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", results, re.DOTALL)]
    observed = [cell for name, cell in zip(cells, cells[2:], strict=False) if name.endswith(("holds", "broken"))]
    accepted = len(frame)
    assert sorted(observed) == [
        f"1 of {accepted} images that break it",
        "a share of 0.600",
        *9 * ["all images keep it"],
    ]
    assert "holds" in results
    assert "broken" in results
    assert "10 of 11" in pages["index.html"]
    for link in re.findall(r'href="([^"#]+)"', pages["index.html"]):
        assert link == "../exploration.html" or (tmp_path / link).is_file()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
