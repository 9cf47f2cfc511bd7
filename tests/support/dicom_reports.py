"""DICOM radiographs with a planted identity, and checks of the reports about them."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from support.dicom_files import SECRET, dicom_file

IDENTITY = {
    "PatientName": f"{SECRET}^Person",
    "PatientID": f"{SECRET}-4711",
    "PatientBirthDate": "19610203",
    "PatientSex": "F",
    "AccessionNumber": f"{SECRET}-A9",
    "StudyID": f"{SECRET}-S7",
    "StudyDate": "20240506",
    "StudyTime": "070809",
    "ReferringPhysicianName": f"{SECRET}^Doctor",
}
"""Attributes of the patient that a report takes over."""


def radiograph(stored: NDArray[Any], number: int = 1, **tags: Any) -> bytes:
    """Write a radiograph that belongs to a patient and a study.

    Args:
        stored: stored values, ``(rows, columns)``.
        number: number of the image; images of one number have the same UIDs.
        tags: elements to set by keyword; None removes one.

    Returns:
        The content of a DICOM file.
    """
    uids = {
        keyword: generate_uid(prefix="1.2.826.0.1.3680043.8.498.", entropy_srcs=[keyword, str(number)])
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    }
    values = {**IDENTITY, **uids, **tags}
    always = ("PatientName", "PatientID", "SOPInstanceUID")  # every DICOM file of the tests has them
    return dicom_file(stored, **{key: value for key, value in values.items() if value is not None or key in always})


def errors_of(file: Path) -> list[str]:
    """Errors that ``dciodvfy`` finds in a DICOM file; it is part of dicom3tools."""
    checked = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
    lines = (checked.stdout + checked.stderr).splitlines()
    return [line for line in lines if line.startswith("Error")]


HAS_DCIODVFY = shutil.which("dciodvfy") is not None


def content_items(dataset: pydicom.Dataset) -> Iterator[tuple[str, Any]]:
    """Name and value of each content item of a report, in depth."""
    for item in dataset.get("ContentSequence", ()):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        match item.ValueType:
            case "TEXT":
                yield name, item.TextValue
            case "NUM":
                yield name, float(item.MeasuredValueSequence[0].NumericValue)
            case "CODE":
                yield name, item.ConceptCodeSequence[0].CodeValue
            case "IMAGE":
                yield name, item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        yield from content_items(item)


def planted_values(contents: list[bytes]) -> set[bytes]:
    """Everything in DICOM files that says who the patient is: attributes of :data:`IDENTITY` and UIDs.

    Args:
        contents: radiographs of :func:`radiograph`.

    Returns:
        Values as they would stand in any other file.
    """
    uids = set()
    for content in contents:
        dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        uids |= {dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID}
    return {value.encode() for value in {SECRET, "19610203", *uids}}


def ramp(seed: int) -> NDArray[np.uint16]:
    """Draw values of 12 bits, other ones for each seed."""
    return np.random.default_rng(seed).integers(0, 4096, (40, 52), dtype=np.uint16)
