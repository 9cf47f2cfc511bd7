"""Copies, groups of one image, and what differs in them, from the digests, hashes and patients of a manifest."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr.data.manifest.copies import count_copies

DIGESTS = {name: name * 64 for name in "abcd"}


def manifest(rows: list[tuple[str | None, str | None, str | None, str]]) -> pd.DataFrame:
    """Digest (a letter, 64 times), label, patient and official split of each file; the hash has 16 of the letter."""
    digests, labels, patients, splits = zip(*rows, strict=True)
    texts = {
        "sha256": [DIGESTS.get(digest or "") for digest in digests],
        "phash": [(digest or "") * 16 for digest in digests],
        "label": labels,
        "patient": patients,
        "official_split": splits,
    }
    return pd.DataFrame({name: pd.Series(values, dtype="string") for name, values in texts.items()})


def added(frame: pd.DataFrame, pairs: list[tuple[int, int]]) -> tuple[dict[str, list[object]], list[str], list[int]]:
    """The added columns, the hashes that were compared, and the row of the image that each of them came from."""
    hashes: list[str] = []
    rows: list[int] = []

    def find_pairs(compared, load):  # type: ignore[no-untyped-def]
        hashes.extend(f"{code:016x}"[0] for code in compared.tolist())
        rows.extend(int(load(position)[0]) for position in range(len(compared)))
        return pairs

    copies = count_copies(
        lambda name: iter([frame[name][:1], frame[name][1:]]), find_pairs, lambda row: np.array([row])
    )
    return {name: copies[name].tolist() for name in copies}, hashes, rows


def test_equal_files_are_copies_and_near_images_are_a_group() -> None:
    frame = manifest(
        [
            ("c", "NORMAL", "x", "train"),
            ("b", "NORMAL", "x", "test"),
            ("c", "PNEUMONIA", "y", ""),
            ("a", "NORMAL", "y", "train"),
        ]
    )
    columns, hashes, rows = added(frame, [(1, 2)])
    assert hashes == ["a", "b", "c"], "each content once, by its digest"
    assert rows == [3, 1, 0]
    group = "b" * 16
    assert columns == {
        "copies": [2, 1, 2, 1],
        "labels_of_hash": [2, 1, 2, 1],
        "near_group": [f"near-{group}"] * 3 + [""],
        "duplicate_group": [f"same-{group}"] * 3 + [""],
        "labels_of_group": [2, 2, 2, 1],
        "splits_of_patient": [2, 2, 1, 1],
    }


def test_copies_without_a_near_image_are_no_near_group() -> None:
    columns, _, _ = added(manifest([("a", "NORMAL", "x", ""), ("a", "NORMAL", "x", "")]), [])
    assert columns["near_group"] == ["", ""]
    assert columns["duplicate_group"] == ["same-" + "a" * 16] * 2
    assert columns["splits_of_patient"] == [0, 0]


def test_a_file_that_cannot_be_read_is_in_no_group() -> None:
    columns, hashes, _ = added(manifest([(None, None, None, "train"), ("a", None, "x", "train")]), [])
    assert hashes == ["a"]
    assert [values[0] for values in columns.values()] == [pd.NA, pd.NA, "", "", pd.NA, pd.NA]
    assert [values[1] for values in columns.values()] == [1, 0, "", "", 0, 1]


def test_files_of_which_none_can_be_read() -> None:
    columns, hashes, _ = added(manifest([(None, "NORMAL", "x", ""), (None, "NORMAL", "x", "")]), [])
    assert hashes == []
    assert columns["copies"] == [pd.NA, pd.NA]
    assert columns["duplicate_group"] == ["", ""]


def test_digests_that_differ_in_zeros_at_their_end_are_different_and_name_their_groups() -> None:
    frame = manifest([("a", "NORMAL", "x", "")] * 4)
    frame["sha256"] = pd.Series(["ab" + "00" * 31, "ab" + "00" * 31, "ab" * 2 + "00" * 30, "00" * 32], dtype="string")
    columns, _, rows = added(frame, [])
    assert rows == [3, 0, 2]
    assert columns["copies"] == [2, 2, 1, 1]
    assert columns["duplicate_group"] == ["same-ab" + "0" * 14] * 2 + ["", ""]
