"""Aliases and promotion log: in line whatever persons, killed processes and rival runs do."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cxr.errors import RegistryError
from cxr.promotion.log import CHALLENGER, CHAMPION, Entry
from cxr.tracking import aliases as module
from cxr.tracking.aliases import Aliases
from cxr.tracking.connection import client
from cxr.tracking.promotion_log import PromotionLog
from cxr.tracking.registry import observe, promotion_log

NAME = "pneumonia-classifier"


@pytest.fixture
def connected(uri: str) -> MlflowClient:
    """A registered model with four versions that are only numbers."""
    found = client(uri)
    found.create_registered_model(NAME)
    for _ in range(4):
        found.create_model_version(NAME, source="file:///nowhere")
    return found


def places(uri: str) -> Mapping[str, str | None]:
    return Aliases(uri, NAME).current()


def promote(uri: str, version: str) -> Entry | None:
    aliases = Aliases(uri, NAME)
    return aliases.move(aliases.settle(), "run", {CHAMPION: version, CHALLENGER: version}, candidate=version)


def test_an_entry_of_the_log_can_be_written_once(uri: str, connected: MlflowClient) -> None:
    log = PromotionLog(connected, uri, NAME)
    entry = Entry(1, datetime(2026, 11, 1, tzinfo=UTC), "run", "one", {}, {CHAMPION: "1"})
    assert log.append(entry) and log.append(entry), "the same entry again, after an answer was lost, is in the log"
    assert not log.append(replace(entry, who="another"))
    assert [one.who for one in log.entries()] == ["one"]
    assert PromotionLog(connected, uri, NAME).run_id == log.run_id


def test_a_deleted_log_is_not_begun_anew(uri: str, connected: MlflowClient) -> None:
    promote(uri, "1")
    connected.delete_run(PromotionLog(connected, uri, NAME).run_id)
    with pytest.raises(RegistryError, match=r"expected the promotion log, received run=\w+ \(deleted\); restore it"):
        promote(uri, "2")
    assert {str(version) for version in connected.get_registered_model(NAME).aliases.values()} == {"1"}


def test_an_unknown_registered_model_is_named(uri: str) -> None:
    with pytest.raises(RegistryError, match=r"registered_name='other' .*run `cxr register` first"):
        Aliases(uri, "other")


def test_of_two_decisions_on_the_same_standing_one_is_written(uri: str, connected: MlflowClient) -> None:
    one, other = Aliases(uri, NAME), Aliases(uri, NAME)
    standing, same = one.settle(), other.settle()
    assert other.move(same, "run", {CHAMPION: "2"}) is not None
    assert one.move(standing, "run", {CHAMPION: "1"}) is None
    assert places(uri)[CHAMPION] == "2"
    assert len(one.log.entries()) == 1


def test_what_a_person_sets_in_the_page_is_noted_and_held(uri: str, connected: MlflowClient) -> None:
    promote(uri, "1")
    connected.set_registered_model_alias(NAME, CHAMPION, "3")
    standing = observe(uri, NAME)
    assert (standing.champion, standing.held) == ("3", (CHAMPION,))
    last = promotion_log(uri, NAME)[-1]
    assert (last.kind, last.who, last.sentence()) == (
        "person",
        "a person",
        "version 3 became champion instead of version 1 (set by hand)",
    )
    assert len(promotion_log(uri, NAME)) == 2, "looking again adds nothing"


def test_removing_the_alias_hands_the_choice_back(uri: str, connected: MlflowClient) -> None:
    promote(uri, "1")
    connected.set_registered_model_alias(NAME, CHAMPION, "3")
    observe(uri, NAME)
    connected.delete_registered_model_alias(NAME, CHAMPION)
    standing = observe(uri, NAME)
    assert (standing.champion, standing.held) == (None, ())


def test_an_alias_from_before_the_log_is_a_persons(uri: str, connected: MlflowClient) -> None:
    connected.set_registered_model_alias(NAME, CHAMPION, "2")
    assert observe(uri, NAME).held == (CHAMPION,)


def test_release_lets_runs_decide_again(uri: str, connected: MlflowClient) -> None:
    promote(uri, "1")
    assert Aliases(uri, NAME).release() is None
    connected.set_registered_model_alias(NAME, CHAMPION, "3")
    entry = Aliases(uri, NAME).release()
    assert entry is not None and entry.sentence() == "version 3 stayed champion; runs decide again"
    assert observe(uri, NAME).held == () and places(uri)[CHAMPION] == "3"


def test_a_move_that_was_killed_half_way_is_completed(
    uri: str, connected: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(uri, "1")
    aliases = Aliases(uri, NAME)
    killed = Entry(2, datetime.now(UTC), "run", "a killed run", aliases.current(), {CHAMPION: "2", CHALLENGER: "2"})
    assert aliases.log.append(killed)
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    assert observe(uri, NAME).champion == "2"
    assert places(uri) == {CHAMPION: "2", CHALLENGER: "2"}
    assert [one.applied for one in promotion_log(uri, NAME)] == [True, True]


def test_a_person_who_chooses_while_a_move_is_half_done_wins(uri: str, connected: MlflowClient) -> None:
    promote(uri, "1")
    aliases = Aliases(uri, NAME)
    killed = Entry(2, datetime.now(UTC), "run", "a killed run", aliases.current(), {CHAMPION: "2", CHALLENGER: "2"})
    assert aliases.log.append(killed)
    connected.set_registered_model_alias(NAME, CHAMPION, "4")
    connected.set_registered_model_alias(NAME, CHALLENGER, "2")
    standing = observe(uri, NAME)
    assert (standing.champion, standing.held) == ("4", (CHAMPION,))


def test_a_rollback_needs_an_earlier_champion_that_can_answer(uri: str, connected: MlflowClient) -> None:
    promote(uri, "1")
    with pytest.raises(RegistryError, match=r"expected an earlier champion .* received champion=1 as the only one"):
        Aliases(uri, NAME).roll_back()
    promote(uri, "2")
    with pytest.raises(RegistryError, match=r"version 1 .* with all its files, received one without card\.json"):
        Aliases(uri, NAME).roll_back()
    connected.delete_model_version(NAME, "1")
    with pytest.raises(RegistryError, match="received none; it was deleted"):
        Aliases(uri, NAME).roll_back()
    assert places(uri)[CHAMPION] == "2" and len(promotion_log(uri, NAME)) == 2


RIVAL = """
import sys, json
from cxr.promotion.log import CHAMPION
from cxr.tracking.aliases import Aliases
aliases = Aliases(sys.argv[1], "pneumonia-classifier")
sys.stdin.readline()
won = 0
for turn in range(8):
    while True:
        standing = aliases.settle()
        entry = aliases.move(standing, "run", {CHAMPION: sys.argv[2 + turn % 2]}, candidate=sys.argv[2 + turn % 2])
        if entry is not None:
            break
    won += 1
print(won)
"""


def test_processes_that_decide_at_once_leave_a_log_without_gaps_or_contradictions(
    uri: str, connected: MlflowClient, tmp_path: Path
) -> None:
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, uri, first, second],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for first, second in (("1", "2"), ("3", "4"))
    ]
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    for rival in rivals:
        out, errors = rival.communicate(timeout=300)
        assert rival.returncode == 0, errors[-3000:]
        assert json.loads(out) == 8
    entries = promotion_log(uri, NAME)
    assert [one.number for one in entries] == list(range(1, 17))
    for before, after in itertools.pairwise(entries):
        assert after.before[CHAMPION] == before.champion
        assert after.kind == "run"
    assert places(uri)[CHAMPION] == entries[-1].champion
