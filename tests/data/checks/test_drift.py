"""Drift between a data set and the last accepted one."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from cxr.data.checks.drift import Baseline, DriftLimits, compare
from cxr.data.dataset import DatasetCard
from support.manifests import manifest

PATIENTS = DatasetCard("kermany", "patients", "kermany.tar", 0, 0, "CC BY 4.0")
PHANTOMS = DatasetCard("phantom", "phantom", "phantom", 0, 0, "CC0")


def baseline(frame: pd.DataFrame, card: DatasetCard = PATIENTS, digest: str = "a" * 64) -> Baseline:
    return Baseline.of(frame, card, digest)


def test_the_same_data_do_not_drift() -> None:
    now = baseline(manifest(200, 300))
    comparison = compare(now, now)
    assert comparison.compared
    assert not comparison.drifted
    assert "the same images as" in comparison.note


def test_another_sample_of_the_same_hospital_does_not_drift_by_luck() -> None:
    comparison = compare(baseline(manifest(40, 60, seed=1)), baseline(manifest(40, 60, seed=2)))
    assert comparison.table["distance"].max() > DriftLimits().distance
    assert not comparison.drifted


def test_brighter_images_of_one_class_drift_in_that_class_alone() -> None:
    before = manifest(200, 300)
    after = before.copy()
    after.loc[after["label"] == "NORMAL", "mean"] += 15
    table = compare(baseline(after), baseline(before)).table
    drifted = table[table["drifted"]]
    assert list(zip(drifted["statistic"], drifted["group"], strict=True)) == [("mean", "NORMAL")]
    assert drifted["now"].item() == pytest.approx(drifted["before"].item() + 15)


def test_other_class_shares_drift() -> None:
    table = compare(baseline(manifest(100, 400)), baseline(manifest(250, 250))).table
    row = table.set_index("statistic").loc["label shares"]
    assert row["drifted"]
    assert row["distance"] == pytest.approx(0.3)


def test_phantoms_are_not_compared_with_patients_and_the_note_says_so() -> None:
    comparison = compare(baseline(manifest(), PATIENTS), baseline(manifest(), PHANTOMS))
    assert not comparison.compared
    assert not comparison.drifted
    assert "kind phantom" in comparison.note
    assert "kind patients" in comparison.note


def test_nothing_accepted_yet_is_said() -> None:
    assert "no data set has been accepted" in compare(baseline(manifest()), None).note


def test_a_class_that_vanished_is_unknown_and_its_share_drifts() -> None:
    table = compare(baseline(manifest(0, 100)), baseline(manifest(50, 50))).table
    gone = table[(table["statistic"] == "mean") & (table["group"] == "NORMAL")].iloc[0]
    assert math.isnan(gone["now"])
    assert not gone["drifted"]
    assert table.set_index("statistic").loc["label shares", "drifted"]


def test_quarantined_files_do_not_count() -> None:
    frame = manifest()
    frame.loc[0, ["status", "mean"]] = ["quarantined", 250.0]
    assert len(baseline(frame).sample) == len(frame) - 1


def test_each_kind_keeps_its_own_baseline(tmp_path: Path) -> None:
    baseline(manifest(seed=1), PATIENTS, "1" * 64).write(tmp_path)
    baseline(manifest(seed=2), PHANTOMS, "2" * 64).write(tmp_path)
    baseline(manifest(seed=3), PATIENTS, "3" * 64).write(tmp_path)
    patients, phantoms = Baseline.read(tmp_path, "patients"), Baseline.read(tmp_path, "phantom")
    assert patients is not None
    assert phantoms is not None
    assert (patients.digest[0], phantoms.digest[0]) == ("3", "2")
    assert not compare(patients, baseline(manifest(seed=3), PATIENTS)).drifted


def test_the_other_kind_is_recalled_where_there_is_none_of_this_kind(tmp_path: Path) -> None:
    assert Baseline.read(tmp_path, "patients") is None
    baseline(manifest(), PHANTOMS).write(tmp_path)
    found = Baseline.read(tmp_path, "patients")
    assert found is not None
    assert found.card.kind == "phantom"
