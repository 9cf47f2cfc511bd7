"""Splits images into train, validation and test, by patient and by a hash.

Two images of one patient share bones, positioning and often the disease. If they are in two splits, a network can
recognise the child instead of the finding. Images are therefore grouped by patient, patients that share an image are
united, and a whole group goes into one split. The split is a function of the group's key and the seed alone, so that
new images never move a patient who is already assigned. ``docs/decisions/0002-split-by-hash.md`` says what that costs.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.dataset import CLASSES, OFFICIAL_SPLITS
from cxr.data.grouping import patient_groups
from cxr.data.split_table import EXCLUDED, SPLIT_COLUMNS, TEST, USED_SPLITS, tabulate_strata
from cxr.data.text_hashes import are_known
from cxr.errors import DataError, ParameterError

SplitProtocol = Literal["grouped", "official"]

LARGE_STRATUM = 500
"""Patient groups from which a stratum's shares must be near the ratios; in smaller strata chance is too large."""

UNKNOWN = "unknown"
"""Subtype of images whose source does not say it; a stratum of its own."""

NOT_SAMPLED = "not sampled"
SHARED_WITH_TEST = "patient or picture also in the official test set"
"""Reasons why an image is excluded."""

MANIFEST_COLUMNS = ("path", "sha256", "label", "subtype", "patient", "duplicate_group", "official_split")
"""Columns of the accepted images of a manifest that a split is made from."""

_BLOCK = 2**16
"""Rows whose groups are hashed at once."""

log = logging.getLogger(__name__)


def assign_splits(
    manifest: pd.DataFrame,
    *,
    protocol: SplitProtocol,
    ratios: Sequence[float],
    seed: int,
    sample: Mapping[str, int | None],
    max_deviation: float,
) -> pd.DataFrame:
    """Assign every accepted image to train, validation, test or excluded.

    ``"grouped"`` splits all patients by ``ratios``. ``"official"`` keeps the published test set as it is and
    splits the other patients into train and validation by the ratio of the first two of ``ratios`` (the
    published validation folder of 16 images is too small to select on); images that share a patient or a copy
    with the test set are excluded.

    Args:
        manifest: one row per image with the columns path, sha256, label, subtype, patient, duplicate_group
            and official_split; rows whose ``status``, if there is one, is not ``"accepted"`` are left out.
        protocol: which of the two.
        ratios: shares of train, validation and test; positive, with sum 1.
        seed: chooses one of many equally good splits.
        sample: label to the number of images to keep (``None``: all), drawn in proportion to the subtypes
            before the split; S0 used ``{"NORMAL": 1000, "PNEUMONIA": 2000}``. The official test set always stays
            complete.
        max_deviation: largest accepted difference between a stratum's share of images in a split and the
            ratio; strata with fewer than :data:`LARGE_STRATUM` patients only cause a warning.

    Returns:
        One row per accepted image, sorted by path, with the columns path, sha256, label, subtype, patient,
        group (key of the united patients), split and reason (why it is excluded, else ``""``).

    Raises:
        ParameterError: if the ratios or the sample cannot be met.
        DataError: if an image has no label or patient, the published split is missing, or the shares are too
            far from the ratios.
    """
    train, validation, _ = _check_ratios(ratios)
    rows = _accepted_rows(manifest)
    rows["group"] = patient_groups(rows)
    rows["split"], rows["reason"] = "", ""
    if protocol == "official":
        _keep_official_test(rows)
        train, validation = train / (train + validation), 1.0
    unassigned = rows["split"] == ""
    if sample:
        unsampled = rows.index[unassigned].difference(_sample_rows(rows[unassigned], sample, seed))
        rows.loc[unsampled, ["split", "reason"]] = [EXCLUDED, NOT_SAMPLED]
        unassigned = rows["split"] == ""
    hashes = _hash_groups(rows["group"], f"{seed}:")[unassigned.to_numpy(dtype=bool)]
    edges = [train, 1.0] if protocol == "official" else [train, train + validation, 1.0]
    splits_by_hash = np.minimum(np.searchsorted(edges, hashes, side="right"), len(edges) - 1)
    rows.loc[unassigned, "split"] = np.array(USED_SPLITS, dtype=object)[splits_by_hash]
    splits = rows[list(SPLIT_COLUMNS)].reset_index(drop=True)
    if protocol == "grouped":
        _check_balance(splits, ratios, seed, max_deviation)
    return splits


def unit_hash(key: str) -> float:
    """Map a key to the unit interval, the same on every machine and in every version of the program.

    Args:
        key: any text.

    Returns:
        The first 53 bits of its SHA-256 as a number in [0, 1).
    """
    return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 11) / 2**53


def largest_deviation(splits: pd.DataFrame, ratios: Sequence[float], min_patients: int = 0) -> tuple[float, str]:
    """Find the stratum whose share of images is farthest from the ratio.

    Args:
        splits: result of :func:`assign_splits`.
        ratios: requested shares: train, validation, test.
        min_patients: strata with fewer patient groups are left out.

    Returns:
        The absolute difference of shares (0 if there is no stratum) and a description of the stratum.
    """
    strata = tabulate_strata(splits)
    strata = strata[strata.groupby(["label", "subtype"])["patients"].transform("sum") >= min_patients]
    if strata.empty:
        return 0.0, ""
    ratio_of = dict(zip(USED_SPLITS, ratios, strict=True))
    worst = max(strata.to_dict("records"), key=lambda row: abs(row["share"] - ratio_of[row["split"]]))
    ratio = ratio_of[worst["split"]]
    return (
        abs(worst["share"] - ratio),
        f"{worst['label']} ({worst['subtype']}): share={worst['share']:.3f} of its images "
        f"in {worst['split']}, ratio={ratio:.3f}",
    )


def _hash_groups(groups: pd.Series, prefix: str) -> NDArray[np.float64]:
    """Hash of the group of each row, by block: to number all groups takes a gigabyte for ten million rows."""
    hashes = np.empty(len(groups))
    for start in range(0, len(groups), _BLOCK):
        codes, keys = pd.factorize(groups.iloc[start : start + _BLOCK])
        hashes[start : start + _BLOCK] = np.array([unit_hash(f"{prefix}{key}") for key in keys])[codes]
    return hashes


def _check_ratios(ratios: Sequence[float]) -> tuple[float, float, float]:
    if len(ratios) != 3 or min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-6:
        raise ParameterError(
            [
                "expected ratios to be three positive shares with sum 1 (train, validation, test), "
                f"received ratios={list(ratios)}; e.g. 0.7, 0.15, 0.15"
            ]
        )
    train, validation, test = ratios
    return train, validation, test


def _accepted_rows(manifest: pd.DataFrame) -> pd.DataFrame:
    columns = [name for name in MANIFEST_COLUMNS if name in manifest]
    rows = manifest.loc[manifest["status"] == "accepted", columns] if "status" in manifest else manifest[columns]
    paths = rows["path"].array
    if (paths[1:] < paths[:-1]).any():  # sorted rows need no copy
        rows = rows.sort_values("path")
    rows = rows.reset_index(drop=True)
    rows["subtype"] = rows["subtype"].where(are_known(rows["subtype"]), UNKNOWN)
    incomplete = rows[~rows["label"].isin(CLASSES) | (rows["patient"].fillna("") == "")]
    if rows.empty or len(incomplete):
        raise DataError(
            f"expected accepted images with label and patient, received images={len(rows)}, "
            f"without them={len(incomplete)}: {', '.join(incomplete['path'].head(10))}; run `cxr validate` again"
        )
    return rows


def _keep_official_test(rows: pd.DataFrame) -> None:
    """Assign the published test images to test, and exclude the images that share a group with them."""
    outside = rows[~rows["official_split"].isin(OFFICIAL_SPLITS)]
    if len(outside):
        raise DataError(
            f"expected every image in one of the published folders {'/, '.join(OFFICIAL_SPLITS)}/, received "
            f"{len(outside)} images elsewhere: {', '.join(outside['path'].head(10))}; set protocol=grouped"
        )
    is_test = rows["official_split"] == "test"
    shares_group = ~is_test & rows["group"].isin(set(rows.loc[is_test, "group"]))
    rows.loc[is_test, "split"] = TEST
    rows.loc[shares_group, ["split", "reason"]] = [EXCLUDED, SHARED_WITH_TEST]


def _sample_rows(rows: pd.DataFrame, sample: Mapping[str, int | None], seed: int) -> list[int]:
    """Choose images of each label in proportion to its subtypes, patients in the order of a hash."""
    available = rows["label"].value_counts()
    problems = [
        f"expected sample.{label} to be one of {', '.join(CLASSES)}, from 1 to the {available.get(label, 0)} "
        f"images that can be sampled, received sample.{label}={count}; correct it"
        for label, count in sample.items()
        if label not in CLASSES or (count is not None and not 0 < count <= available.get(label, 0))
    ]
    if problems:
        raise ParameterError(problems)
    # Not the hash of the split: with it, the first patients would all be training patients.
    ordered = rows.assign(hash=_hash_groups(rows["group"], f"sample:{seed}:"))
    ordered = ordered.sort_values(["hash", "path"])
    sampled: list[int] = []
    for label, of_label in ordered.groupby("label"):
        count = sample.get(str(label))
        sizes = {str(subtype): len(images) for subtype, images in of_label.groupby("subtype")}
        for subtype, number in _apportion(sizes, count or len(of_label)).items():
            sampled += of_label[of_label["subtype"] == subtype].index[:number].tolist()
    return sampled


def _apportion(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Divide a count in proportion to sizes, in whole numbers, by the largest remainder method."""
    total = sum(sizes.values())
    numbers = {key: size * count // total for key, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda key: sizes[key] * count % total, reverse=True)
    for key in by_remainder[: count - sum(numbers.values())]:
        numbers[key] += 1
    return numbers


def _check_balance(splits: pd.DataFrame, ratios: Sequence[float], seed: int, limit: float) -> None:
    deviation, stratum = largest_deviation(splits, ratios, LARGE_STRATUM)
    if deviation > limit:
        raise DataError(
            f"expected every large stratum within max_deviation={limit} of the ratios, received {stratum} with "
            f"seed={seed}; choose another seed"
        )
    deviation, stratum = largest_deviation(splits, ratios)
    if deviation > limit:
        log.warning("a small stratum is far from the ratios with seed=%d: %s", seed, stratum)
