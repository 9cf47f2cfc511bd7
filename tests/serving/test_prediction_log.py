"""The log of predictions: whole rows of several processes, no names, and never the reason for a failed answer."""

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

from cxr.errors import ParameterError
from cxr.serving.prediction_log import PredictionLog, picture_path, read_log
from support.logged_predictions import EVER, NOON, Clock, answers, films, pictures, served, write_log

KEYS = {
    "id", "time", "version", "alias", "model", "label", "probability", "threshold", "refusal", "width", "height",
    "statistics", "embedding",
}  # fmt: skip


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]


def test_a_row_says_what_was_answered_by_whom_and_nothing_that_names_a_file_or_a_patient(tmp_path: Path) -> None:
    given = answers(films(2, 1), 1, refused=1)
    write_log(tmp_path / "log", given)
    refused, answered = lines(tmp_path / "log")
    assert set(refused) == set(answered) == KEYS
    assert (refused["refusal"], refused["label"], refused["probability"]) == ("turned", None, None)
    assert given[1].prediction is not None
    assert answered["probability"] == given[1].prediction.probability
    assert (answered["version"], answered["alias"], answered["model"]) == ("3", "champion", "three_block")
    assert (answered["width"], answered["height"]) == (40, 30)
    assert answered["time"] == "2026-11-20T12:00:00.000+00:00"
    assert refused["id"] != answered["id"]
    assert {path.name for path in (tmp_path / "log").iterdir()} == {next((tmp_path / "log").glob("2026-11-20-*")).name}


def test_a_table_gives_back_the_films_as_they_were(tmp_path: Path) -> None:
    shown = films(5, 1)
    rows = read_log(write_log(tmp_path / "log", answers(shown, 1)), *EVER).rows
    for name in shown[0].statistics:
        expected = np.array([one.statistics[name] for one in shown], dtype=np.float32)
        assert np.array_equal(rows[f"film.{name}"].to_numpy(np.float32), expected), "equal, or ties would break"
    assert np.allclose(np.stack(rows["embedding"]), np.stack([one.embedding for one in shown]), rtol=1e-3)


def test_a_value_that_is_not_a_number_stays_unknown(tmp_path: Path) -> None:
    shown = films(2, 1)
    shown[0].statistics["mean"] = math.nan  # type: ignore[index]  # a dict all the same
    rows = read_log(write_log(tmp_path / "log", answers(shown, 1)), *EVER).rows
    assert rows["film.mean"].isna().tolist() == [True, False]


def test_pixels_are_kept_only_where_they_were_asked_for(tmp_path: Path) -> None:
    given = answers(films(3, 1), 1)
    write_log(tmp_path / "without", given)
    assert not list((tmp_path / "without").rglob("*.png"))
    rows = read_log(write_log(tmp_path / "with", given, pixels=True), *EVER).rows
    path = picture_path(tmp_path / "with", rows["id"][2])
    assert path is not None
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), pictures(3)[2].grey)
    assert picture_path(tmp_path / "without", "0") is None


def test_each_day_has_a_file_and_days_outside_the_window_are_not_opened(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "log", answers(films(30, 1), 1), days=3)
    assert sorted(path.name[:10] for path in folder.iterdir()) == ["2026-11-18", "2026-11-19", "2026-11-20"]
    next(folder.glob("2026-11-18-*")).write_bytes(b"\xff not json\n")
    window = read_log(folder, datetime(2026, 11, 19, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC))
    assert (len(window.rows), window.damaged) == (10, 0)
    assert set(window.rows["time"].dt.day) == {19}
    assert len(read_log(folder, NOON, NOON + timedelta(hours=1)).rows) == 10, "the first moment counts"
    assert len(read_log(folder, NOON - timedelta(hours=1), NOON).rows) == 0, "the last one does not"


def test_moments_of_other_zones_and_an_empty_log_are_read(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    rows = read_log(tmp_path / "log", *EVER).rows
    assert len(rows) == 0
    assert {"time", "refusal", "probability", "embedding"} <= set(rows)


def test_lines_that_were_cut_off_or_are_no_rows_are_counted_and_left_out(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "log", answers(films(4, 1), 1))
    path = next(folder.iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole + b'"text"\n{"time": "never"}\n\x00\x00\n' + whole.splitlines()[0][:70])
    window = read_log(folder, *EVER)
    assert (len(window.rows), window.damaged) == (4, 4)
    path.write_bytes(whole[:-1])
    window = read_log(folder, *EVER)
    assert (len(window.rows), window.damaged) == (3, 1), "a line without its end may lack digits"


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log", clock=Clock())
    given, shown = answers(films(4, 1), 1), pictures(4)
    threads = [threading.Thread(target=lambda: [log.append(served(), given, shown) for _ in range(25)]) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    window = read_log(tmp_path / "log", *EVER)
    assert (len(window.rows), window.damaged, window.rows["id"].nunique()) == (400, 0, 400)
    assert len(list((tmp_path / "log").iterdir())) == 1


def test_processes_write_files_of_their_own_and_a_kill_costs_one_line_at_most(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path\n"
        "from support.logged_predictions import *\n"
        "log = PredictionLog(Path(sys.argv[1]), clock=Clock()); given, shown = answers(films(8, 1), 1), pictures(8)\n"
        "who = served(); print('ready', flush=True)\n"
        "while True: log.append(who, given, shown)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "log"), str(Path(__file__).parents[1])]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(2)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    threading.Event().wait(0.3)
    for process in running:
        process.kill()
        process.wait()
    assert len(list((tmp_path / "log").iterdir())) == 2
    window = read_log(tmp_path / "log", *EVER)
    assert len(window.rows) > 16
    assert window.damaged <= 2


def test_a_lost_folder_fails_no_answer_is_told_once_and_is_used_again_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    log = PredictionLog(folder, pixels=True, clock=Clock())
    given, shown = answers(films(3, 1), 1), pictures(3)
    shutil.rmtree(folder)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            log.append(served(), given, shown)
    assert log.lost == 12
    assert len(caplog.messages) == 1 and "answers go on" in caplog.messages[0]
    assert not folder.exists(), "a folder in the place of a lost disk would fill another one"
    (folder / "pixels").mkdir(parents=True)
    log.append(served(), given, shown)
    assert log.lost == 12
    assert len(read_log(folder, *EVER).rows) == 3
    shutil.rmtree(folder)
    with caplog.at_level(logging.WARNING):
        log.append(served(), given, shown)
    assert len(caplog.messages) == 2, "a new loss is told anew"


def test_what_does_not_fit_on_the_disk_is_taken_back_and_later_rows_are_whole(tmp_path: Path) -> None:
    """The limit on a file's size ends a write in the middle, as a full disk does."""
    code = (
        "import resource, sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path\n"
        "from support.logged_predictions import *\n"
        "log = PredictionLog(Path(sys.argv[1]), clock=Clock()); given, shown = answers(films(4, 1), 1), pictures(4)\n"
        "log.append(served(), given, shown); size = next(Path(sys.argv[1]).iterdir()).stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))\n"
        "log.append(served(), given, shown); print(log.lost)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "log.append(served(), given, shown); print(log.lost)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "log"), str(Path(__file__).parents[1])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "4"]
    assert "answers go on" in done.stderr
    window = read_log(tmp_path / "log", *EVER)
    assert (len(window.rows), window.damaged) == (8, 0)


def test_a_folder_that_cannot_be_made_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ParameterError, match=r"expected a folder for the log of predictions, received log=.*file/log"):
        PredictionLog(tmp_path / "file" / "log")
