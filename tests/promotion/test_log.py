from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cxr.promotion.log import CHALLENGER, CHAMPION, Entry, Kind, champion_on, champions_between, one_step_back

START = datetime(2026, 11, 1, 8, tzinfo=UTC)


def log_of(*moves: tuple[Kind, str | None]) -> list[Entry]:
    """Entries a day apart; each makes a version champion."""
    entries: list[Entry] = []
    before: str | None = None
    for number, (kind, version) in enumerate(moves, start=1):
        time = START + timedelta(days=number - 1)
        entries.append(Entry(number, time, kind, "someone", {CHAMPION: before}, {CHAMPION: version}))
        before = version
    return entries


def test_an_entry_comes_back_from_its_line() -> None:
    entry = Entry(
        7,
        START,
        "run",
        "someone on a machine",
        {CHAMPION: None, CHALLENGER: "1"},
        {CHAMPION: "2", CHALLENGER: "2"},
        (CHALLENGER,),
        "2",
        ("a reason",),
        {"test_auroc_difference": 0.01},
        applied=True,
    )
    assert Entry.from_json(7, entry.to_json(), applied=True) == entry


def test_the_champion_of_a_day_is_that_of_the_last_entry_before() -> None:
    entries = log_of(("run", "1"), ("run", "1"), ("person", "3"))
    assert champion_on(entries, START - timedelta(seconds=1)) is None
    assert champion_on(entries, START).champion == "1"
    assert champion_on(entries, START + timedelta(days=2)).champion == "3"
    assert champion_on(entries, START + timedelta(days=200)).champion == "3"


def test_a_day_with_a_change_lists_both() -> None:
    entries = log_of(("run", "1"), ("run", "2"), ("run", "2"))
    found = champions_between(entries, START, START + timedelta(days=5))
    assert found == [(START, "1"), (START + timedelta(days=1), "2")]
    assert champions_between(entries, START - timedelta(days=9), START - timedelta(days=8)) == [
        (START - timedelta(days=9), None)
    ]


@pytest.mark.parametrize(
    ("moves", "back"),
    [
        ([], None),
        ([("run", "1")], None),
        ([("run", "1"), ("run", "1")], None),
        ([("run", "1"), ("run", "2")], "1"),
        ([("run", "1"), ("run", "2"), ("run", "3"), ("rollback", "2")], "1"),
        ([("run", "1"), ("run", "2"), ("rollback", "1")], None),
        ([("run", "1"), ("run", "2"), ("rollback", "1"), ("run", "3")], "1"),
        ([("run", "1"), ("run", "2"), ("person", "1")], "2"),
        ([("run", "1"), ("person", None)], "1"),
        ([("run", "1"), ("run", "2"), ("person", None)], "2"),
        ([("run", "1"), ("person", None), ("run", "2")], "1"),
    ],
)
def test_a_rollback_takes_versions_off_the_pile(moves: list[tuple[Kind, str | None]], back: str | None) -> None:
    assert one_step_back(log_of(*moves)) == back


def test_sentences_say_who_moved_what() -> None:
    entries = log_of(("run", "1"), ("run", "2"), ("rollback", "1"), ("person", None), ("release", None))
    assert [entry.sentence() for entry in entries] == [
        "version 1 became champion (promoted by a run)",
        "version 2 became champion instead of version 1 (promoted by a run)",
        "version 1 became champion instead of version 2 (rolled back)",
        "nobody is champion any more (set by hand)",
        "nobody is champion; runs decide again",
    ]
