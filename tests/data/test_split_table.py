"""Every kind of unsafe split is stopped, and the summary of a split is right."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cxr.data.split_table import check_split, read_ratios, summarize_split, tabulate_strata
from cxr.data.splitting import largest_deviation
from cxr.errors import DataError


@pytest.fixture
def manifest() -> pd.DataFrame:
    """Twelve images of six patients and one quarantined image."""
    rows = [
        ("a0", "NORMAL", "normal", "n-1"),
        ("a1", "NORMAL", "normal", "n-1"),
        ("a2", "PNEUMONIA", "virus", "v-1"),
        ("a3", "PNEUMONIA", "virus", "v-1"),
        ("b0", "NORMAL", "normal", "n-2"),
        ("b1", "PNEUMONIA", "bacteria", "b-2"),
        ("c0", "NORMAL", "normal", "n-3"),
        ("c1", "PNEUMONIA", "virus", "v-3"),
        ("x0", "NORMAL", "normal", "n-9"),
    ]
    table = pd.DataFrame(rows, columns=["path", "label", "subtype", "patient"])
    table["sha256"] = "sha-" + table["path"]
    table["duplicate_group"] = ""
    table["status"] = "accepted"
    table.loc[table["path"] == "x0", "status"] = "quarantined"
    return table


@pytest.fixture
def splits(manifest: pd.DataFrame) -> pd.DataFrame:
    """A safe assignment of them."""
    table = manifest[manifest["status"] == "accepted"].drop(columns=["status", "duplicate_group"])
    split_of = {"a": "train", "b": "validation", "c": "test"}
    return table.assign(group=table["patient"], split=table["path"].str[0].map(split_of), reason="").reset_index(
        drop=True
    )


def test_a_safe_split_passes(splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    check_split(splits, manifest)


def refusal(splits: pd.DataFrame, manifest: pd.DataFrame) -> str:
    with pytest.raises(DataError) as caught:
        check_split(splits, manifest)
    return str(caught.value)


def test_a_patient_in_two_splits_stops_it_even_if_the_groups_were_forged(
    splits: pd.DataFrame, manifest: pd.DataFrame
) -> None:
    splits.loc[splits["path"] == "a1", ["split", "group"]] = ["test", "forged"]
    error = refusal(splits, manifest)
    assert "every patient in one split" in error
    assert "n-1" in error


def test_a_group_in_two_splits_stops_it(splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    splits.loc[splits["path"].isin(["a0", "c0"]), "group"] = "united"
    assert "every group in one split; in several (1): united" in refusal(splits, manifest)


def test_equal_files_in_two_splits_stop_it(splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    manifest.loc[manifest["path"].isin(["a0", "c0"]), "sha256"] = "twin"
    error = refusal(splits, manifest)
    assert "every sha256 in one split; in several (1): twin" in error


def test_a_duplicate_group_in_two_splits_stops_it(splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    manifest.loc[manifest["path"].isin(["b1", "c1"]), "duplicate_group"] = "d7"
    assert "every duplicate_group in one split; in several (1): d7" in refusal(splits, manifest)


def test_lost_repeated_and_unaccepted_images_stop_it(splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    assert "not assigned (1): a3" in refusal(splits[splits["path"] != "a3"], manifest)
    assert "more than once (1): b0" in refusal(
        pd.concat([splits, splits[splits["path"] == "b0"]], ignore_index=True), manifest
    )
    quarantined = splits[splits["path"] == "a0"].assign(path="x0", group="n-9")
    error = refusal(pd.concat([splits, quarantined], ignore_index=True), manifest)
    assert "without being accepted (1): x0" in error


def test_an_unknown_split_and_a_missing_class_stop_it(splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    splits.loc[splits["path"] == "b1", "split"] = "valid"
    error = refusal(splits, manifest)
    assert "elsewhere (1): b1" in error
    assert "both classes in validation; absent (1): PNEUMONIA" in error


def test_excluded_images_may_share_a_patient_with_the_test_set(splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    manifest.loc[manifest["path"].isin(["a1", "c0"]), "duplicate_group"] = "d1"
    splits.loc[splits["path"].isin(["a0", "a1"]), ["split", "reason"]] = ["excluded", "shared"]
    extra = {"path": "a9", "label": "NORMAL", "subtype": "normal", "patient": "n-7", "sha256": "sha-a9"}
    manifest.loc[len(manifest)] = {**extra, "duplicate_group": "", "status": "accepted"}
    splits.loc[len(splits)] = {**extra, "group": "n-7", "split": "train", "reason": ""}
    check_split(splits, manifest)


def test_the_counts_and_shares_are_right(splits: pd.DataFrame) -> None:
    splits.loc[splits["path"] == "c1", ["split", "reason"]] = ["excluded", "not sampled"]
    result = summarize_split(splits)
    assert result["images"] == {"train": 4, "validation": 2, "test": 1, "excluded": 1}
    assert result["patients"] == {"train": 2, "validation": 2, "test": 1, "excluded": 1}
    assert result["shares"]["train"] == pytest.approx(4 / 7, abs=1e-6)
    assert result["excluded"] == {"not sampled": 1}
    table = tabulate_strata(splits).set_index(["subtype", "split"])
    assert table.loc[("virus", "train"), "share"] == 1
    assert table.loc[("normal", "train"), "share"] == 0.5
    assert table.loc[("virus", "test"), "images"] == 0


def test_an_image_of_unknown_subtype_counts_in_its_class_alone(splits: pd.DataFrame) -> None:
    splits.loc[splits["path"].isin(["a0", "a2"]), "subtype"] = None
    table = tabulate_strata(splits).set_index(["label", "subtype", "split"])
    assert table.loc[("NORMAL", "all", "train"), ["images", "patients"]].tolist() == [2, 1]
    assert table.loc[("NORMAL", "normal", "train"), ["images", "patients"]].tolist() == [1, 1]
    assert set(table.index.get_level_values("subtype")) == {"all", "normal", "virus", "bacteria"}


def test_the_digest_names_the_assignment_and_not_the_order(splits: pd.DataFrame) -> None:
    digest = summarize_split(splits)["digest"]
    assert summarize_split(splits.sample(frac=1, random_state=0))["digest"] == digest
    splits.loc[0, "split"] = "excluded"
    assert summarize_split(splits)["digest"] != digest


def test_the_largest_deviation_names_its_stratum(splits: pd.DataFrame) -> None:
    deviation, stratum = largest_deviation(splits, (0.5, 0.25, 0.25))
    assert deviation == pytest.approx(0.75)
    assert stratum.startswith("PNEUMONIA (bacteria): share=1.000 of its images in validation")
    assert largest_deviation(splits, (0.5, 0.25, 0.25), min_patients=100) == (0.0, "")


def test_ratios_of_a_split_are_read_back_or_unknown(tmp_path: Path) -> None:
    for summary, expected in (({"ratios": [0.8, 0.1, 0.1]}, [0.8, 0.1, 0.1]), ({}, None)):
        (tmp_path / "achieved.json").write_text(json.dumps(summary))
        assert read_ratios(tmp_path) == expected
