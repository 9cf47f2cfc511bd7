"""The log of predictions: complete rows of several processes, no names, and no failed prediction because of it."""

from __future__ import annotations

import json
import logging
import math
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr.errors import MissingInputError, ParameterError
from cxr.serving.prediction_log import PredictionLog
from cxr.serving.prediction_log_reader import logged_image_path, read_prediction_log
from support.logged_predictions import (
    ALL_TIME,
    NOON,
    Clock,
    make_features,
    make_images,
    make_results,
    make_served_model,
    write_prediction_log,
)
from support.model_folders import make_metadata

KEYS = {
    "id", "time", "version", "alias", "model", "label", "probability", "threshold", "refusal", "width", "height",
    "statistics", "embedding",
}  # fmt: skip
PROCESS_START = (
    "import resource, sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path\n"
    "from cxr.serving.prediction_log import PredictionLog\n"
    "from support.logged_predictions import Clock, make_features, make_images, make_results, make_served_model\n"
    "folder = Path(sys.argv[1]); log = PredictionLog(folder, keep_images=False, clock=Clock())\n"
    "served, results, images = make_served_model(), make_results(make_features(4, 1), 1), make_images(4)\n"
)


def process_command(code: str, folder: Path) -> list[str]:
    return [sys.executable, "-c", PROCESS_START + code, str(folder), str(Path(__file__).parents[1])]


def read_lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]


def test_a_row_has_the_prediction_and_the_version_but_no_name_of_a_file_or_patient(tmp_path: Path) -> None:
    results = make_results(make_features(2, 1), 1, refused=1)
    write_prediction_log(tmp_path / "log", results)
    refused, predicted = read_lines(tmp_path / "log")
    assert set(refused) == set(predicted) == KEYS
    assert (refused["refusal"], refused["label"], refused["probability"]) == ("turned", None, None)
    assert results[1].prediction is not None
    assert predicted["probability"] == results[1].prediction.probability
    assert (predicted["version"], predicted["alias"], predicted["model"]) == ("3", "champion", "three_block")
    assert (predicted["width"], predicted["height"]) == (40, 30)
    assert predicted["time"] == "2026-11-20T12:00:00.000+00:00"
    assert refused["id"] != predicted["id"]
    assert {path.name for path in (tmp_path / "log").iterdir()} == {next((tmp_path / "log").glob("2026-11-20-*")).name}


def test_reading_returns_the_statistics_and_embeddings_that_were_logged(tmp_path: Path) -> None:
    features = make_features(5, 1)
    rows = read_prediction_log(write_prediction_log(tmp_path / "log", make_results(features, 1)), *ALL_TIME).rows
    for name in features[0].statistics:
        expected = np.array([image.statistics[name] for image in features], dtype=np.float32)
        assert np.array_equal(rows[f"film.{name}"].to_numpy(np.float32), expected), "equal values must stay equal"
    assert np.allclose(np.stack(rows["embedding"]), np.stack([image.embedding for image in features]), rtol=1e-3)


def test_a_statistic_that_is_not_a_number_stays_unknown(tmp_path: Path) -> None:
    features = make_features(2, 1)
    features[0].statistics["mean"] = math.nan  # type: ignore[index]  # it is a dict, declared as a Mapping
    rows = read_prediction_log(write_prediction_log(tmp_path / "log", make_results(features, 1)), *ALL_TIME).rows
    assert rows["film.mean"].isna().tolist() == [True, False]


def test_images_are_kept_only_if_that_was_asked_for(tmp_path: Path) -> None:
    results = make_results(make_features(3, 1), 1)
    write_prediction_log(tmp_path / "without", results)
    assert not list((tmp_path / "without").rglob("*.png"))
    rows = read_prediction_log(write_prediction_log(tmp_path / "with", results, pixels=True), *ALL_TIME).rows
    path = logged_image_path(tmp_path / "with", rows["id"][2])
    assert path is not None
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), make_images(3)[2].grey)
    assert logged_image_path(tmp_path / "without", "0") is None


def test_each_day_has_a_file_and_files_outside_the_window_are_not_opened(tmp_path: Path) -> None:
    folder = write_prediction_log(tmp_path / "log", make_results(make_features(30, 1), 1), days=3)
    assert sorted(path.name[:10] for path in folder.iterdir()) == ["2026-11-18", "2026-11-19", "2026-11-20"]
    next(folder.glob("2026-11-18-*")).write_bytes(b"\xff not json\n")
    window = read_prediction_log(folder, datetime(2026, 11, 19, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC))
    assert (len(window.rows), window.damaged) == (10, 0)
    assert set(window.rows["time"].dt.day) == {19}
    assert len(read_prediction_log(folder, NOON, NOON + timedelta(hours=1)).rows) == 10, "the start is included"
    assert len(read_prediction_log(folder, NOON - timedelta(hours=1), NOON).rows) == 0, "the end is excluded"


def test_an_empty_log_gives_a_table_with_all_columns(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    rows = read_prediction_log(tmp_path / "log", *ALL_TIME).rows
    assert len(rows) == 0
    assert {"time", "refusal", "probability", "embedding"} <= set(rows)


def test_damaged_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    folder = write_prediction_log(tmp_path / "log", make_results(make_features(4, 1), 1))
    path = next(folder.iterdir())
    content = path.read_bytes()
    path.write_bytes(content + b'"text"\n{"time": "never"}\n\x00\x00\n' + content.splitlines()[0][:70])
    window = read_prediction_log(folder, *ALL_TIME)
    assert (len(window.rows), window.damaged) == (4, 4)
    path.write_bytes(content[:-1])
    window = read_prediction_log(folder, *ALL_TIME)
    assert (len(window.rows), window.damaged) == (3, 1), "digits may be missing from a line without its line break"


def test_an_answer_of_a_shadow_stands_beside_its_row_and_a_log_without_one_is_read_too(tmp_path: Path) -> None:
    results, folder = make_results(make_features(3, 1), 1), tmp_path / "log"
    write_prediction_log(folder, results)
    plain = read_prediction_log(folder, *ALL_TIME).rows
    assert plain["shadow_version"].isna().all() and plain["shadow_probability"].isna().all()
    clock = Clock(NOON.replace(hour=23, minute=59))
    log = PredictionLog(folder, keep_images=False, clock=clock)
    rows = log.append(make_served_model(), results, make_images(3))
    clock.now += timedelta(hours=1)
    refused, predicted = make_results(make_features(2, 2), 2, refused=1)
    shadow = make_served_model("4", "challenger", make_metadata("shallow").with_calibration(1.0, 0.4, "by hand"))
    log.append_shadow(rows[0], shadow, refused)
    log.append_shadow(rows[2], shadow, predicted)
    assert {path.name[:10] for path in folder.iterdir()} == {"2026-11-20"}, "an answer stands in the file of its row"
    window = read_prediction_log(folder, NOON + timedelta(hours=1), NOON + timedelta(days=1))
    assert window.damaged == 0 and len(window.rows) == 3, "an answer of a shadow is no row"
    with_shadow = window.rows.set_index("id")
    assert with_shadow["shadow_version"].isna().tolist() == [False, True, False]
    first, last = with_shadow.loc[rows[0].row_id], with_shadow.loc[rows[2].row_id]
    assert (first["shadow_refusal"], first["shadow_version"], first["version"]) == ("turned", "4", "3")
    assert math.isnan(first["shadow_probability"])
    assert predicted.prediction is not None and results[2].prediction is not None
    assert last["shadow_probability"] == predicted.prediction.probability
    assert last["probability"] == results[2].prediction.probability
    assert (last["shadow_model"], last["shadow_alias"]) == ("shallow", "challenger")


def test_a_log_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(MissingInputError, match=r"expected the folder of a prediction log, received log=.*log\.jsonl"):
        read_prediction_log(tmp_path / "log.jsonl", *ALL_TIME)


def test_threads_write_complete_lines_to_one_file(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log", keep_images=False, clock=Clock())
    results, images = make_results(make_features(4, 1), 1), make_images(4)

    def append_repeatedly() -> None:
        for _ in range(25):
            log.append(make_served_model(), results, images)

    threads = [threading.Thread(target=append_repeatedly) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    window = read_prediction_log(tmp_path / "log", *ALL_TIME)
    assert (len(window.rows), window.damaged, window.rows["id"].nunique()) == (400, 0, 400)
    assert len(list((tmp_path / "log").iterdir())) == 1


def test_processes_write_files_of_their_own_and_a_kill_damages_one_line_at_most(tmp_path: Path) -> None:
    code = "print('ready', flush=True)\nwhile True: log.append(served, results, images)\n"
    processes = [subprocess.Popen(process_command(code, tmp_path / "log"), stdout=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    threading.Event().wait(0.3)
    for process in processes:
        process.kill()
        process.communicate()  # closes the pipe, too
    assert len(list((tmp_path / "log").iterdir())) == 2
    window = read_prediction_log(tmp_path / "log", *ALL_TIME)
    assert len(window.rows) > 16
    assert window.damaged <= 2


def test_a_lost_folder_is_reported_once_and_used_again_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    log = PredictionLog(folder, keep_images=True, clock=Clock())
    served, results, images = make_served_model(), make_results(make_features(3, 1), 1), make_images(3)
    shutil.rmtree(folder)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            log.append(served, results, images)
    assert log.lost_rows == 12
    assert len(caplog.messages) == 1 and "answers go on" in caplog.messages[0]
    assert not folder.exists(), "a new folder in the place of a lost disk would fill another disk"
    (folder / "pixels").mkdir(parents=True)
    log.append(served, results, images)
    assert log.lost_rows == 12
    assert len(read_prediction_log(folder, *ALL_TIME).rows) == 3
    shutil.rmtree(folder)
    with caplog.at_level(logging.WARNING):
        log.append(served, results, images)
    assert len(caplog.messages) == 2, "a new loss is reported again"


def test_a_partial_write_is_removed_and_later_rows_are_complete(tmp_path: Path) -> None:
    """The limit of a file's size ends a write in the middle, as a full disk does."""
    code = (
        "log.append(served, results, images); size = next(folder.iterdir()).stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))\n"
        "log.append(served, results, images); print(log.lost_rows)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "log.append(served, results, images); print(log.lost_rows)\n"
    )
    command = process_command(code, tmp_path / "log")
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["4", "4"]
    assert "answers go on" in result.stderr
    window = read_prediction_log(tmp_path / "log", *ALL_TIME)
    assert (len(window.rows), window.damaged) == (8, 0)


def test_a_folder_that_cannot_be_created_is_a_parameter_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ParameterError, match=r"expected a folder for the log of predictions, received log=.*file/log"):
        PredictionLog(tmp_path / "file" / "log", keep_images=False)
