"""The tables of the RSNA Pneumonia Detection Challenge: labels with boxes, classes, and names in NIH's set."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Collection

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import SourceError
from cxr.storage.contents import shorten_list

LABELS_FILE = "stage_2_train_labels.csv"
CLASSES_FILE = "stage_2_detailed_class_info.csv"
MAPPING_FILE = "pneumonia-challenge-dataset-mappings_2018.json"

_BOX_COLUMNS = ["x", "y", "width", "height"]
_LABEL_COLUMNS = ["patientId", *_BOX_COLUMNS, "Target"]

log = logging.getLogger(__name__)


def parse_labels(content: bytes, source_name: str) -> dict[str, NDArray[np.float64]]:
    """Read which images have which boxes. Rows that are there twice count once, and are logged.

    Args:
        content: the CSV file, with a row per box, or one row without a box; columns patientId, x, y, width, height and
            Target.
        source_name: name of the source, for messages.

    Returns:
        patientId to its boxes, float64 ``(boxes, 4)``: x, y, width, height in pixels; ``(0, 4)`` for Target 0. Sorted.

    Raises:
        SourceError: if columns are missing, or rows are wrong or contradict each other (all are listed).
    """
    table = _parse_csv(content, _LABEL_COLUMNS, LABELS_FILE, source_name)
    repeated = table.duplicated()
    if repeated.any():
        keys = table.loc[repeated, "patientId"].tolist()
        log.warning("%s: left out %s repeated rows: %s", LABELS_FILE, f"{len(keys):,}", shorten_list(keys))
    table = table[~repeated]
    numbers = table[_BOX_COLUMNS].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    has_box = np.isfinite(numbers).all(axis=1) & (numbers[:, 2:] > 0).all(axis=1)
    has_no_box = (table[_BOX_COLUMNS] == "").all(axis=1).to_numpy()
    is_positive = (table["Target"] == "1").to_numpy()
    is_negative = (table["Target"] == "0").to_numpy()
    targets_of_patient = table.groupby("patientId")["Target"].transform("nunique").to_numpy()
    problems = {
        "without patientId": (table["patientId"] == "").to_numpy(),
        "with another Target": ~is_positive & ~is_negative,
        "with Target 1 and no box": is_positive & ~has_box,
        "with Target 0 and a box": is_negative & ~has_no_box,
        "with both Targets for one patientId": targets_of_patient > 1,
    }
    wrong = [
        f"{rows.sum():,} {problem} ({shorten_list(table.loc[rows, 'patientId'].unique().tolist())})"
        for problem, rows in problems.items()
        if rows.any()
    ]
    if wrong:
        raise SourceError(
            "expected rows with Target 1 and a box of four numbers with an area, or with Target 0 and no box, received "
            f"source={source_name} with {LABELS_FILE} with rows {'; '.join(wrong)}; correct the rows"
        )
    groups = table.groupby("patientId", sort=True).indices
    return {str(key): numbers[rows[is_positive[rows]]] for key, rows in groups.items()}


def parse_classes(content: bytes, source_name: str) -> dict[str, str]:
    """Read the class of each image.

    Args:
        content: the CSV file, with the columns patientId and class.
        source_name: name of the source, for messages.

    Returns:
        patientId to its class; in the challenge ``Normal``, ``No Lung Opacity / Not Normal`` or ``Lung Opacity``.

    Raises:
        SourceError: if columns are missing, or an image has two classes.
    """
    table = _parse_csv(content, ["patientId", "class"], CLASSES_FILE, source_name).drop_duplicates()
    repeated = table.loc[table["patientId"].duplicated(), "patientId"].tolist()
    if repeated:
        raise SourceError(
            f"expected one class per patientId, received source={source_name} with {CLASSES_FILE} with several for "
            f"{shorten_list(repeated)}; correct the rows"
        )
    return dict(zip(table["patientId"], table["class"], strict=True))


def parse_mapping(content: bytes, keys: Collection[str], source_name: str) -> dict[str, str]:
    """Read which images show which patient of NIH's set.

    Args:
        content: the JSON file: a list of objects with ``subset_img_id`` (the patientId) and ``img_id`` of NIH, for
            example ``00000002_000.png``, which begins with the number of the patient.
        keys: patientIds that must be there.
        source_name: name of the source, for messages.

    Returns:
        patientId to the number of the patient.

    Raises:
        SourceError: if the file cannot be read or lacks a patientId.
    """
    try:
        patients = {str(row["subset_img_id"]): str(row["img_id"]).partition("_")[0] for row in json.loads(content)}
        missing = sorted(set(keys) - patients.keys())
        problem = f"without {shorten_list(missing)}" if missing else ""
    except (ValueError, TypeError, KeyError) as error:
        problem = f"that cannot be read ({error!r})"
    if problem:
        raise SourceError(
            f"expected subset_img_id and img_id of every image, received source={source_name} with {MAPPING_FILE} "
            f"{problem}; download it again, or remove it: then each image counts as a patient"
        )
    return patients


def _parse_csv(content: bytes, columns: list[str], name: str, source_name: str) -> pd.DataFrame:
    """Read some columns of a table as text without spaces around it."""
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        problem = f"without {', '.join(missing)}" if (missing := [c for c in columns if c not in table]) else ""
    except ValueError as error:
        problem = f"that cannot be read ({error})"
    if problem:
        raise SourceError(
            f"expected a CSV file with the columns {', '.join(columns)}, received source={source_name} with {name} "
            f"{problem}; download it again"
        )
    return pd.DataFrame({column: table[column].str.strip() for column in columns})
