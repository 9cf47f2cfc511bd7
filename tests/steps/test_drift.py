"""`cxr drift` as it is typed and as a schedule runs it: exit status, report, figures in MLflow, and what it starts."""

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
from cxr.inference.answers import Answer
from cxr.inference.predictor import Prediction
from cxr.inference.reference.reference import Reference
from cxr.models.metadata import ModelCard
from cxr.serving.model_provider import Served
from cxr.tracking.connection import client
from support.logged_predictions import films, reference, served, write_log
from support.model_folders import Folders, write_models

TODAY = datetime.now(UTC).replace(hour=0, minute=1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A model, its evaluation, and what its training films look like, as the pipeline leaves them."""
    made = write_models(tmp_path_factory.mktemp("drift"))
    (made.models.parent / "reference").mkdir()
    reference(films(300, 0)).save(made.models.parent / "reference")
    return made


@pytest.fixture
def logged(folders: Folders, tmp_path: Path) -> Callable[..., Path]:
    """Writes a log whose answers are spread as on validation, whatever the films are."""
    judged = folders.evaluations / "three_block"
    scores, card = ValidationScores.of_evaluation(judged).probability, ModelCard.read(judged)
    who = served("", "", card)

    def write(name: str = "log", count: int = 90, *, last: datetime = TODAY, by: Served = who, **kinds: Any) -> Path:
        given = []
        for number, film in enumerate(films(count, 1, **kinds)):
            probability, threshold = float(scores[number % len(scores)]), float(card.threshold or 0)
            label = PNEUMONIA if probability >= threshold else NORMAL
            given.append(Answer(Prediction(probability, label, threshold, probability), None, film))
        return write_log(tmp_path / name, given, by, days=3, last=last)

    return write


@pytest.fixture
def drift(folders: Folders, tmp_path: Path) -> Callable[..., int]:
    """Runs the command on the folder's model and returns its exit status; no figures are logged unless asked for."""

    def run(log: Path, *words: object) -> int:
        given = ["--log", log, "--report", tmp_path / "report", "--model", folders.models / "three_block", *words]
        if "--tracking_uri" not in words:
            given += ["--offline", "true"]
        return main(["drift", *map(str, given)])

    return run


def found(tmp_path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((tmp_path / "report" / "drift.json").read_text())
    return read


def test_exit_status_report_and_figures_tell_no_drift_from_drift_from_too_few_films(
    drift: Callable[..., int], logged: Callable[..., Path], tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ("--tracking_uri", uri)
    assert drift(logged("calm"), *store) == 0
    assert found(tmp_path)["outcome"] == "no drift"
    assert drift(logged("moved", brighter=25), *store) == 3
    assert "cxr drift: drift in mean" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.html", "drift.json"}
    assert drift(logged("few", count=30, brighter=25), *store) == 4
    assert "too few to tell: 30 rows" in capsys.readouterr().err

    connected = client(uri)
    experiment = connected.get_experiment_by_name("drift")
    runs = {run.data.tags["outcome"]: run for run in connected.search_runs([experiment.experiment_id])}
    assert set(runs) == {"drift", "no drift", "too few to tell"}
    moved = runs["drift"]
    assert moved.info.status == "FINISHED", "a window that drifts is no failed comparison"
    assert moved.data.metrics["drifted"] == 1
    assert moved.data.metrics["distance/mean"] > 0.15 > runs["no drift"].data.metrics["distance/mean"]
    assert moved.data.tags["model"] == "three_block"
    assert moved.data.params["significance"] == "0.01"
    files = {one.path for one in connected.list_artifacts(moved.info.run_id, "drift")}
    assert files == {"drift/report.html", "drift/drift.json"}


def test_help_says_what_the_exit_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", "--help"]) == 0
    assert "exit status 0 no drift, 3 drift, 4 too few" in capsys.readouterr().out


def test_only_rows_of_the_window_count(drift: Callable[..., int], logged: Callable[..., Path], tmp_path: Path) -> None:
    log = logged("log", brighter=25, last=TODAY - timedelta(days=20))
    logged("log")
    assert drift(log) == 0
    assert found(tmp_path)["rows"] == 90, "of the last seven days"
    day = f"{TODAY - timedelta(days=20):%Y-%m-%d}"
    assert drift(log, "--since", day, "--until", day, "--films", 10) == 3
    assert found(tmp_path)["rows"] == 30, "a whole day, named as begin and end"
    assert drift(log, "--since", day, "--until", f"{TODAY - timedelta(days=25):%Y-%m-%dT%H:%M}+00:00") == 2
    assert drift(log, "--since", "12d", "--until", f"{TODAY - timedelta(days=5):%Y-%m-%d}") == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--since", "yesterday"), "expected since to be an age such as 7d or 12h, a day"),
        (("--since", "2026-11-02", "--until", "2026-11-01"), "expected since before until"),
        (("--films", "3"), "greater than or equal to 10"),
        (("--on_drift", "[]"), "on_drift"),
    ],
)
def test_wrong_parameters_are_a_users_mistake_and_write_nothing(
    words: tuple[str, ...], expected: str, drift: Callable[..., int], logged: Callable[..., Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert drift(logged(), *words) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_log_that_is_not_there_is_named(
    drift: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drift(tmp_path / "nowhere") == 2
    assert "expected log (PredictionLog) to exist" in capsys.readouterr().err


def test_a_model_that_keeps_nothing_to_compare_with_is_told(
    logged: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = write_models(tmp_path / "bare")
    (bare.evaluations / "three_block" / "predictions.parquet").unlink()
    words = ["--log", logged(), "--report", tmp_path / "report", "--model", bare.models / "three_block"]
    assert main(["drift", *map(str, words), "--offline", "true"]) == 2
    assert "without either" in capsys.readouterr().err


def test_a_store_that_is_away_hides_no_drift(
    drift: Callable[..., int], logged: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert drift(logged(brighter=25), "--tracking_uri", "http://127.0.0.1:9") == 3
    assert any("the figures are not in MLflow" in message for message in caplog.messages)
    assert found(tmp_path)["outcome"] == "drift"


def test_the_command_runs_once_per_drift_and_version(
    drift: Callable[..., int], logged: Callable[..., Path], folders: Folders, tmp_path: Path
) -> None:
    note = tmp_path / "started"
    on_drift = ("--on_drift", json.dumps([sys.executable, "-c", f"open({str(note)!r}, 'a').write('x')"]))
    calm, moved = logged("calm"), logged("moved", brighter=25)
    assert drift(moved, *on_drift) == 3
    assert drift(logged("few", count=12), *on_drift) == 4
    assert drift(moved, *on_drift) == 3
    assert note.read_text() == "x", "a drift that lasts starts one retraining, not one a day"
    assert found(tmp_path)["on_drift"]["command"][0] == sys.executable
    assert drift(calm, *on_drift) == 0
    assert note.read_text() == "x"
    assert drift(moved, *on_drift) == 3
    assert note.read_text() == "xx", "a drift after a calm window is another one"

    known = Reference.load(folders.models.parent / "reference")
    assert known is not None
    (tmp_path / "other").mkdir()
    replace(known, films=known.films[:200], embeddings=known.embeddings[:200]).save(tmp_path / "other")
    assert drift(moved, *on_drift, "--reference", tmp_path / "other") == 3
    assert note.read_text() == "xxx", "so is one of another version"


def test_a_command_that_fails_or_is_not_there_is_told_and_tried_again(
    drift: Callable[..., int], logged: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, note = logged(brighter=25), tmp_path / "started"
    code = f"open({str(note)!r}, 'a').write('x'); raise SystemExit(7)"
    assert drift(log, "--on_drift", json.dumps([sys.executable, "-c", code])) == 1
    said = capsys.readouterr().err
    assert "drift in mean" in said and "received 7 from" in said
    assert drift(log, "--on_drift", "[no-such-program]") == 2
    assert "expected a command to run on drift" in capsys.readouterr().err
    assert drift(log, "--on_drift", json.dumps([sys.executable, "-c", code])) == 1
    assert note.read_text() == "xx"
