"""An answer as a DICOM structured report: a measurement report (DICOM PS3.16, TID 1500) in a comprehensive SR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxr.dicom_report import concepts
from cxr.dicom_report.answer import NOTICE, ReportedAnswer
from cxr.dicom_report.instance import (
    MANUFACTURER,
    REPORT,
    derive_uid,
    instance_values,
    silence_libraries,
    source_dataset,
    without_patient,
    write_instance,
)
from cxr.images.dicom.source_image import SourceImage

if TYPE_CHECKING:
    from highdicom.sr import Measurement, MeasurementReport, MeasurementsAndQualitativeEvaluations
    from pydicom import Dataset
    from pydicom.sr.coding import Code

SERIES_NUMBER = 9901
"""Number of the series of reports; those of a modality are small."""
_DECIMALS = 6
"""Decimal numbers of DICOM have at most 16 characters."""
_SERIES_DESCRIPTION = "Pneumonia classifier, research only"


def build_report(answer: ReportedAnswer, image: SourceImage, *, deidentified: bool) -> bytes:
    """Write an answer as a DICOM file for the study of its image.

    It holds probability, threshold and label, or the reason of a refusal; the model with its version; a reference to
    the image; and :data:`cxr.dicom_report.answer.NOTICE`. It is marked as complete, preliminary and unverified. Two
    answers of one version to one image have the same UIDs.

    Args:
        answer: the answer.
        image: the image that it is about.
        deidentified: whether attributes of patient, order and time of the study are left out. UIDs stay.

    Returns:
        The content of the file.
    """
    from highdicom.sr import ComprehensiveSR

    image = without_patient(image) if deidentified else image
    silence_libraries()
    report = ComprehensiveSR(
        evidence=[source_dataset(image)],
        content=_content(answer, image)[0],
        series_number=SERIES_NUMBER,
        series_description=_SERIES_DESCRIPTION,
        is_complete=True,
        is_final=False,
        is_verified=False,
        **instance_values(answer, image, REPORT, deidentified=deidentified),
    )
    return write_instance(report, image, deidentified=deidentified)


def _content(answer: ReportedAnswer, image: SourceImage) -> MeasurementReport:
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )

    model = answer.model
    observer = DeviceObserverIdentifyingAttributes(
        uid=derive_uid("device", model.registered_name or model.name, model.version or "", model.card_digest),
        name=model.version_text,
        manufacturer_name=MANUFACTURER,
        model_name=model.name,
        serial_number=model.card_digest,
    )
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=ObserverContext(concepts.DEVICE, observer)),
        procedure_reported=concepts.CHEST_RADIOGRAPHY,
        imaging_measurements=[_measurements(answer, image)],
    )
    _add_comments(report[0], [NOTICE, model.banner])
    return report


def _measurements(answer: ReportedAnswer, image: SourceImage) -> MeasurementsAndQualitativeEvaluations:
    from highdicom.sr import (
        AlgorithmIdentification,
        FindingSite,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    model = answer.model
    algorithm = AlgorithmIdentification(
        name=model.registered_name or model.name,
        version=model.version or model.card_digest,
        parameters=[f"network={model.name}", f"recipe={model.recipe}", f"trained on={model.dataset}"],
        manufacturer=MANUFACTURER,
    )
    measured = ((concepts.PROBABILITY, answer.probability), (concepts.THRESHOLD, answer.threshold))
    evaluation = (
        (concepts.LABEL, concepts.LABELS[answer.label])
        if answer.label is not None
        else (concepts.REFUSAL, concepts.refusal_code(answer.refusal_reason or "no_answer"))
    )
    tracking_uid = derive_uid("finding", image.sop_instance_uid, model.version or "", model.card_digest)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(tracking_uid, "pneumonia"),
        algorithm_id=algorithm,
        finding_sites=[FindingSite(concepts.LUNG)],
        measurements=[_measurement(name, value) for name, value in measured if value is not None],
        qualitative_evaluations=[QualitativeEvaluation(*evaluation)],
        source_images=[SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid)],
    )
    _add_comments(group[0], [answer.refusal_text])
    return group


def _measurement(name: Code, value: float) -> Measurement:
    from highdicom.sr import Measurement

    return Measurement(name=name, value=round(value, _DECIMALS), unit=concepts.NO_UNIT)


def _add_comments(container: Dataset, texts: list[str | None]) -> None:
    """Add sentences for people at the end of a container; None adds nothing."""
    from highdicom.sr import RelationshipTypeValues, TextContentItem

    container.ContentSequence.extend(
        TextContentItem(concepts.COMMENT, text, RelationshipTypeValues.CONTAINS) for text in texts if text
    )
