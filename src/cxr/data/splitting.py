"""Splits: which images train, which choose, which judge; by patient, decided by a hash.

Two images of one patient share bones, positioning and often the disease: on two sides of a split they let a
network recognise the child instead of the finding. Images are therefore grouped by patient, patients that
share a picture are united, and the whole group goes to one side. The side is a function of the group's key
and the seed alone, so that images that arrive later never move an old patient.
``docs/decisions/0002-split-by-hash.md`` says what that costs.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from cxr.data.dataset import CLASSES, OFFICIAL_SPLITS
from cxr.data.split_table import COLUMNS, EXCLUDED, TEST, USED, worst_deviation
from cxr.errors import DataError, ParameterError

Protocol = Literal["grouped", "official"]

DEFAULT_RATIOS = (0.70, 0.15, 0.15)
DEFAULT_SEED = 9
"""Chosen on counts alone, before any training: see the decision record."""
DEFAULT_MAX_DEVIATION = 0.05
LARGE_STRATUM = 500
"""Patient groups from which a stratum's shares must be near the ratios; below, chance is too large."""

UNKNOWN = "unknown"
"""Subtype of images whose source does not say it; a stratum of its own."""

NOT_SAMPLED = "not sampled"
SHARED_WITH_TEST = "patient or picture also in the official test set"

_log = logging.getLogger(__name__)


def split(
    manifest: pd.DataFrame,
    *,
    protocol: Protocol = "grouped",
    ratios: Sequence[float] = DEFAULT_RATIOS,
    seed: int = DEFAULT_SEED,
    sample: Mapping[str, int | None] | None = None,
    max_deviation: float = DEFAULT_MAX_DEVIATION,
) -> pd.DataFrame:
    """Assign every accepted image to train, validation, test or excluded.

    ``"grouped"`` splits all patients by ``ratios``. ``"official"`` keeps the published test set as it is and
    splits the other patients into train and validation by the ratio of the first two of ``ratios`` (the
    published validation folder of 16 images is too small to select on); what shares a patient or a picture
    with the test set is excluded.

    Args:
        manifest: one row per image with the columns path, sha256, label, subtype, patient, duplicate_group
            and official_split; rows whose ``status``, if there is one, is not ``"accepted"`` are left out.
        protocol: which of the two.
        ratios: shares of train, validation and test; positive, with sum 1.
        seed: chooses one of many equally good splits.
        sample: label to the number of images to keep (``None``: all), drawn in proportion to the subtypes
            before the split; S0 used ``{"NORMAL": 1000, "PNEUMONIA": 2000}``. The official test set is never
            thinned out.
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
    train, validation, _ = _checked(ratios)
    rows = _accepted(manifest)
    rows["group"] = patient_groups(rows)
    rows["split"], rows["reason"] = "", ""
    if protocol == "official":
        _keep_official_test(rows)
        train, validation = train / (train + validation), 1.0
    open_rows = rows["split"] == ""
    if sample:
        unsampled = rows.index[open_rows].difference(_sampled(rows[open_rows], sample, seed))
        rows.loc[unsampled, ["split", "reason"]] = [EXCLUDED, NOT_SAMPLED]
        open_rows = rows["split"] == ""
    place = rows.loc[open_rows, "group"].map(lambda key: unit_hash(f"{seed}:{key}"))
    edges = [train, 1.0] if protocol == "official" else [train, train + validation, 1.0]
    side = np.minimum(np.searchsorted(edges, place.to_numpy(), side="right"), len(edges) - 1)
    rows.loc[open_rows, "split"] = np.array(USED, dtype=object)[side]
    splits = rows[list(COLUMNS)].reset_index(drop=True)
    if protocol == "grouped":
        _check_balance(splits, ratios, seed, max_deviation)
    return splits


def patient_groups(manifest: pd.DataFrame) -> pd.Series:
    """Unite patients that share a picture.

    Args:
        manifest: rows with the columns patient (typed key), sha256 and duplicate_group (``""`` for none).

    Returns:
        For each row the smallest patient key of its group, with the manifest's index.
    """
    root_of: dict[str, str] = {patient: patient for patient in manifest["patient"]}

    def root(patient: str) -> str:
        while root_of[patient] != patient:
            root_of[patient] = root_of[root_of[patient]]
            patient = root_of[patient]
        return patient

    for column in ("sha256", "duplicate_group"):
        named = manifest[manifest[column].fillna("") != ""]
        for patients in named.groupby(column)["patient"].unique():
            for other in patients[1:]:
                first, second = sorted((root(patients[0]), root(other)))
                root_of[second] = first
    return manifest["patient"].map(root)


def unit_hash(key: str) -> float:
    """Place a key on the unit interval, the same on every machine and for ever.

    Args:
        key: any text.

    Returns:
        The first 53 bits of its SHA-256 as a number in [0, 1).
    """
    return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 11) / 2**53


def _checked(ratios: Sequence[float]) -> tuple[float, float, float]:
    if len(ratios) != 3 or min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-6:
        raise ParameterError(
            [
                "expected ratios to be three positive shares with sum 1 (train, validation, test), "
                f"received ratios={list(ratios)}; e.g. 0.7, 0.15, 0.15"
            ]
        )
    train, validation, test = ratios
    return train, validation, test


def _accepted(manifest: pd.DataFrame) -> pd.DataFrame:
    rows = manifest[manifest["status"] == "accepted"] if "status" in manifest else manifest
    rows = rows.sort_values("path").reset_index(drop=True)
    rows["subtype"] = rows["subtype"].fillna(UNKNOWN).replace("", UNKNOWN)
    nameless = rows[~rows["label"].isin(CLASSES) | (rows["patient"].fillna("") == "")]
    if rows.empty or len(nameless):
        raise DataError(
            f"expected accepted images with label and patient, received images={len(rows)}, "
            f"without them={len(nameless)}: {', '.join(nameless['path'].head(10))}; run `cxr validate` again"
        )
    return rows


def _keep_official_test(rows: pd.DataFrame) -> None:
    """Put the published test images on the test side and exclude what shares a group with them."""
    outside = rows[~rows["official_split"].isin(OFFICIAL_SPLITS)]
    if len(outside):
        raise DataError(
            f"expected every image in one of the published folders {'/, '.join(OFFICIAL_SPLITS)}/, received "
            f"{len(outside)} images elsewhere: {', '.join(outside['path'].head(10))}; set protocol=grouped"
        )
    test = rows["official_split"] == "test"
    touching = ~test & rows["group"].isin(set(rows.loc[test, "group"]))
    rows.loc[test, "split"] = TEST
    rows.loc[touching, ["split", "reason"]] = [EXCLUDED, SHARED_WITH_TEST]


def _sampled(rows: pd.DataFrame, sample: Mapping[str, int | None], seed: int) -> list[int]:
    """Choose images per label in proportion to its subtypes, patients in the order of a hash."""
    available = rows["label"].value_counts()
    problems = [
        f"expected sample.{label} to be one of {', '.join(CLASSES)}, from 1 to the {available.get(label, 0)} "
        f"images that can be sampled, received sample.{label}={count}; correct it"
        for label, count in sample.items()
        if label not in CLASSES or (count is not None and not 0 < count <= available.get(label, 0))
    ]
    if problems:
        raise ParameterError(problems)
    # Another hash than the split's: with the same one the first patients would all be training patients.
    ordered = rows.assign(place=rows["group"].map(lambda key: unit_hash(f"sample:{seed}:{key}")))
    ordered = ordered.sort_values(["place", "path"])
    chosen: list[int] = []
    for label, of_label in ordered.groupby("label"):
        count = sample.get(str(label))
        sizes = {str(subtype): len(rows) for subtype, rows in of_label.groupby("subtype")}
        for subtype, number in _apportioned(sizes, count or len(of_label)).items():
            chosen += of_label[of_label["subtype"] == subtype].index[:number].tolist()
    return chosen


def _apportioned(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Divide a count in proportion to sizes, in whole numbers, by largest remainder."""
    total = sum(sizes.values())
    whole = {key: size * count // total for key, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda key: sizes[key] * count % total, reverse=True)
    for key in by_remainder[: count - sum(whole.values())]:
        whole[key] += 1
    return whole


def _check_balance(splits: pd.DataFrame, ratios: Sequence[float], seed: int, limit: float) -> None:
    deviation, where = worst_deviation(splits, ratios, LARGE_STRATUM)
    if deviation > limit:
        raise DataError(
            f"expected every large stratum within max_deviation={limit} of the ratios, received {where} with "
            f"seed={seed}; choose another seed"
        )
    deviation, where = worst_deviation(splits, ratios)
    if deviation > limit:
        _log.warning("a small stratum is far from the ratios with seed=%d: %s", seed, where)
