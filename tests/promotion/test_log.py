from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cxr.promotion.log import (
    CHALLENGER,
    CHAMPION,
    EntryKind,
    PromotionEntry,
    champion_on,
    champions_between,
    previous_champion,
)

START = datetime(2026, 11, 1, 8, tzinfo=UTC)


def log_of(*moves: tuple[EntryKind, str | None]) -> list[PromotionEntry]:
    """Entries a day apart; each makes a version champion."""
    entries: list[PromotionEntry] = []
    before: str | None = None
    for number, (kind, version) in enumerate(moves, start=1):
        time = START + timedelta(days=number - 1)
        entries.append(PromotionEntry(number, time, kind, "someone", {CHAMPION: before}, {CHAMPION: version}))
        before = version
    return entries


def test_an_entry_can_be_read_back() -> None:
    entry = PromotionEntry(
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
    assert PromotionEntry.from_json(7, entry.to_json(), applied=True, cut_off=False) == entry


def test_the_champion_of_a_day_is_that_of_the_last_entry_before() -> None:
    entries = log_of(("run", "1"), ("run", "1"), ("person", "3"))
    assert champion_on(entries, START - timedelta(seconds=1)) is None
    assert champion_on(entries, START).champion == "1"
    assert champion_on(entries, START + timedelta(days=2)).champion == "3"
    assert champion_on(entries, START + timedelta(days=200)).champion == "3"


def test_a_day_with_a_change_lists_both() -> None:
    entries = log_of(("run", "1"), ("run", "2"), ("run", "2"))
    spans = champions_between(entries, START, START + timedelta(days=5))
    assert spans == [(START, "1"), (START + timedelta(days=1), "2")]
    assert champions_between(entries, START - timedelta(days=9), START - timedelta(days=8)) == [
        (START - timedelta(days=9), None)
    ]


@pytest.mark.parametrize(
    ("moves", "expected"),
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
def test_a_rollback_goes_back_one_promotion(moves: list[tuple[EntryKind, str | None]], expected: str | None) -> None:
    assert previous_champion(log_of(*moves)) == expected


def test_sentences_say_who_moved_what() -> None:
    entries = log_of(("run", "1"), ("run", "2"), ("rollback", "1"), ("person", None), ("release", None))
    assert [entry.sentence() for entry in entries] == [
        "version 1 became champion (promoted by a run)",
        "version 2 became champion instead of version 1 (promoted by a run)",
        "version 1 became champion instead of version 2 (rolled back)",
        "nobody is champion any more (set by hand)",
        "nobody is champion; runs decide again",
    ]
