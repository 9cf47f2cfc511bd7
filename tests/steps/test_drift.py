"""`cxr drift`: exit status, report, metrics in MLflow, and the command that it starts."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cxr.cli.main import main
from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.evaluation.validation_scores import ValidationScores
from cxr.inference.checked_prediction import PredictionResult
from cxr.inference.predictor import Prediction
from cxr.inference.reference.reference import Reference
from cxr.models.metadata import ModelMetadata
from cxr.serving.served_model import ServedModel
from cxr.tracking.store import Store
from support.logged_predictions import make_features, make_reference, make_served_model, write_prediction_log
from support.model_folders import ModelFolders, write_models

TODAY = datetime.now(UTC).replace(hour=0, minute=1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    """A model, its evaluation, and the statistics of its training images, as the pipeline writes them."""
    folders = write_models(tmp_path_factory.mktemp("drift"))
    (folders.models.parent / "reference").mkdir()
    make_reference(make_features(300, 0)).save(folders.models.parent / "reference")
    return folders


@pytest.fixture
def logged(folders: ModelFolders, tmp_path: Path) -> Callable[..., Path]:
    """Writes a log whose probabilities are distributed as on validation, whatever the images are."""
    evaluation = folders.evaluations / "three_block"
    scores, card = ValidationScores.from_evaluation(evaluation).probability, ModelMetadata.read(evaluation)
    folder_model = make_served_model("", "", card)

    def write(
        name: str = "log", count: int = 90, *, last: datetime = TODAY, model: ServedModel = folder_model, **kinds: Any
    ) -> Path:
        results = []
        for number, features in enumerate(make_features(count, 1, **kinds)):
            probability, threshold = float(scores[number % len(scores)]), float(card.threshold or 0)
            label = PNEUMONIA if probability >= threshold else NORMAL
            prediction = Prediction(probability, label, threshold, probability)
            results.append(PredictionResult(prediction, None, features))
        return write_prediction_log(tmp_path / name, results, model, days=3, last=last)

    return write


@pytest.fixture
def drift(folders: ModelFolders, tmp_path: Path) -> Callable[..., int]:
    """Runs the command on the folder's model and returns its exit status; logs nothing without --tracking_uri."""

    def run(log: Path, *options: object) -> int:
        arguments = ["--log", log, "--report", tmp_path / "report", "--model", folders.models / "three_block", *options]
        if "--tracking_uri" not in options:
            arguments += ["--offline", "true"]
        return main(["drift", *map(str, arguments)])

    return run


def read_report(tmp_path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((tmp_path / "report" / "drift.json").read_text())
    return report


def test_exit_status_report_and_metrics_of_no_drift_drift_and_too_few_images(
    drift: Callable[..., int], logged: Callable[..., Path], tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ("--tracking_uri", uri)
    assert drift(logged("calm"), *store) == 0
    assert read_report(tmp_path)["outcome"] == "no drift"
    assert drift(logged("moved", brighter=25), *store) == 3
    assert "cxr drift: drift in mean" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.html", "drift.json"}
    assert drift(logged("few", count=30, brighter=25), *store) == 4
    assert "too few to tell: 30 rows" in capsys.readouterr().err

    connected = Store(uri).client
    experiment = connected.get_experiment_by_name("drift")
    runs = {run.data.tags["outcome"]: run for run in connected.search_runs([experiment.experiment_id])}
    assert set(runs) == {"drift", "no drift", "too few to tell"}
    drift_run = runs["drift"]
    assert drift_run.info.status == "FINISHED", "a comparison that finds drift has not failed"
    assert drift_run.data.metrics["drifted"] == 1
    assert drift_run.data.metrics["distance/mean"] > 0.15 > runs["no drift"].data.metrics["distance/mean"]
    assert drift_run.data.tags["model"] == "three_block"
    assert drift_run.data.params["significance"] == "0.01"
    files = {file.path for file in connected.list_artifacts(drift_run.info.run_id, "drift")}
    assert files == {"drift/report.html", "drift/drift.json"}


def test_help_says_what_the_exit_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", "--help"]) == 0
    assert "exit status 0 no drift, 3 drift, 4 too few" in capsys.readouterr().out


def test_only_rows_of_the_window_count(drift: Callable[..., int], logged: Callable[..., Path], tmp_path: Path) -> None:
    log = logged("log", brighter=25, last=TODAY - timedelta(days=20))
    logged("log")
    assert drift(log) == 0
    assert read_report(tmp_path)["rows"] == 90, "of the last seven days"
    day = f"{TODAY - timedelta(days=20):%Y-%m-%d}"
    assert drift(log, "--since", day, "--until", day, "--films", 10) == 3
    assert read_report(tmp_path)["rows"] == 30, "a whole day, given as start and end"
    assert drift(log, "--since", day, "--until", f"{TODAY - timedelta(days=25):%Y-%m-%dT%H:%M}+00:00") == 2
    assert drift(log, "--since", "12d", "--until", f"{TODAY - timedelta(days=5):%Y-%m-%d}") == 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--since", "yesterday"), "expected since to be an age such as 7d or 12h, a day"),
        (("--since", "2026-11-02", "--until", "2026-11-01"), "expected since before until"),
        (("--films", "3"), "greater than or equal to 10"),
        (("--on_drift", "[]"), "on_drift"),
    ],
)
def test_wrong_parameters_are_reported_and_nothing_is_written(
    options: tuple[str, ...], expected: str, drift: Callable[..., int], logged: Callable[..., Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert drift(logged(), *options) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_missing_log_is_reported(drift: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert drift(tmp_path / "nowhere") == 2
    assert "expected log (PredictionLog) to exist" in capsys.readouterr().err


def test_model_without_anything_to_compare_with_is_refused(
    logged: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = write_models(tmp_path / "bare")
    (bare.evaluations / "three_block" / "predictions.parquet").unlink()
    arguments = ["--log", logged(), "--report", tmp_path / "report", "--model", bare.models / "three_block"]
    assert main(["drift", *map(str, arguments), "--offline", "true"]) == 2
    assert "without either" in capsys.readouterr().err


def test_drift_is_reported_although_the_store_does_not_answer(
    drift: Callable[..., int], logged: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert drift(logged(brighter=25), "--tracking_uri", "http://127.0.0.1:9") == 3
    assert any("the metrics are not in MLflow" in message for message in caplog.messages)
    assert read_report(tmp_path)["outcome"] == "drift"


def test_the_command_runs_once_per_drift_and_version(
    drift: Callable[..., int], logged: Callable[..., Path], folders: ModelFolders, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    on_drift = ("--on_drift", json.dumps([sys.executable, "-c", f"open({str(started)!r}, 'a').write('x')"]))
    calm, moved = logged("calm"), logged("moved", brighter=25)
    assert drift(moved, *on_drift) == 3
    assert drift(logged("few", count=12), *on_drift) == 4
    assert drift(moved, *on_drift) == 3
    assert started.read_text() == "x", "a lasting drift starts one retraining, not one per day"
    assert read_report(tmp_path)["on_drift"]["command"][0] == sys.executable
    assert drift(calm, *on_drift) == 0
    assert started.read_text() == "x"
    assert drift(moved, *on_drift) == 3
    assert started.read_text() == "xx", "drift after a window without drift is a new drift"

    full_reference = Reference.load(folders.models.parent / "reference")
    assert full_reference is not None
    (tmp_path / "other").mkdir()
    half = replace(
        full_reference, statistics=full_reference.statistics[:200], embeddings=full_reference.embeddings[:200]
    )
    half.save(tmp_path / "other")
    assert drift(moved, *on_drift, "--reference", tmp_path / "other") == 3
    assert started.read_text() == "xxx", "drift of another version is a new drift"


def test_failed_or_missing_command_is_reported_and_tried_again(
    drift: Callable[..., int], logged: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, started = logged(brighter=25), tmp_path / "started"
    code = f"open({str(started)!r}, 'a').write('x'); raise SystemExit(7)"
    assert drift(log, "--on_drift", json.dumps([sys.executable, "-c", code])) == 1
    message = capsys.readouterr().err
    assert "drift in mean" in message and "received 7 from" in message
    assert drift(log, "--on_drift", "[no-such-program]") == 2
    assert "expected a command to run on drift" in capsys.readouterr().err
    assert drift(log, "--on_drift", json.dumps([sys.executable, "-c", code])) == 1
    assert started.read_text() == "xx"
