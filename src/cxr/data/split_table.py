"""The table of a split: its columns, its check before use, and its summary.

A table has one row per image with the columns :data:`SPLIT_COLUMNS`; :mod:`cxr.data.splitting` makes it.
:func:`check_split` uses nothing of that module and nothing of the grouping of patients, so that it finds their faults.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

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

SPLIT_COLUMNS = ("path", "sha256", "label", "subtype", "patient", "group", "split", "reason")


def check_split(splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    """Stop the run if a split leaks, loses or repeats an image.

    Args:
        splits: result of :func:`cxr.data.splitting.assign_splits`, or read from disk.
        manifest: manifest of the split; patients and duplicates are taken from it.

    Raises:
        DataError: listing every offending path, patient, group or image.
    """
    columns = ["path", "patient", "sha256", "duplicate_group"]
    accepted = manifest.loc[manifest["status"] == "accepted", columns] if "status" in manifest else manifest[columns]
    problems = []
    repeated = splits.loc[splits["path"].duplicated(), "path"].unique()
    unknown = splits.loc[~splits["split"].isin([*USED_SPLITS, EXCLUDED]), "path"]
    for expectation, offenders in (
        (
            "every accepted image to be assigned; not assigned",
            accepted.loc[~accepted["path"].isin(splits["path"]), "path"].unique(),
        ),
        (
            "only accepted images to be assigned; assigned without being accepted",
            splits.loc[~splits["path"].isin(accepted["path"]), "path"].unique(),
        ),
        ("every image to be assigned once; assigned more than once", repeated),
        ("every image in train, validation, test or excluded; elsewhere", unknown),
    ):
        if len(offenders):
            problems.append(_describe_offenders(expectation, offenders))

    used = splits.loc[splits["split"].isin(USED_SPLITS), ["path", "label", "group", "split"]].merge(accepted, on="path")
    for column in ("group", "patient", "sha256", "duplicate_group"):
        rows_with_value = used[used[column].notna() & (used[column] != "")]
        counts = rows_with_value.groupby(column)["split"].nunique()
        if (counts > 1).any():
            problems.append(_describe_offenders(f"every {column} in one split; in several", counts.index[counts > 1]))
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
    used = splits[splits["split"].isin(USED_SPLITS)]
    both_levels = pd.concat([used.assign(subtype="all"), used], ignore_index=True)
    rows: list[dict[str, Any]] = []
    for label, subtype in sorted({(row.label, row.subtype) for row in both_levels.itertuples()}):
        stratum = both_levels[(both_levels["label"] == label) & (both_levels["subtype"] == subtype)]
        for split in USED_SPLITS:
            in_split = stratum[stratum["split"] == split]
            rows.append(
                {
                    "label": label,
                    "subtype": subtype,
                    "split": split,
                    "images": len(in_split),
                    "patients": int(in_split["group"].nunique()),
                    "share": round(len(in_split) / len(stratum), 6),
                }
            )
    return pd.DataFrame(rows, columns=["label", "subtype", "split", "images", "patients", "share"])


def _describe_offenders(expectation: str, offenders: Collection[Any], limit: int = 20) -> str:
    names = sorted(str(offender) for offender in offenders)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"- expected {expectation} ({len(names)}): {', '.join(names[:limit])}{more}"
