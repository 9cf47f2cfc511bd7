"""What a report and a capture have in common: patient and study of the source image, their own UIDs, the device."""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import warnings
from typing import TYPE_CHECKING, Any

from cxr import __version__
from cxr.dicom_report.answer import ReportedAnswer
from cxr.dicom_report.concepts import private_scheme
from cxr.images.dicom.source_image import SourceImage

if TYPE_CHECKING:
    from pydicom import Dataset

MANUFACTURER = "cxr"
REPORT, CAPTURE = "report", "capture"
"""Kinds of files."""
_UTF_8 = "ISO_IR 192"
_LONG_STRING = 64
"""Largest number of characters of a long string (LO)."""
_UUID_ROOT, _UUID_BITS = "2.25", 128
_PATIENT_AND_STUDY = {
    "PatientName": "patient_name", "PatientID": "patient_id", "PatientBirthDate": "patient_birth_date",
    "PatientSex": "patient_sex", "StudyID": "study_id", "StudyDate": "study_date", "StudyTime": "study_time",
    "AccessionNumber": "accession_number", "ReferringPhysicianName": "referring_physician_name",
}  # fmt: skip
"""Keywords that every DICOM file must have, perhaps without a value, to the attributes of the source image."""


def derive_uid(*parts: str) -> str:
    """Derive a UID from text: equal text gives the same UID, on every machine.

    Args:
        parts: what the UID depends on.

    Returns:
        A UID of the root for UUIDs (DICOM PS3.5, B.2).
    """
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return f"{_UUID_ROOT}.{int.from_bytes(digest[: _UUID_BITS // 8], 'big')}"


def without_patient(image: SourceImage) -> SourceImage:
    """Leave out everything about patient, order and time of the study; UIDs stay, so that the report can be filed.

    Args:
        image: the source image.

    Returns:
        The image with empty attributes.
    """
    return SourceImage(
        image.study_instance_uid,
        image.series_instance_uid,
        image.sop_class_uid,
        image.sop_instance_uid,
        image.rows,
        image.columns,
        patient_orientation=image.patient_orientation,
    )


def source_dataset(image: SourceImage) -> Dataset:
    """Write the source image as the data set that highdicom takes patient, study and references from.

    Args:
        image: the source image.

    Returns:
        The data set, without pixels.
    """
    from pydicom import Dataset

    dataset = Dataset()
    dataset.SpecificCharacterSet = _UTF_8
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = image.study_instance_uid, image.series_instance_uid
    dataset.SOPClassUID, dataset.SOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    dataset.Rows, dataset.Columns = image.rows, image.columns
    for keyword, attribute in _PATIENT_AND_STUDY.items():
        setattr(dataset, keyword, getattr(image, attribute))
    return dataset


def instance_values(answer: ReportedAnswer, image: SourceImage, kind: str, *, deidentified: bool) -> dict[str, Any]:
    """Make the arguments that highdicom takes for every kind of file.

    A film that is answered twice by the same version gives the same UIDs, so that an archive keeps one instance.

    Args:
        answer: the answer.
        image: the source image.
        kind: :data:`REPORT` or :data:`CAPTURE`.
        deidentified: whether attributes of the patient are left out.

    Returns:
        UIDs, device, and date.
    """
    model, local_time = answer.model, answer.answered_at.astimezone()
    models = [model] if answer.detector is None else [model, answer.detector]
    versions = [(shown.registered_name or "", shown.version or "", shown.card_digest) for shown in models]
    version = (*itertools.chain.from_iterable(versions), kind, str(deidentified))
    return {
        "series_instance_uid": derive_uid("series", image.study_instance_uid, *version),
        "sop_instance_uid": derive_uid("instance", image.sop_instance_uid, *version),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": model.name[:_LONG_STRING],
        "device_serial_number": model.card_digest,
        "software_versions": (f"cxr {__version__}", *(shown.version_text[:_LONG_STRING] for shown in models)),
        "content_date": local_time.strftime("%Y%m%d"),
        "content_time": local_time.strftime("%H%M%S.%f"),
        "coding_schemes": [private_scheme()],
        "specific_character_set": _UTF_8,
    }


def write_instance(dataset: Dataset, image: SourceImage, *, deidentified: bool) -> bytes:
    """Complete a data set and write it as a file.

    Args:
        dataset: the data set.
        image: the source image.
        deidentified: whether attributes of the patient were left out.

    Returns:
        The content of the file. Equal answers give equal files.
    """
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = dataset.ContentDate, dataset.ContentTime
    for equipment in dataset.get("ContributingEquipmentSequence") or ():  # highdicom names itself with the present time
        equipment.ContributionDateTime = f"{dataset.ContentDate}{dataset.ContentTime}"
    if image.issuer_of_patient_id is not None:  # highdicom does not always take it over
        dataset.IssuerOfPatientID = image.issuer_of_patient_id
    if deidentified:
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = "Patient, order and times of the study left out; UIDs kept"
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


def silence_libraries() -> None:
    """Keep identity out of logs and warnings of libraries, which quote values.

    highdicom logs the UID of each source, and warns about names without ``^``, which are valid. It is repeated for each
    file, because a program may set up its logs at any time.
    """
    logging.getLogger("highdicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"(highdicom|pydicom)(\.|$)")
