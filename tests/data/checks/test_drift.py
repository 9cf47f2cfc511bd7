"""Drift between a data set and the last accepted one."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from cxr.data.checks.drift import BaselineStatistics
from cxr.data.dataset import DatasetCard
from support.dataset_validation import DRIFT_LIMITS, compare_datasets
from support.manifests import manifest

PATIENTS = DatasetCard("kermany", "patients", "kermany.tar", 0, 0, "CC BY 4.0")
PHANTOMS = DatasetCard("phantom", "phantom", "phantom", 0, 0, "CC0")


def baseline(frame: pd.DataFrame, card: DatasetCard = PATIENTS, digest: str = "a" * 64) -> BaselineStatistics:
    return BaselineStatistics.from_manifest(frame, card, digest)


def test_the_same_data_do_not_drift() -> None:
    statistics = baseline(manifest(200, 300))
    comparison = compare_datasets(statistics, statistics)
    assert comparison.compared
    assert not comparison.drifted
    assert "the same images as" in comparison.note


def test_another_sample_of_the_same_hospital_does_not_drift_by_chance() -> None:
    comparison = compare_datasets(baseline(manifest(40, 60, seed=1)), baseline(manifest(40, 60, seed=2)))
    assert comparison.table["distance"].max() > DRIFT_LIMITS.distance
    assert not comparison.drifted


def test_brighter_images_of_one_class_drift_in_that_class_alone() -> None:
    accepted = manifest(200, 300)
    brighter = accepted.copy()
    brighter.loc[brighter["label"] == "NORMAL", "mean"] += 15
    table = compare_datasets(baseline(brighter), baseline(accepted)).table
    drifted = table[table["drifted"]]
    assert list(zip(drifted["statistic"], drifted["group"], strict=True)) == [("mean", "NORMAL")]
    assert drifted["current"].item() == pytest.approx(drifted["accepted"].item() + 15)


def test_other_class_shares_drift() -> None:
    table = compare_datasets(baseline(manifest(100, 400)), baseline(manifest(250, 250))).table
    row = table.set_index("statistic").loc["label shares"]
    assert row["drifted"]
    assert row["distance"] == pytest.approx(0.3)


def test_phantoms_are_not_compared_with_patients_and_the_note_says_so() -> None:
    comparison = compare_datasets(baseline(manifest(), PATIENTS), baseline(manifest(), PHANTOMS))
    assert not comparison.compared
    assert not comparison.drifted
    assert "kind phantom" in comparison.note
    assert "kind patients" in comparison.note


def test_without_an_accepted_data_set_the_note_says_so() -> None:
    assert "no data set has been accepted" in compare_datasets(baseline(manifest()), None).note


def test_a_class_that_vanished_is_unknown_and_its_share_drifts() -> None:
    table = compare_datasets(baseline(manifest(0, 100)), baseline(manifest(50, 50))).table
    absent = table[(table["statistic"] == "mean") & (table["group"] == "NORMAL")].iloc[0]
    assert math.isnan(absent["current"])
    assert not absent["drifted"]
    assert table.set_index("statistic").loc["label shares", "drifted"]


def test_quarantined_files_do_not_count() -> None:
    frame = manifest()
    frame.loc[0, ["status", "mean"]] = ["quarantined", 250.0]
    assert len(baseline(frame).sample) == len(frame) - 1


def test_each_kind_keeps_its_own_baseline(tmp_path: Path) -> None:
    baseline(manifest(seed=1), PATIENTS, "1" * 64).write(tmp_path)
    baseline(manifest(seed=2), PHANTOMS, "2" * 64).write(tmp_path)
    baseline(manifest(seed=3), PATIENTS, "3" * 64).write(tmp_path)
    patients, phantoms = BaselineStatistics.read(tmp_path, "patients"), BaselineStatistics.read(tmp_path, "phantom")
    assert patients is not None
    assert phantoms is not None
    assert (patients.digest[0], phantoms.digest[0]) == ("3", "2")
    assert not compare_datasets(patients, baseline(manifest(seed=3), PATIENTS)).drifted


def test_the_baseline_of_the_other_kind_is_read_where_there_is_none_of_this_kind(tmp_path: Path) -> None:
    assert BaselineStatistics.read(tmp_path, "patients") is None
    baseline(manifest(), PHANTOMS).write(tmp_path)
    other_kind = BaselineStatistics.read(tmp_path, "patients")
    assert other_kind is not None
    assert other_kind.card.kind == "phantom"
