"""`cxr champion`, `history`, `rollback` and `release` on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cxr.cli.main import main
from cxr.promotion.candidates import RunFolders
from cxr.tracking.store import Store
from support.model_folders import make_metadata, replace_evaluation, write_models, write_store
from support.promotion_policies import EASY_POLICY
from support.registrations import register

NAME = "pneumonia-classifier"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three champions, one after the other; tests that move the alias bring it back."""
    root = tmp_path_factory.mktemp("store")
    address, folders = write_store(root), write_models(root)
    for seed, skill in enumerate((1.0, 2.0, 5.0)):
        make_metadata(seed=seed).write(folders.models / "three_block")
        replace_evaluation(folders, "three_block", skill)
        run = RunFolders(folders.models, folders.evaluations, folders.splits)
        register(Store(address), run, experiment="pneumonia", registered_name=NAME, policy=EASY_POLICY)
    return address


def run_command(capsys: pytest.CaptureFixture[str], uri: str, *arguments: str, status: int = 0) -> str:
    assert main([*arguments, "--tracking_uri", uri]) == status
    captured = capsys.readouterr()
    return captured.out if status == 0 and captured.out else captured.err


def test_champion_says_which_version_is_served_and_since_when(capsys: pytest.CaptureFixture[str], uri: str) -> None:
    line = run_command(capsys, uri, "champion")
    assert re.search(r"UTC  version 3  since .*: version 3 became champion instead of version 2 \(promoted", line)


def test_champion_of_a_day_lists_all_of_that_day(capsys: pytest.CaptureFixture[str], uri: str) -> None:
    now = datetime.now(UTC)
    lines = run_command(capsys, uri, "champion", "--on", f"{now:%Y-%m-%d}").splitlines()
    assert [line.split("UTC  ")[1].split("  ")[0] for line in lines] == [
        "nobody",
        "version 1",
        "version 2",
        "version 3",
    ]
    assert "nobody" in run_command(capsys, uri, "champion", "--on", f"{now - timedelta(days=1):%Y-%m-%d}")
    later = (now + timedelta(days=1)).isoformat(timespec="seconds")
    assert len(run_command(capsys, uri, "champion", "--on", later).splitlines()) == 1


def test_an_invalid_day_is_refused(capsys: pytest.CaptureFixture[str], uri: str) -> None:
    message = run_command(capsys, uri, "champion", "--on", "yesterday", status=2)
    assert "expected on to be a day such as 2026-11-01" in message and "received on='yesterday'" in message


def test_history_shows_every_decision_with_its_figures(capsys: pytest.CaptureFixture[str], uri: str) -> None:
    text = run_command(capsys, uri, "history")
    assert len(re.findall(r"^ +\d+  \d{4}-", text, re.MULTILINE)) >= 3
    assert "test_auroc_difference" in text and " on " in text.splitlines()[0]


def test_rollback_goes_one_step_back_each_time_and_release_lets_runs_decide(
    capsys: pytest.CaptureFixture[str], uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="cxr"):
        run_command(capsys, uri, "rollback", "--reason", "too many false alarms")
        run_command(capsys, uri, "rollback")
    assert "version 2 became champion instead of version 3 (rolled back)" in caplog.text
    assert "version 1 became champion instead of version 2 (rolled back)" in caplog.text
    assert str(Store(uri).client.get_model_version_by_alias(NAME, "champion").version) == "1"
    assert "too many false alarms" in run_command(capsys, uri, "history")
    assert "before which the promotion log has no other" in run_command(capsys, uri, "rollback", status=1)
    with caplog.at_level("INFO", logger="cxr"):
        run_command(capsys, uri, "release")
        run_command(capsys, uri, "release")
    assert "runs decide again" in caplog.text and "nothing to release" in caplog.text
    Store(uri).client.set_registered_model_alias(NAME, "champion", "3")


def test_without_a_registered_model_the_remedy_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "run `cxr register` first" in run_command(capsys, write_store(tmp_path), "history", status=2)
    missing = tmp_path / "none.db"
    assert "run `cxr register`, or name another store" in run_command(
        capsys, f"sqlite:///{missing}", "champion", status=2
    )
    assert not missing.exists()
