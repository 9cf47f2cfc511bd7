"""`cxr champion`, `history`, `rollback` and `release`, as they are typed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cxr.cli.main import main
from cxr.promotion.rules import Policy
from cxr.tracking.connection import client
from cxr.tracking.registry import Run, register
from support.model_folders import card, rejudge, write_models, write_store

NAME = "pneumonia-classifier"
EASY = Policy(False, 0.0, 0.0, 1.0, margin=1.0, sensitivity_margin=1.0, resamples=100)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three champions, one after the other; tests that move the alias bring it back."""
    root = tmp_path_factory.mktemp("store")
    uri, folders = write_store(root), write_models(root)
    for seed, skill in enumerate((1.0, 2.0, 5.0)):
        card(seed=seed).write(folders.models / "three_block")
        rejudge(folders, "three_block", skill)
        run = Run(folders.models, folders.evaluations, folders.splits)
        register(run, uri=uri, experiment="pneumonia", registered_name=NAME, policy=EASY)
    return uri


def typed(capsys: pytest.CaptureFixture[str], uri: str, *words: str, status: int = 0) -> str:
    assert main([*words, "--tracking_uri", uri]) == status
    answer = capsys.readouterr()
    return answer.out if status == 0 and answer.out else answer.err


def test_champion_says_which_version_is_served_and_since_when(capsys: pytest.CaptureFixture[str], store: str) -> None:
    line = typed(capsys, store, "champion")
    assert re.search(r"UTC  version 3  since .*: version 3 became champion instead of version 2 \(promoted", line)


def test_champion_of_a_day_lists_all_of_that_day(capsys: pytest.CaptureFixture[str], store: str) -> None:
    now = datetime.now(UTC)
    lines = typed(capsys, store, "champion", "--on", f"{now:%Y-%m-%d}").splitlines()
    assert [line.split("UTC  ")[1].split("  ")[0] for line in lines] == [
        "nobody",
        "version 1",
        "version 2",
        "version 3",
    ]
    assert "nobody" in typed(capsys, store, "champion", "--on", f"{now - timedelta(days=1):%Y-%m-%d}")
    later = (now + timedelta(days=1)).isoformat(timespec="seconds")
    assert len(typed(capsys, store, "champion", "--on", later).splitlines()) == 1


def test_a_day_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], store: str) -> None:
    message = typed(capsys, store, "champion", "--on", "yesterday", status=2)
    assert "expected on to be a day such as 2026-11-01" in message and "received on='yesterday'" in message


def test_history_tells_every_decision_with_its_figures(capsys: pytest.CaptureFixture[str], store: str) -> None:
    text = typed(capsys, store, "history")
    assert len(re.findall(r"^ +\d+  \d{4}-", text, re.MULTILINE)) >= 3
    assert "test_auroc_difference" in text and " on " in text.splitlines()[0]


def test_rollback_goes_one_step_back_each_time_and_release_hands_back(
    capsys: pytest.CaptureFixture[str], store: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="cxr"):
        typed(capsys, store, "rollback", "--reason", "too many false alarms")
        typed(capsys, store, "rollback")
    assert "version 2 became champion instead of version 3 (rolled back)" in caplog.text
    assert "version 1 became champion instead of version 2 (rolled back)" in caplog.text
    assert str(client(store).get_model_version_by_alias(NAME, "champion").version) == "1"
    assert "too many false alarms" in typed(capsys, store, "history")
    assert "as the only one in the log" in typed(capsys, store, "rollback", status=1)
    with caplog.at_level("INFO", logger="cxr"):
        typed(capsys, store, "release")
        typed(capsys, store, "release")
    assert "runs decide again" in caplog.text and "nothing to release" in caplog.text
    client(store).set_registered_model_alias(NAME, "champion", "3")


def test_without_a_registered_model_the_way_out_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "run `cxr register` first" in typed(capsys, write_store(tmp_path), "history", status=1)
    missing = tmp_path / "none.db"
    assert "run `cxr register`, or name another store" in typed(capsys, f"sqlite:///{missing}", "champion", status=2)
    assert not missing.exists()
