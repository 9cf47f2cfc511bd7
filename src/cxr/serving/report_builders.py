"""The builder of reports for a classifier and a detector that are loaded: of one batch, or of a node."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from cxr.dicom_report.answer import ReportedModel
from cxr.dicom_report.report_builder import CaptureDetector, ReportBuilder

if TYPE_CHECKING:
    from cxr.serving.detector_source import ServedDetector
    from cxr.serving.served_model import ServedModel


def report_builder(
    served: ServedModel,
    registered_name: str | None,
    detector: ServedDetector | None,
    detector_name: str | None,
    *,
    kinds: Collection[str],
    deidentified: bool,
) -> ReportBuilder:
    """Describe the models, and choose whether captures show boxes.

    Nobody can switch boxes off in a capture. So it shows those that the page shows without being asked.

    Args:
        served: the classifier.
        registered_name: name of the registered classifier; it counts only for a version.
        detector: the detector; None for none.
        detector_name: name of the registered detector; it counts only for a version.
        kinds: kinds of files to build, as :class:`cxr.dicom_report.report_builder.ReportBuilder` takes them.
        deidentified: whether attributes of the patient are left out.

    Returns:
        The builder.
    """
    return ReportBuilder(
        _describe(served, registered_name),
        served.predictor,
        CaptureDetector(_describe(detector, detector_name), detector.predictor)
        if detector is not None and detector.matches(served.metadata)
        else None,
        kinds=kinds,
        deidentified=deidentified,
    )


def _describe(served: ServedModel | ServedDetector, registered_name: str | None) -> ReportedModel:
    return ReportedModel.of(
        served.metadata,
        version=served.version or None,
        registered_name=registered_name or None,
        banner=served.banner,
    )
