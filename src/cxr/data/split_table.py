"""The table of a split: its columns, its check before use, and its summary.

A table has one row per image with the columns :data:`SPLIT_COLUMNS`; :mod:`cxr.data.splitting` makes it.
:func:`check_split` uses nothing of that module and nothing of the grouping of patients, so that it finds their faults.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.dataset import CLASSES
from cxr.errors import DataError
from cxr.files import SPLITS_FILE, read_json, write_json
from cxr.tables import digest_of_lines, write_table

SPLIT_SUMMARY_FILE = "achieved.json"
STRATA_FILE = "achieved.csv"

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
EXCLUDED = "excluded"
USED_SPLITS: tuple[str, str, str] = (TRAIN, VALIDATION, TEST)
"""Splits that are used; ``"excluded"`` images are used for nothing."""

_BLOCK = 2**16
"""Texts that are hashed at once."""

SPLIT_COLUMNS = ("path", "sha256", "label", "subtype", "patient", "group", "split", "reason")


def check_split(splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    """Stop the run if a split leaks, loses or repeats an image.

    Args:
        splits: result of :func:`cxr.data.splitting.assign_splits`, or read from disk.
        manifest: manifest of the split; patients and duplicates are taken from it.

    Raises:
        DataError: listing every offending path, patient, group or image.
    """
    accepted = np.arange(len(manifest))
    if "status" in manifest:
        accepted = np.flatnonzero(manifest["status"] == "accepted")
    problems = []
    # Numbers in place of paths: two sets of all paths would take a gigabyte for a few million images.
    hashes = np.concatenate([_hash_texts(manifest["path"]), _hash_texts(splits["path"])])
    _, path_numbers = np.unique(hashes, return_inverse=True)
    del hashes
    accepted_numbers, assigned_numbers = path_numbers[accepted], path_numbers[len(manifest) :]
    is_assigned = np.isin(accepted_numbers, assigned_numbers)
    is_accepted = np.isin(assigned_numbers, accepted_numbers)
    is_repeated = np.bincount(assigned_numbers)[assigned_numbers] > 1
    unknown = splits.loc[~splits["split"].isin([*USED_SPLITS, EXCLUDED]), "path"]
    for expectation, offenders in (
        ("every accepted image to be assigned; not assigned", manifest["path"].iloc[accepted[~is_assigned]].unique()),
        ("only accepted images to be assigned; assigned without being accepted", splits["path"][~is_accepted].unique()),
        (
            "every image to be assigned once; assigned more than once",
            splits["path"][is_repeated].unique(),
        ),
        ("every image in train, validation, test or excluded; elsewhere", unknown),
    ):
        if len(offenders):
            problems.append(_describe_offenders(expectation, offenders))

    row_of_number = np.zeros(len(path_numbers), dtype=np.int64)
    row_of_number[accepted_numbers] = accepted
    is_used = splits["split"].isin(USED_SPLITS).to_numpy(dtype=bool) & is_accepted
    used = splits.loc[is_used, ["label", "group", "split"]]
    rows = row_of_number[assigned_numbers[is_used]]
    for column in ("group", "patient", "sha256", "duplicate_group"):
        values = used["group"] if column == "group" else manifest[column].iloc[rows]
        if len(names := _in_several_splits(values, used["split"])):
            problems.append(_describe_offenders(f"every {column} in one split; in several", names))
    for split in USED_SPLITS:
        absent = set(CLASSES) - set(used.loc[used["split"] == split, "label"])
        if absent:
            problems.append(_describe_offenders(f"both classes in {split}; absent", absent))
    if problems:
        lines = ["the split is not safe to use:", *problems, "correct the data or report a fault of the split"]
        raise DataError("\n".join(lines))


def write_split(splits: pd.DataFrame, parameters: dict[str, Any], folder: Path) -> None:
    """Write a split, its summary and its strata.

    Args:
        splits: result of :func:`cxr.data.splitting.assign_splits`.
        parameters: parameters of the split, for the summary.
        folder: an existing folder.
    """
    write_table(folder / SPLITS_FILE, splits)
    write_json(folder / SPLIT_SUMMARY_FILE, {**parameters, **summarize_split(splits)})
    tabulate_strata(splits).to_csv(folder / STRATA_FILE, index=False)


def summarize_split(splits: pd.DataFrame) -> dict[str, Any]:
    """Count the images and patients of a split.

    Args:
        splits: result of :func:`cxr.data.splitting.assign_splits`.

    Returns:
        ``digest`` (of path, content and split of every image); ``images``, ``patients`` (united groups) and
        ``shares`` (of the images used) per split; ``excluded``, reason to images; and ``strata``, a list with
        one entry per label, subtype (``"all"`` for the class as a whole) and split: images, patients and
        share, the part of the stratum's used images that is in this split.
    """
    used = splits[splits["split"].isin(USED_SPLITS)]
    images = splits["split"].value_counts()
    shares = {split: round(int(images.get(split, 0)) / len(used), 6) for split in USED_SPLITS} if len(used) else {}
    patients = splits.groupby("split")["group"].nunique()
    excluded = splits.loc[splits["split"] == EXCLUDED, "reason"].value_counts()
    return {
        "digest": digest_of_lines(splits[["path", "sha256", "split"]], separator="\t", ending=""),
        "images": {split: int(images.get(split, 0)) for split in (*USED_SPLITS, EXCLUDED)},
        "patients": {split: int(patients.get(split, 0)) for split in (*USED_SPLITS, EXCLUDED)},
        "shares": shares,
        "excluded": {str(reason): int(count) for reason, count in excluded.items()},
        "strata": tabulate_strata(splits).to_dict("records"),
    }


def read_ratios(folder: Path) -> list[float] | None:
    """Read the ratios that a split was made with.

    Args:
        folder: folder of the split, with :data:`SPLIT_SUMMARY_FILE`.

    Returns:
        Shares of train, validation and test, or None if they were not recorded.
    """
    ratios = read_json(folder / SPLIT_SUMMARY_FILE).get("ratios")
    return None if ratios is None else [float(share) for share in ratios]


def tabulate_strata(splits: pd.DataFrame) -> pd.DataFrame:
    """Tabulate images, patients and shares per class, subtype and split.

    Args:
        splits: result of :func:`cxr.data.splitting.assign_splits`.

    Returns:
        Columns label, subtype (``"all"``: the whole class), split, images, patients, share.
    """
    used = splits.loc[splits["split"].isin(USED_SPLITS), ["label", "subtype", "split", "group"]]
    used["group"] = pd.factorize(used["group"])[0]
    whole_class = used.groupby(["label", "split"])["group"].agg(["size", "nunique"]).reset_index()
    counts = pd.concat(
        [
            whole_class.assign(subtype="all"),
            used.groupby(["label", "subtype", "split"])["group"].agg(["size", "nunique"]).reset_index(),
        ]
    )
    rows: list[dict[str, Any]] = []
    for (label, subtype), stratum in counts.groupby(["label", "subtype"]):
        in_split = stratum.set_index("split")[["size", "nunique"]].reindex(list(USED_SPLITS), fill_value=0)
        for split, images, patients in in_split.itertuples():
            share = round(int(images) / int(in_split["size"].sum()), 6)
            rows.append(
                {
                    "label": label,
                    "subtype": subtype,
                    "split": split,
                    "images": int(images),
                    "patients": int(patients),
                    "share": share,
                }
            )
    return pd.DataFrame(rows, columns=["label", "subtype", "split", "images", "patients", "share"])


def _in_several_splits(values: pd.Series, split: pd.Series) -> pd.Index:
    """The values that occur in more than one split; ``""`` and a missing value are none."""
    numbers, names = pd.factorize(values.mask(values == ""))
    splits, _ = pd.factorize(split)
    pairs = np.unique((numbers * len(USED_SPLITS) + splits)[numbers >= 0])
    return names[np.bincount(pairs // len(USED_SPLITS), minlength=len(names)) > 1]


def _hash_texts(texts: pd.Series) -> NDArray[np.uint64]:
    """Hash texts, 8 bytes each. Ten million different ones share a hash once in 400,000 splits."""
    blocks = range(0, len(texts), _BLOCK)
    hashes = [pd.util.hash_array(texts.iloc[start : start + _BLOCK].to_numpy(object)) for start in blocks]
    return np.concatenate([np.empty(0, dtype=np.uint64), *hashes])


def _describe_offenders(expectation: str, offenders: Collection[Any], limit: int = 20) -> str:
    names = sorted(str(offender) for offender in offenders)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"- expected {expectation} ({len(names)}): {', '.join(names[:limit])}{more}"
