"""Builds the manifest: one row per file of a data folder, with all facts that later steps use to decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.data.dataset import CLASSES, NORMAL, OFFICIAL_SPLITS, SUBTYPES
from cxr.data.manifest.copies import count_copies
from cxr.data.manifest.duplicates import MIN_CORRELATION, find_near_duplicates
from cxr.data.manifest.file_names import FileNames
from cxr.data.manifest.inspection import ImageInspection
from cxr.data.manifest.listing import parse_folder
from cxr.data.manifest.patients import ImageName, PatientRow, parse_kermany_name, read_patients
from cxr.data.manifest.row_file import RowFile
from cxr.errors import DataError, ImageError, ParameterError, SourceError
from cxr.files import MANIFEST_FILE, PATIENTS_FILE, utf8_name
from cxr.images.decoding import ImageFacts, ImageLimits
from cxr.images.file_types import is_named_as_image
from cxr.images.parallel import map_in_order
from cxr.images.problems import SOFT_PROBLEMS, TRAINING_PROBLEMS
from cxr.images.raw_images import RawImages
from cxr.images.result_cache import NO_CACHE, ResultCache
from cxr.tables import digest_of_lines, read_table, table_columns, tables_of_rows

ProblemAction = Literal["accept", "quarantine", "refuse"]
FileNaming = Literal["kermany", "any"]

ACTIONS: tuple[ProblemAction, ...] = ("accept", "quarantine", "refuse")
"""Actions for a file that has a problem, the strictest last."""

STATUSES: dict[ProblemAction, str] = {"accept": "accepted", "quarantine": "quarantined", "refuse": "refused"}
"""Status of a file by action: a quarantined file is left out, a refused one stops the pipeline."""

MANIFEST_DTYPES: dict[str, str] = {
    "path": "string",
    "sha256": "string",
    "bytes": "Int64",
    "label": "string",
    "subtype": "string",
    "series": "string",
    "patient": "string",
    "official_split": "string",
    "width": "Int64",
    "height": "Int64",
    "mode": "string",
    "bit_depth": "Int64",
    "grey": "boolean",
    "readable": "bool",
    "problem": "string",
    "detail": "string",
    "status": "string",
    "mean": "float64",
    "std": "float64",
    "phash": "string",
    "sharpness": "float64",
    "gradient_ratio": "float64",
    "copies": "Int64",
    "labels_of_hash": "Int64",
    "near_group": "string",
    "duplicate_group": "string",
    "labels_of_group": "Int64",
    "splits_of_patient": "Int64",
}
"""Columns of the manifest and their types: unknown text and numbers are missing values, never 0."""


def default_policy() -> dict[str, ProblemAction]:
    """Give the action for each kind of problem where the policy does not name one.

    Returns:
        Problem to action: coloured images are accepted (they are read as grey), and so is a modality that the options
        name; all others are left out.
    """
    accepted = ("colour", "other_modality")
    return {problem: "accept" if problem in accepted else "quarantine" for problem in TRAINING_PROBLEMS}


def build_manifest(
    images: RawImages,
    folder: Path,
    *,
    limits: ImageLimits,
    naming: FileNaming,
    policy: Mapping[str, ProblemAction],
    near_distance: int,
    near_correlation: float = MIN_CORRELATION,
    workers: int | None = None,
    progress: bool = True,
    cache: ResultCache = NO_CACHE,
) -> None:
    """Inspect every file of a data set, and write ``manifest.parquet``.

    It holds one row per file, sorted by path, with the columns of :data:`MANIFEST_DTYPES`. The data set consists of
    ``train``, ``val`` and ``test`` with the class folders in each, or of the class folders directly. Each thread holds
    one image at a time. Of each image, the name and a few numbers stay in memory.

    Args:
        images: the raw images.
        folder: an existing folder for the manifest.
        limits: limits that an image must keep to be accepted as a radiograph.
        naming: ``"kermany"`` reads label, subtype and patient from the file name; ``"any"`` takes the patient
            from ``patients.csv`` in the data folder, or else the file name without its ending as the patient.
        policy: action per problem where it differs from :func:`default_policy`; only the problems of
            :data:`cxr.images.problems.SOFT_PROBLEMS` can be accepted.
        near_distance: bits of 64 in which the perceptual hashes of near duplicates may differ.
        near_correlation: smallest correlation of the fine structure of near duplicates.
        workers: threads; None for as many as suit the images.
        progress: whether to show a progress bar on stderr.
        cache: keeps what was found in each image, so that a later call works on new images only.

    Raises:
        ParameterError: if the policy or the naming is wrong (all problems listed).
        SourceError: if the folder is missing or holds no image.
        DataError: if ``patients.csv`` is wrong.
    """
    actions = _complete_policy(policy, naming)
    names = FileNames(sorted(images.names(), key=utf8_name))  # only names that are not UTF-8 change the order
    if not len(names):
        folders = " and ".join(CLASSES)
        raise SourceError(
            f"expected images in folders {folders}, received data={images.folder} without any; run `cxr fetch`"
        )
    patients_file = images.folder / PATIENTS_FILE
    patients = read_patients(patients_file) if naming == "any" and patients_file.exists() else None
    inspection = ImageInspection(images, limits, cache)

    def load(position: int) -> NDArray[np.uint8]:
        return inspection.thumbnail(names[position])

    def inspect(name: str) -> dict[str, object]:
        return _make_row(name, inspection.facts(name), naming, patients, actions)

    find = partial(find_near_duplicates, distance=near_distance, workers=workers, progress=progress)
    with RowFile(folder) as row_file:
        rows = map_in_order(inspect, ((name,) for name in names), workers or images.workers)
        bar = tqdm(rows, desc="images", total=len(names), unit="image", disable=None if progress else True)
        for table in tables_of_rows(bar, MANIFEST_DTYPES):
            row_file.append(table)
        copies = count_copies(row_file.read, partial(find, correlation=near_correlation), load)
        row_file.write(folder / MANIFEST_FILE, copies, list(MANIFEST_DTYPES))


def content_digest(frame: pd.DataFrame) -> str:
    """Compute the digest that identifies the data: which content lies under which path.

    Args:
        frame: the columns ``path`` and ``sha256`` of a manifest, and others.

    Returns:
        Hexadecimal sha256 over the sorted pairs of path and sha256.
    """
    return digest_of_lines(frame[["path", "sha256"]], separator="\0", ending="\n")


def read_manifest(
    folder: Path, columns: Sequence[str] = tuple(MANIFEST_DTYPES), where: Sequence[tuple[str, str, str]] = ()
) -> pd.DataFrame:
    """Read a manifest written by :func:`build_manifest`.

    Args:
        folder: the folder.
        columns: names of the columns to read. All of them take 400 bytes of memory for a row.
        where: conditions that the rows must meet; see :func:`cxr.tables.read_table`.

    Returns:
        The columns, with the types of :data:`MANIFEST_DTYPES`.

    Raises:
        DataError: if a column is missing.
    """
    path = folder / MANIFEST_FILE
    if missing := [name for name in columns if name not in table_columns(path)]:
        raise DataError(f"expected the columns of a manifest, received {folder} without {missing}; run `cxr validate`")
    return read_table(path, columns, where).astype({name: MANIFEST_DTYPES[name] for name in columns})


def _complete_policy(policy: Mapping[str, ProblemAction], naming: str) -> dict[str, ProblemAction]:
    errors: list[str] = []
    if naming not in ("kermany", "any"):
        errors.append(f"expected naming to be kermany or any, received naming={naming!r}")
    for problem, action in policy.items():
        received = f"policy {problem}={action!r}"
        if problem not in TRAINING_PROBLEMS:
            errors.append(f"expected a problem of {', '.join(TRAINING_PROBLEMS)}, received {received}")
        elif action not in ACTIONS:
            errors.append(f"expected one of {', '.join(ACTIONS)}, received {received}")
        elif action == "accept" and problem not in SOFT_PROBLEMS:
            soft = ", ".join(sorted(SOFT_PROBLEMS))
            errors.append(f"expected quarantine or refuse, received {received}; accept is possible for {soft}")
    if errors:
        raise ParameterError(errors)
    return default_policy() | dict(policy)


def _make_row(
    name: str,
    facts: ImageFacts,
    naming: FileNaming,
    patients: Mapping[str, PatientRow] | None,
    actions: Mapping[str, ProblemAction],
) -> dict[str, object]:
    """Make one row of the manifest, without the columns that depend on other rows."""
    path = PurePosixPath(name)
    split, label = parse_folder(path.parent)
    printable_name = utf8_name(name)
    problems = dict(facts.problems)
    if label is None:
        expected = f"[{'|'.join(OFFICIAL_SPLITS)}/]{'|'.join(CLASSES)}"
        problems["misplaced"] = f"expected a folder {expected}, received path={printable_name}; move or remove the file"
    image_name = ImageName(None, None, "", 0, "", "")
    try:
        if printable_name != name:
            raise ImageError("misnamed", f"expected a name in UTF-8, received name={printable_name!r}; rename the file")
        image_name = parse_kermany_name(path.name) if naming == "kermany" else _look_up_patient(name, patients)
    except ImageError as error:
        problems[error.problem] = error.detail
    if image_name.label and label and image_name.label != label:
        problems["mislabelled"] = f"the name says {image_name.label}, the folder {label}; move or rename the file"
    ordered = [problem for problem in TRAINING_PROBLEMS if problem in problems]
    strictest = max((actions[problem] for problem in ordered), key=ACTIONS.index, default=ACTIONS[0])
    return {
        "path": printable_name,
        "sha256": facts.sha256 or None,
        "bytes": facts.bytes if facts.bytes >= 0 else None,
        "label": label,
        "subtype": image_name.subtype or (SUBTYPES[0] if label == NORMAL else None),
        "series": image_name.series or None,
        "patient": image_name.patient or None,
        "official_split": split,
        "width": facts.width or None,
        "height": facts.height or None,
        "mode": facts.mode or None,
        "bit_depth": facts.bit_depth or None,
        "grey": facts.grey,
        "readable": facts.readable,
        "problem": ordered[0] if ordered else "",
        "detail": utf8_name("; ".join(problems[problem] for problem in ordered)),
        "status": STATUSES[strictest],
        "mean": facts.mean,
        "std": facts.std,
        "phash": facts.phash,
        "sharpness": facts.sharpness,
        "gradient_ratio": facts.gradient_ratio,
    }


def _look_up_patient(name: str, patients: Mapping[str, PatientRow] | None) -> ImageName:
    """Patient of a file whose name follows no rule: from the table of patients; without one the name is the patient."""
    path = PurePosixPath(name)
    # A DICOM file is often named by its UID: what follows the last point then tells images of one study apart.
    stem = path.stem if is_named_as_image(path) else path.name
    if patients is None:
        return ImageName(None, None, "", 0, stem, "")
    if name not in patients:
        raise ImageError("misnamed", f"expected a row of {PATIENTS_FILE} with path={name}; add one")
    return ImageName(None, patients[name].subtype, "", 0, patients[name].patient, stem)
