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
from cxr.data.text_hashes import are_known, are_repeated, find_rows, hash_texts, number_texts
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

_STRATUM = ["label", "subtype", "split"]

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
    accepted_paths = manifest["path"] if len(accepted) == len(manifest) else manifest["path"].iloc[accepted]
    position = find_rows(accepted_paths, splits["path"])
    is_accepted = position >= 0
    is_assigned = np.bincount(position[is_accepted], minlength=len(accepted)) > 0
    is_repeated = are_repeated(hash_texts(splits["path"]))
    unknown = splits.loc[~splits["split"].isin([*USED_SPLITS, EXCLUDED]), "path"]
    for expectation, offenders in (
        ("every accepted image to be assigned; not assigned", accepted_paths[~is_assigned].unique()),
        ("only accepted images to be assigned; assigned without being accepted", splits["path"][~is_accepted].unique()),
        (
            "every image to be assigned once; assigned more than once",
            splits["path"][is_repeated].unique(),
        ),
        ("every image in train, validation, test or excluded; elsewhere", unknown),
    ):
        if len(offenders):
            problems.append(_describe_offenders(expectation, offenders))

    used = np.flatnonzero(splits["split"].isin(USED_SPLITS).to_numpy(dtype=bool) & is_accepted)
    rows = accepted[position[used]]
    del accepted, position, is_accepted, is_assigned, is_repeated
    split_of_used = np.zeros(len(used), dtype=np.int8)
    for number, split in enumerate(USED_SPLITS):
        split_of_used[(splits["split"] == split).to_numpy(dtype=bool, na_value=False)[used]] = number
    for column in ("group", "patient", "sha256", "duplicate_group"):
        values, of_used = (splits["group"], used) if column == "group" else (manifest[column], rows)
        if len(names := _in_several_splits(values, of_used, split_of_used)):
            problems.append(_describe_offenders(f"every {column} in one split; in several", names))
    labels = splits["label"].iloc[used]
    for number, split in enumerate(USED_SPLITS):
        absent = set(CLASSES) - set(labels[split_of_used == number].unique())
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
    counts = _count_groups(_numbered(splits), ["split"]).set_index("split")
    images, patients = counts["size"], counts["nunique"]
    used = int(images.reindex(list(USED_SPLITS), fill_value=0).sum())
    shares = {split: round(int(images.get(split, 0)) / used, 6) for split in USED_SPLITS} if used else {}
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
    numbered = _numbered(splits)
    whole_class, of_subtype = (_count_groups(numbered, names) for names in (["label", "split"], _STRATUM))
    counts = pd.concat([whole_class.assign(subtype="all"), of_subtype])
    counts = counts[counts["split"].isin(USED_SPLITS)]
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


def _numbered(splits: pd.DataFrame) -> pd.DataFrame:
    """Stratum and group of each row as numbers: 7 bytes for a row, and a copy of the texts takes 68."""
    columns: dict[str, Any] = {name: splits[name].astype("category") for name in _STRATUM}
    return pd.DataFrame({**columns, "group": number_texts(splits["group"])}, copy=False)


def _count_groups(numbered: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Count the rows and the different groups that have the same texts in some columns; a missing text is none.

    Args:
        numbered: result of :func:`_numbered`.
        names: names of the columns.

    Returns:
        These columns, ``size`` and ``nunique``, sorted by the texts.
    """
    texts = [numbered[name].cat.categories for name in names]
    shape = [1 + len(categories) for categories in texts]
    stratum = np.zeros(len(numbered), dtype=np.int64)
    for name, length in zip(names, shape, strict=True):
        stratum *= length
        stratum += numbered[name].cat.codes.to_numpy()
        stratum += 1  # 0 is a missing text
    sizes = np.bincount(stratum, minlength=int(np.prod(shape)))
    groups = int(numbered["group"].max()) + 1 if len(numbered) else 1
    stratum *= groups
    stratum += numbered["group"].to_numpy()
    stratum.sort()
    is_new = np.ones(len(stratum), dtype=bool)
    is_new[1:] = stratum[1:] != stratum[:-1]
    different = np.bincount(stratum[is_new] // groups, minlength=len(sizes))
    places = np.unravel_index(np.arange(len(sizes)), shape)
    rows = np.flatnonzero((sizes > 0) & np.all(places, axis=0))
    columns = {name: categories[place[rows] - 1] for name, categories, place in zip(names, texts, places, strict=True)}
    return pd.DataFrame({**columns, "size": sizes[rows], "nunique": different[rows]})


def _in_several_splits(values: pd.Series, rows: NDArray[np.int64], split: NDArray[np.int8]) -> pd.Index:
    """The values that occur in more than one split; ``""`` and a missing value are none.

    Args:
        values: a column.
        rows: rows of the column that count.
        split: number of the split of each of these rows.
    """
    is_known = are_known(values)[rows]
    rows, split = rows[is_known], split[is_known]
    hashes = hash_texts(values)[rows]
    order = np.argsort(hashes)
    hashes, in_order = hashes[order], split[order]
    in_several = hashes[1:][(hashes[1:] == hashes[:-1]) & (in_order[1:] != in_order[:-1])]
    suspected = order[np.isin(hashes, in_several)]
    numbers, names = pd.factorize(values.iloc[rows[suspected]])
    pairs = np.unique(numbers * len(USED_SPLITS) + split[suspected])
    return names[np.bincount(pairs // len(USED_SPLITS), minlength=len(names)) > 1]


def _describe_offenders(expectation: str, offenders: Collection[Any], limit: int = 20) -> str:
    names = sorted(str(offender) for offender in offenders)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"- expected {expectation} ({len(names)}): {', '.join(names[:limit])}{more}"
