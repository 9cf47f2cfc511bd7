from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from cxr.promotion import Facts, Policy, Registration, choose, decide

CHAMPION = Facts(
    model="three_block",
    version="1",
    dataset_kind="patients",
    gpu=True,
    device="test GPU",
    data_digest="data",
    split_protocol="70/15/15 by patient",
    split_digest="split",
    validation_auroc=0.95,
    test_auroc=0.95,
    test_sensitivity=0.96,
)
BETTER = replace(CHAMPION, version="2", validation_auroc=0.97)
POLICY = Policy(require_gpu=True, min_auroc=0.9, min_sensitivity=0.9, margin=0.01)


def broken(candidate: Facts, champion: Facts | None, policy: Policy = POLICY, **options: bool) -> list[str]:
    decision = decide(candidate, champion, policy, **options)
    assert decision.promote == (not decision.reasons and candidate != champion)
    return [rule.name for rule in decision.rules if not rule.passed]


def test_a_clearly_better_challenger_becomes_champion() -> None:
    decision = decide(BETTER, CHAMPION, POLICY)
    assert decision.promote and decision.champion == "2"


def test_the_first_champion_needs_device_and_floors_only() -> None:
    assert broken(CHAMPION, None) == []
    assert decide(replace(CHAMPION, gpu=False), None, POLICY).champion is None


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"gpu": False}, "gpu"),
        ({"test_auroc": 0.89}, "auroc"),
        ({"test_auroc": math.nan}, "auroc"),
        ({"test_sensitivity": 0.89}, "sensitivity"),
        ({"validation_auroc": 0.95}, "better"),
        ({"validation_auroc": 0.96}, "better"),
        ({"validation_auroc": math.nan}, "better"),
        ({"data_digest": "other"}, "comparable"),
        ({"split_digest": "other"}, "comparable"),
        ({"dataset_kind": "phantom"}, "data"),
    ],
)
def test_one_broken_rule_keeps_the_champion(change: dict[str, object], rule: str) -> None:
    candidate = replace(BETTER, **change)
    assert broken(candidate, CHAMPION) == [rule]
    assert decide(candidate, CHAMPION, POLICY).champion == "1"


def test_unknown_data_is_not_taken_for_the_same_data() -> None:
    unknown = {"data_digest": "", "split_digest": ""}
    assert broken(replace(BETTER, **unknown), replace(CHAMPION, **unknown)) == ["comparable"]


def test_a_local_trial_may_waive_the_gpu() -> None:
    assert broken(replace(BETTER, gpu=False), CHAMPION, replace(POLICY, require_gpu=False)) == []


def test_a_model_of_patients_replaces_one_of_phantoms_without_comparison() -> None:
    phantom = replace(CHAMPION, dataset_kind="phantom", validation_auroc=1.0, data_digest="drawn")
    assert broken(BETTER, phantom) == []
    assert broken(replace(BETTER, dataset_kind="phantom"), replace(phantom, dataset_kind="")) == ["data"]


def test_a_persons_choice_stays_and_the_better_version_is_recommended() -> None:
    by_hand = decide(BETTER, CHAMPION, POLICY, chosen_by_person=True)
    pinned = decide(BETTER, replace(CHAMPION, pinned=True), POLICY)
    for decision in (by_hand, pinned):
        assert not decision.promote and decision.champion == "1" and decision.recommended
    worse = decide(replace(BETTER, gpu=False), CHAMPION, POLICY, chosen_by_person=True)
    assert not worse.recommended


def test_the_champion_is_not_compared_with_itself() -> None:
    decision = decide(CHAMPION, CHAMPION, POLICY)
    assert (decision.promote, decision.champion, decision.rules) == (False, "1", ())


def test_validation_alone_chooses_the_challenger() -> None:
    loud_on_test = replace(CHAMPION, version="3", validation_auroc=0.9, test_auroc=1.0)
    unknown = replace(CHAMPION, version="4", validation_auroc=math.nan)
    assert choose([loud_on_test, unknown, BETTER]) == BETTER
    assert choose([unknown]) is None
    assert choose([CHAMPION, replace(CHAMPION, version="9")]) == CHAMPION


def test_the_page_says_who_is_champion_and_why_not() -> None:
    candidate = replace(BETTER, gpu=False, device="some processor", test_sensitivity=math.nan)
    decision = decide(candidate, None, POLICY)
    page = Registration("pneumonia-classifier", "uri", (candidate,), ("2",), "2", False, decision)
    text = page.to_markdown()
    assert "challenger is version 2, champion is nobody; version 2 was not promoted" in text
    assert "trained on a CPU (some processor)" in text
    assert "test sensitivity unknown cannot be held against the floor of 0.9000" in text
    assert "| three_block | 2 (new) | 0.9700 | 0.9500 | unknown | some processor |" in text
    assert json.loads(json.dumps(page.to_dict()))["decision"]["rules"][0]["name"] == "gpu"
