"""Splits are by patient, stable under new images, stratified, and follow the protocol."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.data.grouping import patient_groups
from cxr.data.split_table import SPLIT_COLUMNS, USED_SPLITS, check_split, tabulate_strata
from cxr.data.splitting import NOT_SAMPLED, SHARED_WITH_TEST, unit_hash
from cxr.errors import DataError, ParameterError
from support.splits import assign_splits

LABEL_OF = {"normal": "NORMAL", "bacteria": "PNEUMONIA", "virus": "PNEUMONIA"}


def make_manifest(images: list[tuple[str, int]], first: int = 0) -> pd.DataFrame:
    """One row per (subtype, patient number), like the manifest's."""
    rows = []
    for number, (subtype, patient) in enumerate(images, start=first):
        path = f"{LABEL_OF[subtype]}/person{patient}_{subtype}_{number}.jpeg"
        rows.append(
            {
                "path": path,
                "sha256": hashlib.sha256(path.encode()).hexdigest(),
                "label": LABEL_OF[subtype],
                "subtype": subtype,
                "patient": f"{subtype}-{patient}",
                "official_split": "",
                "duplicate_group": "",
                "status": "accepted",
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture
def manifest() -> pd.DataFrame:
    """Some 2,500 images of 1,800 patients, in the real set's proportions."""
    generator = np.random.default_rng(0)
    images: list[tuple[str, int]] = []
    for subtype, patients, mean in (("normal", 700, 1.1), ("bacteria", 600, 1.9), ("virus", 500, 1.2)):
        for patient in range(patients):
            images += [(subtype, patient)] * int(1 + generator.poisson(mean - 1))
    return make_manifest(images)


def split_of(splits: pd.DataFrame) -> dict[str, str]:
    return dict(zip(splits["path"], splits["split"], strict=True))


def test_a_patient_is_in_one_split_and_every_image_is_assigned(manifest: pd.DataFrame) -> None:
    splits = assign_splits(manifest)
    assert tuple(splits.columns) == SPLIT_COLUMNS
    assert sorted(splits["path"]) == sorted(manifest["path"])
    assert splits.groupby("patient")["split"].nunique().max() == 1
    assert set(splits["split"]) == set(USED_SPLITS)
    check_split(splits, manifest)


@pytest.mark.parametrize("ratios", [(0.7, 0.15, 0.15), (0.8, 0.1, 0.1), (0.5, 0.2, 0.3)])
def test_every_class_and_subtype_is_shared_by_the_ratios(
    manifest: pd.DataFrame, ratios: tuple[float, float, float]
) -> None:
    table = tabulate_strata(assign_splits(manifest, ratios=ratios, max_deviation=0.06))
    expected_shares = table["split"].map(dict(zip(USED_SPLITS, ratios, strict=True)))
    assert (table["share"] - expected_shares).abs().max() < 0.06
    assert set(table["subtype"]) == {"all", "normal", "bacteria", "virus"}


def test_the_split_depends_on_keys_and_seed_alone(manifest: pd.DataFrame) -> None:
    splits = assign_splits(manifest)
    shuffled = assign_splits(manifest.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(splits, shuffled)
    assert split_of(assign_splits(manifest, seed=1)) != split_of(splits)


def test_the_hash_never_changes() -> None:
    # Written down, not computed: a change here would move the patients of every existing split.
    assert unit_hash("0:bacteria-1") == pytest.approx(0.8683246006217689, abs=1e-15)


PATIENT = st.tuples(st.sampled_from(sorted(LABEL_OF)), st.integers(0, 30))


@settings(max_examples=30, deadline=None)
@given(
    old=st.lists(PATIENT, min_size=1, max_size=60),
    new=st.lists(PATIENT, max_size=60),
    seed=st.integers(0, 99),
)
def test_adding_images_never_moves_an_old_one(
    old: list[tuple[str, int]], new: list[tuple[str, int]], seed: int
) -> None:
    old_manifest = make_manifest(old)
    new_manifest = pd.concat([old_manifest, make_manifest(new, first=len(old))], ignore_index=True)
    old_splits, new_splits = (split_of(assign_splits(table, seed=seed)) for table in (old_manifest, new_manifest))
    assert {path: new_splits[path] for path in old_splits} == old_splits


def test_adding_a_second_copy_of_an_image_of_the_same_patient_moves_nobody(manifest: pd.DataFrame) -> None:
    copy = manifest.iloc[[5]].assign(path="PNEUMONIA/person9_bacteria_99999.jpeg")
    both = pd.concat([manifest, copy], ignore_index=True)
    new_splits = split_of(assign_splits(both))
    assert {path: new_splits[path] for path in manifest["path"]} == split_of(assign_splits(manifest))


def test_patients_who_share_an_image_become_one_group() -> None:
    table = make_manifest([("virus", 7), ("virus", 3), ("virus", 3), ("virus", 5), ("virus", 9)])
    table.loc[[0, 1], "duplicate_group"] = "d1"
    table.loc[[2, 3], "duplicate_group"] = "d2"
    assert list(patient_groups(table)) == ["virus-3"] * 4 + ["virus-9"]


def test_equal_files_unite_patients_even_without_a_duplicate_group() -> None:
    table = make_manifest([("normal", 95), ("normal", 96)])
    table["sha256"] = "same"
    assert list(patient_groups(table)) == ["normal-95", "normal-95"]


def test_missing_duplicate_groups_unite_nobody() -> None:
    table = make_manifest([("normal", 1), ("normal", 2)])
    table["duplicate_group"] = None
    assert list(patient_groups(table)) == ["normal-1", "normal-2"]


def test_united_patients_are_in_one_split_for_every_seed() -> None:
    table = make_manifest([("virus", number) for number in range(40)])
    table["duplicate_group"] = [f"d{number // 2}" for number in range(40)]
    for seed in range(10):
        splits = assign_splits(table, seed=seed)
        counts = splits.merge(table[["path", "duplicate_group"]]).groupby("duplicate_group")["split"].nunique()
        assert counts.max() == 1


def with_official_splits(manifest: pd.DataFrame) -> pd.DataFrame:
    is_test = manifest["patient"].str.extract(r"-(\d+)$", expand=False).astype(int) % 10 == 0
    folders = np.where(is_test, "test", "train")
    folders[manifest.index[~is_test][:8]] = "val"
    return manifest.assign(official_split=folders)


def test_the_official_test_set_is_kept_and_the_other_images_are_divided(manifest: pd.DataFrame) -> None:
    table = with_official_splits(manifest)
    splits = assign_splits(table, protocol="official")
    expected = set(table.loc[table["official_split"] == "test", "path"])
    assert set(splits.loc[splits["split"] == "test", "path"]) == expected
    other_splits = splits.loc[splits["split"] != "test", "split"]
    assert set(other_splits) == {"train", "validation"}
    assert (other_splits == "validation").mean() == pytest.approx(0.15 / 0.85, abs=0.03)
    check_split(splits, table)


def test_images_that_share_a_patient_or_copy_with_the_official_test_set_are_excluded(manifest: pd.DataFrame) -> None:
    table = with_official_splits(manifest)
    related = table.index[table["official_split"] == "train"][[0, 50]]
    table.loc[related[0], "patient"] = table.loc[table["official_split"] == "test", "patient"].iloc[0]
    twin = table.index[table["official_split"] == "test"][-1]
    table.loc[[related[1], twin], "duplicate_group"] = "d1"
    splits = assign_splits(table, protocol="official").set_index("path")
    for path in table.loc[related, "path"]:
        assert splits.loc[path, "split"] == "excluded"
        assert splits.loc[path, "reason"] == SHARED_WITH_TEST
    assert splits.loc[table.loc[twin, "path"], "split"] == "test"
    check_split(splits.reset_index(), table)


def test_the_official_protocol_needs_the_published_folders(manifest: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="protocol=grouped"):
        assign_splits(manifest, protocol="official")


def test_a_sample_has_the_requested_counts_in_proportion_to_the_subtypes(manifest: pd.DataFrame) -> None:
    splits = assign_splits(manifest, sample={"NORMAL": 300, "PNEUMONIA": 900})
    used = splits[splits["split"].isin(USED_SPLITS)]
    assert used["label"].value_counts().to_dict() == {"PNEUMONIA": 900, "NORMAL": 300}
    all_shares = manifest[manifest["label"] == "PNEUMONIA"]["subtype"].value_counts(normalize=True)
    sampled_shares = used[used["label"] == "PNEUMONIA"]["subtype"].value_counts(normalize=True)
    assert abs(all_shares["virus"] - sampled_shares["virus"]) < 1 / 900
    assert set(splits.loc[~splits["split"].isin(USED_SPLITS), "reason"]) == {NOT_SAMPLED}
    check_split(splits, manifest)


def test_a_sample_is_divided_by_the_ratios_and_no_patient_changes_the_split(manifest: pd.DataFrame) -> None:
    full_split = split_of(assign_splits(manifest))
    splits = assign_splits(manifest, sample={"NORMAL": 300, "PNEUMONIA": 900})
    used = splits[splits["split"].isin(USED_SPLITS)]
    assert (used["split"] == "train").mean() == pytest.approx(0.7, abs=0.05)
    assert all(full_split[path] == split for path, split in split_of(used).items())


def test_a_sample_leaves_other_labels_and_the_official_test_set_complete(manifest: pd.DataFrame) -> None:
    splits = assign_splits(manifest, sample={"NORMAL": 100, "PNEUMONIA": None})
    counts = splits[splits["split"].isin(USED_SPLITS)]["label"].value_counts()
    assert counts.to_dict() == {"PNEUMONIA": (manifest["label"] == "PNEUMONIA").sum(), "NORMAL": 100}
    table = with_official_splits(manifest)
    splits = assign_splits(table, protocol="official", sample={"NORMAL": 100})
    assert (splits["split"] == "test").sum() == (table["official_split"] == "test").sum()


def test_more_images_than_there_are_cannot_be_sampled(manifest: pd.DataFrame) -> None:
    with pytest.raises(ParameterError, match=r"sample\.NORMAL=99999") as caught:
        assign_splits(manifest, sample={"NORMAL": 99999, "PNEUMONIA": 0, "COVID": 3})
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("ratios", [(0.7, 0.2, 0.2), (1.0, 0.0, 0.0), (0.5, 0.5), (1.2, -0.1, -0.1)])
def test_ratios_that_are_not_shares_are_refused(manifest: pd.DataFrame, ratios: tuple[float, ...]) -> None:
    with pytest.raises(ParameterError, match="sum 1"):
        assign_splits(manifest, ratios=ratios)


def test_quarantined_images_are_not_assigned(manifest: pd.DataFrame) -> None:
    manifest.loc[manifest.index[:10], "status"] = "quarantined"
    assert not set(manifest["path"].iloc[:10]) & set(assign_splits(manifest)["path"])


def test_images_without_a_patient_are_listed(manifest: pd.DataFrame) -> None:
    manifest.loc[3, "patient"] = None
    with pytest.raises(DataError, match=manifest.loc[3, "path"]):
        assign_splits(manifest)


def test_an_unbalanced_seed_is_named(manifest: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"max_deviation=0\.0001.*choose another seed"):
        assign_splits(manifest, max_deviation=0.0001)


@pytest.mark.real
def test_the_default_seed_splits_the_published_set_evenly(real_archive: Path) -> None:
    import tarfile

    from cxr.data.manifest.patients import parse_kermany_name

    with tarfile.open(real_archive) as archive:
        names = [name for name in archive.getnames() if name.endswith(".jpeg")]
    rows = []
    for name in names:
        image_name = parse_kermany_name(Path(name).name)
        label = Path(name).parent.name
        rows.append(
            {
                "path": name,
                "sha256": name,
                "label": label,
                "subtype": image_name.subtype,
                "patient": image_name.patient,
                "official_split": Path(name).parent.parent.name,
                "duplicate_group": "d" if "NORMAL2-IM-0095-" in name or "NORMAL2-IM-0096-" in name else "",
            }
        )
    table = pd.DataFrame(rows)
    splits = assign_splits(table, max_deviation=0.02)
    check_split(splits, table)
    assert len(splits) == 5856
    assert splits["group"].nunique() == 4096
    official = assign_splits(table, protocol="official")
    check_split(official, table)
    assert official["split"].value_counts()["test"] == 624
    assert not (official["split"] == "excluded").any()
