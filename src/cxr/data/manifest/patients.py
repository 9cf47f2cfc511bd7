"""Tells which patient an image shows: from a file name of the Kermany set, or from a table beside the images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr.data.dataset import NORMAL, PNEUMONIA, SUBTYPES
from cxr.errors import DataError, ImageError

KERMANY_SUFFIXES: tuple[str, ...] = (".jpeg", ".jpg", ".png")
"""Endings of image files, in lower case."""

_PNEUMONIA = re.compile(r"person(?P<number>\d+)_(?P<subtype>bacteria|virus)_(?P<image>\d+(_\d+)*)", re.ASCII)
_NORMAL = re.compile(r"(?P<series>(NORMAL2-)?IM)-(?P<number>\d+)-(?P<image>\d+(-\d+)*)", re.ASCII)


@dataclass(frozen=True)
class ImageName:
    """Facts in the name of one image file.

    Attributes:
        label: ``"NORMAL"`` or ``"PNEUMONIA"``; None where names carry no label.
        subtype: ``"normal"``, ``"bacteria"`` or ``"virus"``; None where names carry none.
        series: series of numbers that ``number`` belongs to: ``"bacteria"``, ``"virus"``, ``"IM"``, ``"NORMAL2-IM"``.
        number: number of the patient inside the series.
        patient: the typed key ``<series>-<number>``, for example ``"bacteria-12"`` or ``"NORMAL2-IM-0095"``.
        image: part of the name that tells this image from the patient's other images.
    """

    label: str | None
    subtype: str | None
    series: str
    number: int
    patient: str
    image: str


def parse_kermany_name(name: str) -> ImageName:
    """Read label, subtype and patient from a file name of the Kermany data set.

    Numbers restart in each series (``person12_bacteria_46`` and ``person12_virus_90`` are two children), so
    the key of a patient is the series together with the number.

    Args:
        name: file name without folders, for example ``"person12_bacteria_46.jpeg"``.

    Returns:
        The parts of the name.

    Raises:
        ImageError: ``misnamed``, if the name has another form.
    """
    stem, dot, ending = name.rpartition(".")
    if dot + ending.lower() in KERMANY_SUFFIXES:
        if match := _PNEUMONIA.fullmatch(stem):
            subtype, number = match["subtype"], int(match["number"])
            return ImageName(PNEUMONIA, subtype, subtype, number, f"{subtype}-{number}", match["image"])
        if match := _NORMAL.fullmatch(stem):
            series, number = match["series"], int(match["number"])
            return ImageName(NORMAL, "normal", series, number, f"{series}-{number:04d}", match["image"])
    raise ImageError(
        "misnamed",
        "expected person<N>_bacteria_<M>, person<N>_virus_<M>, IM-<N>-<M> or NORMAL2-IM-<N>-<M> and the "
        f"ending {', '.join(KERMANY_SUFFIXES)}, received name={name!r}; rename the file, or set "
        "validate.naming to any",
    )


def is_kermany_name(name: str) -> bool:
    """Tell whether a file name says which patient the image shows, as :func:`parse_kermany_name` reads it.

    Args:
        name: file name without folders.

    Returns:
        Whether it has the form of the Kermany data set.
    """
    try:
        parse_kermany_name(name)
    except ImageError:
        return False
    return True


@dataclass(frozen=True)
class PatientRow:
    """Patient of one image, from the table of patients.

    Attributes:
        patient: key of the patient.
        subtype: ``"normal"``, ``"bacteria"`` or ``"virus"``; None if unknown.
    """

    patient: str
    subtype: str | None


def read_patients(path: Path) -> dict[str, PatientRow]:
    """Read the table that says which image shows which patient.

    Args:
        path: a CSV file with columns ``path`` (posix, relative to the data folder), ``patient`` and, where
            known, ``subtype``.

    Returns:
        Path to its row.

    Raises:
        DataError: if a column is missing, a path is listed twice, or a patient or subtype is wrong.
    """
    table = read_patient_table(path)
    subtypes = table["subtype"] if "subtype" in table else [""] * len(table)
    rows = zip(table["path"], table["patient"], subtypes, strict=True)
    return {name: PatientRow(patient, subtype or None) for name, patient, subtype in rows}


def read_patient_table(path: Path) -> pd.DataFrame:
    """Read the same table with all its columns, such as age, sex or scanner.

    Args:
        path: the CSV file of :func:`read_patients`.

    Returns:
        One row per image, all cells as text, empty where unknown.

    Raises:
        DataError: as :func:`read_patients`.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DataError(
            f"expected a CSV file with columns path and patient, received {path}: {error}; correct the table"
        ) from error
    if missing := [name for name in ("path", "patient") if name not in table]:
        raise DataError(f"expected the columns path, patient[, subtype], received {path} without {missing}; add them")
    table["patient"] = table["patient"].str.strip()
    paths, patients = table["path"].tolist(), table["patient"].tolist()
    subtypes = table["subtype"].tolist() if "subtype" in table else []
    repeated_paths = table["path"][table["path"].duplicated()].tolist()
    paths_without_patient = [name for name, patient in zip(paths, patients, strict=True) if not patient]
    unknown_subtypes = sorted(set(subtypes) - {"", *SUBTYPES})
    if repeated_paths or paths_without_patient or unknown_subtypes:
        raise DataError(
            f"expected one row per path, with a patient and a subtype of {SUBTYPES} or none, received {path} "
            f"with paths twice={repeated_paths[:10]}, without patient={paths_without_patient[:10]}, "
            f"subtypes={unknown_subtypes[:10]}; correct the table"
        )
    return table
