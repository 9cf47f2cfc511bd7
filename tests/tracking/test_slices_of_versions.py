"""Slices of registered versions: a floor on the worst one, its name in decision, tags and card, and later changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cxr.errors import ParameterError
from cxr.evaluation.slices import slice_title
from cxr.promotion.candidates import RunFolders
from cxr.promotion.policy import PromotionPolicy
from cxr.promotion.report import Registration, write_decision
from cxr.serving.model_source import load_version
from cxr.tracking.store import Store
from cxr.tracking.version_record import read_recorded_card
from support.model_folders import ModelFolders, add_slices, replace_evaluation, write_models
from support.promotion_policies import EASY_POLICY, promotion_policy
from support.registrations import register

NAME = "pneumonia-classifier"
WARDS = ("A", "B", "B", "A", "B", "B", "C")


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    folders = write_models(tmp_path)
    replace_evaluation(folders, "three_block", skill=1.5)
    return folders


def run_register(folders: ModelFolders, store: Store, policy: PromotionPolicy = EASY_POLICY) -> Registration:
    run = RunFolders(folders.models, folders.evaluations, folders.splits)
    return register(store, run, experiment="pneumonia", registered_name=NAME, policy=policy)


def easy_policy_with_floor(floor: float) -> PromotionPolicy:
    names = ("require_gpu", "min_auroc", "min_sensitivity", "max_calibration_error", "resamples")
    return promotion_policy(**{name: getattr(EASY_POLICY, name) for name in names}, min_slice_sensitivity=floor)


def written(registration: Registration, folder: Path) -> tuple[dict[str, Any], str]:
    folder.mkdir()
    write_decision(folder, registration)
    return json.loads((folder / "decision.json").read_text()), (folder / "decision.html").read_text()


def test_a_floor_on_slices_needs_evaluations_with_slices(folders: ModelFolders, store: Store) -> None:
    with pytest.raises(ParameterError, match=r"slices, received min_slice_sensitivity=0\.8 and none for three_block"):
        run_register(folders, store, easy_policy_with_floor(0.8))
    assert not store.client.search_registered_models(), "nothing is registered"


@pytest.mark.parametrize("above", [True, False])
def test_the_floor_holds_for_the_worst_slice_on_test_which_the_decision_names(
    above: bool, folders: ModelFolders, store: Store, tmp_path: Path
) -> None:
    report = add_slices(folders, "three_block", "ward", WARDS)
    worst = report["test"]["slices"]["worst"]
    value, title = worst["sensitivity"]["value"], slice_title(worst)
    assert value < report["test"]["at_threshold"]["sensitivity"]["value"]
    floor = value + (0.01 if above else -0.01)
    result = run_register(folders, store, easy_policy_with_floor(floor))
    assert result.decision is not None and result.decision.promote != above
    sentence = f"test sensitivity of the worst slice ({title}) {value:.4f}"
    assert [rule.sentence.startswith(sentence) for rule in result.decision.rules].count(True) == 1
    assert bool(result.decision.reasons) == above
    decision, page = written(result, tmp_path / "decision")
    assert decision["candidates"][0]["test_worst_slice"] == title
    assert decision["policy"]["min_slice_sensitivity"] == floor
    assert "Test sensitivity of the worst slice" in page and f"{value:.4f}<br>{title}" in page


def test_slices_that_are_all_too_small_pass_no_floor(folders: ModelFolders, store: Store) -> None:
    add_slices(folders, "three_block", "number", [str(number) for number in range(48)])
    result = run_register(folders, store, easy_policy_with_floor(0.1))
    assert result.decision is not None and not result.decision.promote
    assert any("worst slice unknown cannot be held against" in reason for reason in result.decision.reasons)


def test_tags_and_card_of_a_version_follow_the_slices_of_its_latest_evaluation(
    folders: ModelFolders, store: Store, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(folders.evaluations, plain)
    decision, page = written(run_register(folders, store), tmp_path / "without")
    assert "slice" not in json.dumps(decision) + page, "a decision without slices does not mention them"
    before = store.client.get_model_version(NAME, "1")
    assert not [name for name in before.tags if "slice" in name] and "## Slices" not in before.description

    for column, values in (("ward", WARDS), ("site", ("north", "south"))):
        worst = add_slices(folders, "three_block", column, values)["test"]["slices"]["worst"]
        assert run_register(folders, store).new_versions == ()
        version = store.client.get_model_version(NAME, "1")
        assert version.tags["test_worst_slice"] == slice_title(worst)
        assert float(version.tags["test_worst_slice_sensitivity"]) == worst["sensitivity"]["value"]
        card = load_version(store, NAME, "1", "", preferred_alias="").model_card
        assert card is not None and f"%), {slice_title(worst)}." in card.partition("## Slices")[2]
    assert "ward: " not in card

    shutil.rmtree(folders.evaluations)
    shutil.copytree(plain, folders.evaluations)
    run_register(folders, store)
    after = store.client.get_model_version(NAME, "1")
    assert (after.tags, after.description) == (before.tags, before.description)


def test_the_uploaded_evaluation_follows_slices_also_where_the_summary_stays_the_same(
    folders: ModelFolders, store: Store, tmp_path: Path
) -> None:
    summary = folders.evaluations / "three_block" / "summary.json"
    summaries = []
    for column in ("ward", "unit"):  # the same images under another name
        add_slices(folders, "three_block", column, WARDS)
        summaries.append(summary.read_text())
        run_register(folders, store)
        version = store.client.get_model_version(NAME, "1")
        uploaded = Path(store.client.download_artifacts(version.run_id, "evaluation/metrics.json", str(tmp_path)))
        assert json.loads(uploaded.read_text())["slices"]["columns"] == [column]
        assert f"{column}: " in str(read_recorded_card(store, version)).partition("## Slices")[2]
    assert summaries[0] == summaries[1]
