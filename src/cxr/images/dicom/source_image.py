"""What a report must say of the radiograph that it is about: whose it is, and which image of which study.

It is the only code that reads elements about the patient. They go into DICOM reports, and nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import TYPE_CHECKING, Any

from cxr.errors import ImageError
from cxr.images.dicom.elements import is_uid
from cxr.images.dicom.reader import open_elements
from cxr.images.reading_options import ReadingOptions

if TYPE_CHECKING:
    from pydicom import Dataset

_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", re.ASCII)
_ORIENTATION = re.compile(r"[APRLFH]{1,3}\\[APRLFH]{1,3}")
_SHORT, _LONG, _NAME = 16, 64, 64
"""Largest number of characters of a short and of a long text, and of a group of a name (DICOM PS3.5, 6.2)."""
_MAX_SIDE = 65535
_RADIOGRAPH_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.1",  # computed radiography
        "1.2.840.10008.5.1.4.1.1.1.1",  # digital X-ray, for presentation
        "1.2.840.10008.5.1.4.1.1.1.1.1",  # digital X-ray, for processing
        "1.2.840.10008.5.1.4.1.1.7",  # secondary capture
        "1.2.840.10008.5.1.4.1.1.7.2",  # secondary capture, several images, 8 bits
        "1.2.840.10008.5.1.4.1.1.7.3",  # secondary capture, several images, 16 bits
        "1.2.840.10008.5.1.4.1.1.12.2",  # fluoroscopy
    }
)
"""SOP classes of images that can be a chest radiograph."""


@dataclass(frozen=True, repr=False)
class SourceImage:
    """The radiograph that a report is about. Text is Unicode; an attribute is None where the file lacks it.

    An attribute that breaks the rules of its type is None, too, if a report may leave it empty. :func:`repr` shows
    neither patient nor UIDs.

    Attributes:
        study_instance_uid: UID of the study.
        series_instance_uid: UID of the series.
        sop_class_uid: UID of the kind of image.
        sop_instance_uid: UID of the image.
        rows: rows as stored.
        columns: columns as stored.
        patient_name: components separated by ``^``, groups by ``=``.
        patient_id: number of the patient.
        issuer_of_patient_id: who gave that number.
        patient_birth_date: ``YYYYMMDD``.
        patient_sex: ``"M"``, ``"F"`` or ``"O"``.
        study_id: number of the study.
        study_date: ``YYYYMMDD``.
        study_time: ``HHMMSS.FFFFFF``, or its beginning.
        accession_number: number of the order.
        referring_physician_name: as ``patient_name``.
        patient_orientation: directions of rows and columns, such as ``L\\F``.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    rows: int
    columns: int
    patient_name: str | None = None
    patient_id: str | None = None
    issuer_of_patient_id: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None
    study_id: str | None = None
    study_date: str | None = None
    study_time: str | None = None
    accession_number: str | None = None
    referring_physician_name: str | None = None
    patient_orientation: str | None = None

    def __repr__(self) -> str:
        return f"SourceImage(rows={self.rows}, columns={self.columns})"

    def to_values(self) -> dict[str, Any]:
        """Return the attributes as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> SourceImage:
        """Read what :meth:`to_values` gave, and check every attribute again.

        Args:
            values: the attributes, perhaps of a process that a file has taken over.

        Returns:
            The image.

        Raises:
            ValueError: if an attribute is missing, unknown, or breaks the rules of its type.
        """
        if values.keys() != {field.name for field in fields(cls)}:
            raise ValueError("expected the attributes of a source image")
        for name, value in values.items():
            if name in ("rows", "columns"):
                valid = type(value) is int and 0 < value <= _MAX_SIDE
            elif name in _UID_KEYWORDS:
                valid = isinstance(value, str) and _clean_uid(value) == value
            else:
                valid = value is None or (isinstance(value, str) and _TEXTS[name][1](value) == value)
            if not valid:
                raise ValueError(f"expected a valid {name}")
        return cls(**values)


def describe_source_image(data: bytes, options: ReadingOptions) -> SourceImage:
    """Read whose image a DICOM file holds. No pixel is decoded.

    Args:
        data: the whole content of the file.
        options: what is accepted.

    Returns:
        The description.

    Raises:
        ImageError: ``not_an_image``, ``truncated``, ``corrupt``, ``too_large``; ``no_pixels`` for a file without an
            image; ``unidentified`` if a report could not be filed beside the image. No detail has a value of the file.
    """
    keywords = (*_UID_KEYWORDS.values(), *(keyword for keyword, _ in _TEXTS.values()))
    with open_elements(data, (*keywords, "SpecificCharacterSet", "Rows", "Columns"), options) as (_, dataset):
        dataset.decode()
        return _describe(dataset)


def _describe(dataset: Dataset) -> SourceImage:
    uids = {name: _clean_uid(_read_text(dataset, keyword)) for name, keyword in _UID_KEYWORDS.items()}
    if missing := [_UID_KEYWORDS[name] for name, uid in uids.items() if uid is None]:
        raise _unidentified(f"expected valid UIDs, received none as {', '.join(missing)}")
    if uids["sop_class_uid"] not in _RADIOGRAPH_CLASSES:
        raise _unidentified("expected a SOPClassUID of radiography or secondary capture, received another one")
    if "Rows" not in dataset or "Columns" not in dataset:
        raise ImageError("no_pixels", "the DICOM file holds no image; export the image")
    texts = {name: clean(_read_text(dataset, keyword)) for name, (keyword, clean) in _TEXTS.items()}
    if texts["patient_id"] is None and _read_text(dataset, "PatientID").strip(" \0"):
        raise _unidentified(f"expected a PatientID of at most {_LONG} printable characters, received another one")
    sides = {"rows": int(dataset.Rows), "columns": int(dataset.Columns)}
    return SourceImage.from_values({**uids, **sides, **texts})


def _unidentified(problem: str) -> ImageError:
    return ImageError("unidentified", f"{problem}: no report can be filed beside this image; export it again")


def _read_text(dataset: Dataset, keyword: str) -> str:
    """Return the value of an element as text, several values with backslashes between them."""
    value = dataset.get(keyword)
    if value is None:
        return ""
    if isinstance(value, str) or not hasattr(value, "__iter__") or keyword in _NAMES:
        return str(value)
    return "\\".join(str(part) for part in value)


def _clean_uid(text: str) -> str | None:
    uid = text.strip(" \0")
    return uid if is_uid(uid) else None


def _clean_text(text: str, limit: int) -> str | None:
    text = text.strip(" \0")
    return text if 0 < len(text) <= limit and "\\" not in text and text.isprintable() else None


def _clean_long(text: str) -> str | None:
    return _clean_text(text, _LONG)


def _clean_short(text: str) -> str | None:
    return _clean_text(text, _SHORT)


def _clean_name(text: str) -> str | None:
    name = _clean_text(text, 3 * _NAME + 2)
    groups = (name or "").split("=")
    valid = len(groups) <= 3 and all(len(group) <= _NAME and group.count("^") <= 4 for group in groups)
    return name if valid else None


def _clean_date(text: str) -> str | None:
    """Accept also the form of the standard's predecessor, ``YYYY.MM.DD``."""
    match = re.fullmatch(r"(\d{4})(\.?)(\d\d)\2(\d\d)", text.strip(" \0"), re.ASCII)
    if match is None:
        return None
    try:
        date(int(match[1]), int(match[3]), int(match[4]))  # strptime would open a file, which the sandbox forbids
    except ValueError:
        return None
    return f"{match[1]}{match[3]}{match[4]}"


def _clean_time(text: str) -> str | None:
    """Accept also the form of the standard's predecessor, ``HH:MM:SS``."""
    time = text.strip(" \0").replace(":", "")
    return time if _TIME.fullmatch(time) else None


def _clean_sex(text: str) -> str | None:
    sex = text.strip(" \0").upper()
    return sex if sex in ("M", "F", "O") else None


def _clean_orientation(text: str) -> str | None:
    orientation = text.replace(" ", "")
    return orientation if _ORIENTATION.fullmatch(orientation) else None


_UID_KEYWORDS = {
    "study_instance_uid": "StudyInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
    "sop_class_uid": "SOPClassUID",
    "sop_instance_uid": "SOPInstanceUID",
}
_TEXTS = {
    "patient_name": ("PatientName", _clean_name),
    "patient_id": ("PatientID", _clean_long),
    "issuer_of_patient_id": ("IssuerOfPatientID", _clean_long),
    "patient_birth_date": ("PatientBirthDate", _clean_date),
    "patient_sex": ("PatientSex", _clean_sex),
    "study_id": ("StudyID", _clean_short),
    "study_date": ("StudyDate", _clean_date),
    "study_time": ("StudyTime", _clean_time),
    "accession_number": ("AccessionNumber", _clean_short),
    "referring_physician_name": ("ReferringPhysicianName", _clean_name),
    "patient_orientation": ("PatientOrientation", _clean_orientation),
}
"""Attribute to its DICOM keyword and the check of its type."""
_NAMES = frozenset({"PatientName", "ReferringPhysicianName"})
