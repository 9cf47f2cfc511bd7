"""`cxr compare`: from a log with a shadow to a report, with what the registry knows of both versions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cxr.cli.main import main
from support.logged_predictions import make_features, make_results, make_served_model, write_prediction_log
from support.model_folders import make_metadata
from support.tracking_server import register_versions

TODAY = datetime.now(UTC).replace(hour=0, minute=1)


def write_log(folder: Path, *, shadow: bool) -> Path:
    """Log 60 answers of version 1, and those of version 2 if there is to be a shadow."""
    features = make_features(60, 1)
    metadata = make_metadata("shallow").with_calibration(1.0, 0.5, "by hand")
    return write_prediction_log(
        folder, make_results(features, 1), make_served_model("1"), last=TODAY, pixels=True,
        shadow=make_served_model("2", "challenger", metadata) if shadow else None,
        shadow_results=make_results(features, 2),
    )  # fmt: skip


def test_the_report_has_agreement_and_drift_of_both_registered_versions(tmp_path: Path, uri: str) -> None:
    register_versions(tmp_path / "run", uri)
    log, report = write_log(tmp_path / "log", shadow=True), tmp_path / "report"
    assert main(["compare", "--log", str(log), "--report", str(report), "--tracking_uri", uri]) == 0
    values = json.loads((report / "comparison.json").read_text())
    assert (values["version"], values["shadow_version"], values["images"]) == ("1", "2", 60)
    assert {test["name"] for test in values["drift"]["shadow"]["findings"]} >= {"probability", "share of pneumonia"}
    assert (report / "report.html").is_file() and (report / "plots" / "disagreements.png").is_file()


def test_without_the_registry_only_drift_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, report = write_log(tmp_path / "log", shadow=True), tmp_path / "report"
    uri = f"sqlite:///{tmp_path}/nowhere.db"
    assert main(["compare", "--log", str(log), "--report", str(report), "--tracking_uri", uri]) == 0
    values = json.loads((report / "comparison.json").read_text())
    assert values["images"] == 60 and values["drift"] == {"version": None, "shadow": None}
    assert not (tmp_path / "nowhere.db").exists()
    assert "drift of version 2 is left out" in caplog.text


def test_a_log_without_a_shadow_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, report = write_log(tmp_path / "log", shadow=False), tmp_path / "report"
    assert main(["compare", "--log", str(log), "--report", str(report)]) == 2
    message = capsys.readouterr().err
    assert "received 60 rows without any" in message and "--shadow challenger" in message
    assert not report.exists() and "Traceback" not in message
