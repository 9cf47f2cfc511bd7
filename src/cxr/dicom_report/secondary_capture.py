"""An answer as a picture in a DICOM file: a secondary capture derived from the radiograph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxr.dicom_report import concepts
from cxr.dicom_report.answer import NOTICE, ReportedAnswer
from cxr.dicom_report.instance import (
    CAPTURE,
    instance_values,
    silence_libraries,
    source_dataset,
    without_patient,
    write_instance,
)
from cxr.images.dicom.source_image import SourceImage

SERIES_NUMBER = 9902
"""Number of the series of captures; those of a modality are small."""
_SERIES_DESCRIPTION = "Pneumonia classifier, pictures, research only"
_UNKNOWN_ORIENTATION = ("L", "F")
"""highdicom demands one; it is removed again."""


def build_capture(
    answer: ReportedAnswer, image: SourceImage, pixels: NDArray[np.uint8], *, deidentified: bool
) -> bytes:
    """Write a picture of an answer as a DICOM file for the study of its image.

    It says that it is derived from the image, that text is burnt in, and
    :data:`cxr.dicom_report.answer.NOTICE`. Two answers of one version to one image, with boxes of one version of the
    detector, have the same UIDs.

    Args:
        answer: the answer.
        image: the image that it is about.
        pixels: the picture, ``(rows, columns, 3)`` uint8, as :func:`cxr.dicom_report.picture.draw_picture` draws it.
        deidentified: whether attributes of patient, order and time of the study are left out. UIDs stay.

    Returns:
        The content of the file, about 3 MB.
    """
    from highdicom.sc import SCImage
    from pydicom import Dataset

    image = without_patient(image) if deidentified else image
    orientation = (image.patient_orientation or "").split("\\")
    values = instance_values(answer, image, CAPTURE, deidentified=deidentified)
    silence_libraries()
    capture = SCImage.from_ref_dataset(
        source_dataset(image),
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=tuple(orientation) if len(orientation) == 2 else _UNKNOWN_ORIENTATION,
        series_number=SERIES_NUMBER,
        series_description=_SERIES_DESCRIPTION,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **values,
    )
    if image.patient_orientation is None:
        capture.PatientOrientation = None
    capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture = values["content_date"], values["content_time"]
    capture.ConversionType = "WSD"  # a workstation drew it
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.BurnedInAnnotation = "YES"
    capture.Laterality = None  # a chest has both sides
    capture.DerivationDescription = f"Answer of a classifier drawn over the image. {NOTICE}"
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    source.PurposeOfReferenceCodeSequence = [concepts.as_item(concepts.SOURCE_IMAGE)]
    capture.SourceImageSequence = [source]
    return write_instance(capture, image, deidentified=deidentified)
