"""Acceptance and rejection of a data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cxr.data.checks.acceptance import (
    MAX_LISTED_FILES,
    complete_card,
    log_outcome,
    stop_if_rejected,
    write_checks,
    write_summary,
)
from cxr.data.checks.rules import CheckResult
from cxr.data.dataset import DatasetCard
from cxr.errors import DataError
from support.manifests import manifest

CARD = DatasetCard("kermany", "patients", "kermany.tar", 50, 9, "CC BY 4.0")


def result(severity: str = "critical", passed: bool | None = False, paths: int = 1) -> CheckResult:
    names = tuple(manifest()["path"].iloc[:paths])
    return CheckResult("refused", "No file is refused", severity, passed, "some", "none", names)  # type: ignore[arg-type]


def nowhere(checks: str) -> str:
    """Publishes nothing."""
    return ""


@pytest.mark.parametrize(
    "harmless", [result("warning"), result("critical", True), result("critical", None), result("off", None)]
)
def test_only_a_failed_critical_check_stops(harmless: CheckResult, tmp_path: Path) -> None:
    stop_if_rejected([harmless], manifest().__getitem__, [], tmp_path / "rejected", nowhere)
    with pytest.raises(DataError):
        stop_if_rejected([harmless, result()], manifest().__getitem__, [], tmp_path / "rejected", nowhere)


def test_the_error_names_files_with_reasons_and_where_to_look(tmp_path: Path) -> None:
    frame = manifest()
    frame.loc[0, ["problem", "detail"]] = ["cmyk", "received mode=CMYK"]
    report = tmp_path / "report"
    report.mkdir()
    (report / "exploration.html").write_text("page")
    with pytest.raises(DataError) as error:
        stop_if_rejected(
            [result(paths=MAX_LISTED_FILES + 5)], frame.__getitem__, [report], tmp_path / "rejected", nowhere
        )
    message = str(error.value)
    assert "- refused: No file is refused: expected none, received some" in message
    assert f"{frame.loc[0, 'path']}: cmyk, received mode=CMYK" in message
    assert f"{frame.loc[MAX_LISTED_FILES - 1, 'path']}\n" in message
    assert frame.loc[MAX_LISTED_FILES, "path"] not in message
    assert "... and 5 more" in message
    assert str(tmp_path / "rejected" / "exploration.html") in message
    assert (tmp_path / "rejected" / "exploration.html").read_text() == "page"


def test_the_error_names_the_place_to_which_the_reports_were_published(tmp_path: Path) -> None:
    published: list[str] = []

    def publish(checks: str) -> str:
        assert (tmp_path / "rejected" / "checks.json").is_file(), "the reports are there before they are published"
        published.append(checks)
        return "at the library"

    report = tmp_path / "report"
    report.mkdir()
    write_checks([result()], "abc", report)
    with pytest.raises(DataError, match=r"index\.html, and at the library\."):
        stop_if_rejected([result()], manifest().__getitem__, [report], tmp_path / "rejected", publish)
    assert "1 critical check" in published[0]


def test_acceptance_removes_the_reports_of_an_earlier_rejection(tmp_path: Path) -> None:
    (tmp_path / "rejected").mkdir()
    stop_if_rejected([result("warning")], manifest().__getitem__, [], tmp_path / "rejected", nowhere)
    assert not (tmp_path / "rejected").exists()


def test_the_summary_counts_accepted_images_and_lists_the_others(tmp_path: Path) -> None:
    frame = manifest(20, 30)
    frame.loc[0, ["status", "problem", "detail"]] = ["quarantined", "empty", "received 0 bytes"]
    frame.loc[1, "problem"] = "colour"
    write_summary(frame.__getitem__, "d" * 64, CARD, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["digest"] == "d" * 64
    assert (summary["files"], summary["accepted"], summary["patients"]) == (50, 49, 49)
    assert summary["labels"] == {"NORMAL": 19, "PNEUMONIA": 30}
    assert summary["problems"] == {"colour": 1, "empty": 1}
    assert summary["left_out"] == [frame.loc[0, "path"]]
    assert DatasetCard.read(tmp_path) == CARD


def test_checks_are_stored_with_all_their_files(tmp_path: Path) -> None:
    write_checks([result(paths=30)], "d" * 64, tmp_path)
    (check,) = json.loads((tmp_path / "checks.json").read_text())["checks"]
    assert (check["outcome"], check["count"], len(check["paths"])) == ("failed", 30, 30)


def test_a_folder_without_a_card_is_counted_and_a_card_is_kept() -> None:
    frame = manifest()
    completed = complete_card(DatasetCard("folder", "patients", "unknown", 0, 0, "unknown"), frame.__getitem__)
    assert (completed.images, completed.bytes) == (50, int(frame["bytes"].sum()))
    assert complete_card(CARD, frame.__getitem__) == CARD


def test_files_left_out_and_warnings_are_logged_but_no_check_that_was_not_run(caplog: pytest.LogCaptureFixture) -> None:
    frame = manifest()
    frame.loc[:2, ["status", "problem"]] = ["quarantined", "truncated"]
    log_outcome([result("warning"), result("off", None)], frame.__getitem__)
    assert "3 files left out (3 truncated)" in caplog.text
    assert caplog.text.count("warning: refused: expected none, received some") == 1
