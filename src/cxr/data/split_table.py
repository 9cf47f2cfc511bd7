"""The table of a split: its columns, what it holds, and the gate that a run must pass to use it.

A table has one row per image with the columns :data:`COLUMNS`; :mod:`cxr.data.splitting` makes it. Nothing here is
used to make it, so that :func:`gate` can catch the maker's faults.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.data.dataset import CLASSES
from cxr.errors import DataError

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
EXCLUDED = "excluded"
USED: tuple[str, str, str] = (TRAIN, VALIDATION, TEST)
"""Sides of a split that take part; ``"excluded"`` images take part in nothing."""

COLUMNS = ("path", "sha256", "label", "subtype", "patient", "group", "split", "reason")


def gate(splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    """Stop the run if a split leaks, loses or repeats an image.

    Args:
        splits: assignment, as :func:`split` returns it or as it was read from disk.
        manifest: manifest that it was made from; what counts are the manifest's own patients and duplicates.

    Raises:
        DataError: listing every offending path, patient, group or picture.
    """
    accepted = manifest[manifest["status"] == "accepted"] if "status" in manifest else manifest
    problems = []
    named, expected = set(splits["path"]), set(accepted["path"])
    repeated = splits.loc[splits["path"].duplicated(), "path"].unique()
    unknown_sides = splits.loc[~splits["split"].isin([*USED, EXCLUDED]), "path"]
    for sentence, offenders in (
        ("every accepted image to be assigned; not assigned", expected - named),
        ("only accepted images to be assigned; assigned without being accepted", named - expected),
        ("every image to be assigned once; assigned more than once", repeated),
        ("every image in train, validation, test or excluded; elsewhere", unknown_sides),
    ):
        if len(offenders):
            problems.append(_listed(sentence, offenders))

    facts = accepted[["path", "patient", "sha256", "duplicate_group"]]
    used = splits.loc[splits["split"].isin(USED), ["path", "label", "group", "split"]].merge(facts, on="path")
    for column in ("group", "patient", "sha256", "duplicate_group"):
        named_rows = used[used[column].notna() & (used[column] != "")]
        sides = named_rows.groupby(column)["split"].nunique()
        if (sides > 1).any():
            problems.append(_listed(f"every {column} on one side; on several", sides.index[sides > 1]))
    for side in USED:
        absent = set(CLASSES) - set(used.loc[used["split"] == side, "label"])
        if absent:
            problems.append(_listed(f"both classes in {side}; absent", absent))
    if problems:
        raise DataError(
            "\n".join(
                [
                    "the split is not safe to use:",
                    *problems,
                    "correct the data or report a fault of the split",
                ]
            )
        )


def achieved(splits: pd.DataFrame) -> dict[str, Any]:
    """Count what a split holds.

    Args:
        splits: assignment, as :func:`split` returns it.

    Returns:
        ``digest`` (of path, content and side of every image); ``images``, ``patients`` (united groups) and
        ``shares`` (of the images used) per split; ``excluded``, reason to images; and ``strata``, a list with
        one entry per label, subtype (``"all"`` for the class as a whole) and split: images, patients and
        share, the part of the stratum's used images that is in this split.
    """
    used = splits[splits["split"].isin(USED)]
    images = splits["split"].value_counts()
    patients = splits.groupby("split")["group"].nunique()
    lines = sorted(f"{path}\t{sha256}\t{side}" for path, sha256, side in splits[["path", "sha256", "split"]].to_numpy())
    excluded = splits.loc[splits["split"] == EXCLUDED, "reason"].value_counts()
    return {
        "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "images": {side: int(images.get(side, 0)) for side in (*USED, EXCLUDED)},
        "patients": {side: int(patients.get(side, 0)) for side in (*USED, EXCLUDED)},
        "shares": {side: round(int(images.get(side, 0)) / len(used), 6) for side in USED} if len(used) else {},
        "excluded": {str(reason): int(count) for reason, count in excluded.items()},
        "strata": strata(splits).to_dict("records"),
    }


def ratios_of(folder: Path) -> list[float] | None:
    """Shares that a split was made with.

    Args:
        folder: folder of the split, with ``achieved.json``.

    Returns:
        Shares of train, validation and test, or None if they were not written down.
    """
    ratios = json.loads((folder / "achieved.json").read_text(encoding="utf-8")).get("ratios")
    return None if ratios is None else [float(share) for share in ratios]


def strata(splits: pd.DataFrame) -> pd.DataFrame:
    """Tabulate images, patients and shares per class, subtype and split.

    Args:
        splits: assignment, as :func:`split` returns it.

    Returns:
        Columns label, subtype (``"all"``: the whole class), split, images, patients, share.
    """
    used = splits[splits["split"].isin(USED)]
    both = pd.concat([used.assign(subtype="all"), used], ignore_index=True)
    rows: list[dict[str, Any]] = []
    for label, subtype in sorted({(row.label, row.subtype) for row in both.itertuples()}):
        of_stratum = both[(both["label"] == label) & (both["subtype"] == subtype)]
        for side in USED:
            here = of_stratum[of_stratum["split"] == side]
            rows.append(
                {
                    "label": label,
                    "subtype": subtype,
                    "split": side,
                    "images": len(here),
                    "patients": int(here["group"].nunique()),
                    "share": round(len(here) / len(of_stratum), 6),
                }
            )
    return pd.DataFrame(rows, columns=["label", "subtype", "split", "images", "patients", "share"])


def worst_deviation(splits: pd.DataFrame, ratios: Sequence[float], least_patients: int = 0) -> tuple[float, str]:
    """Find the stratum whose share of images is farthest from the ratio.

    Args:
        splits: assignment, as :func:`split` returns it.
        ratios: shares asked for: train, validation, test.
        least_patients: strata with fewer patient groups are left out.

    Returns:
        The absolute difference of shares (0 if there is no stratum) and a description of where it is.
    """
    table = strata(splits)
    table = table[table.groupby(["label", "subtype"])["patients"].transform("sum") >= least_patients]
    if table.empty:
        return 0.0, ""
    wanted = dict(zip(USED, ratios, strict=True))
    rows = table.to_dict("records")
    worst = max(rows, key=lambda row: abs(row["share"] - wanted[row["split"]]))
    ratio = wanted[worst["split"]]
    return (
        abs(worst["share"] - ratio),
        f"{worst['label']} ({worst['subtype']}): share={worst['share']:.3f} of its images "
        f"in {worst['split']}, ratio={ratio:.3f}",
    )


def _listed(sentence: str, offenders: Collection[Any], most: int = 20) -> str:
    names = sorted(str(offender) for offender in offenders)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"- expected {sentence} ({len(names)}): {', '.join(names[:most])}{more}"
