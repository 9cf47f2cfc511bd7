"""Report and capture of one answer: what batch and node write about an image."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxr.dicom_report.answer import ReportedAnswer, ReportedModel
from cxr.dicom_report.instance import CAPTURE, REPORT
from cxr.dicom_report.picture import PICTURE_SIDE, draw_picture
from cxr.dicom_report.secondary_capture import build_capture
from cxr.dicom_report.structured_report import build_report
from cxr.errors import DataError
from cxr.images.pixels import shrink
from cxr.inference.explanation import grad_cam_of_prepared

if TYPE_CHECKING:
    from cxr.images.dicom.source_image import SourceImage
    from cxr.images.recipes import Recipe
    from cxr.images.strict_decoding import DecodedImage
    from cxr.inference.checked_prediction import CheckedImage
    from cxr.inference.predictor import Predictor
    from cxr.regions.predictor import RegionPredictor
    from cxr.regions.scoring import ScoredBox


@dataclass(frozen=True)
class CaptureDetector:
    """The detector whose boxes captures show.

    Attributes:
        model: the detector, as captures name it.
        predictor: the detector with recipe, threshold and box scale.
    """

    model: ReportedModel
    predictor: RegionPredictor


@dataclass(frozen=True)
class CapturedImage:
    """What a capture shows of an image.

    Attributes:
        grey: the image, ``(height, width)`` uint8, of at most :data:`cxr.dicom_report.picture.PICTURE_SIDE` pixels on
            the longer side.
        shape: height and width of the original.
    """

    grey: NDArray[np.uint8]
    shape: tuple[int, int]

    @classmethod
    def of(cls, image: DecodedImage) -> CapturedImage:
        """Take from a decoded image what a capture shows."""
        height, width = image.grey.shape
        return cls(shrink(image.grey, PICTURE_SIDE), (height, width))


class ReportBuilder:
    """Builds the files about answers of one model.

    Attributes:
        model: the model, as reports name it.
        recipes: recipes that prepare an image for the model, and for the detector if there is one.
    """

    def __init__(
        self,
        model: ReportedModel,
        predictor: Predictor,
        detector: CaptureDetector | None,
        *,
        kinds: Collection[str],
        deidentified: bool,
    ) -> None:
        """Choose what is built.

        Args:
            model: the model that answers, as reports name it.
            predictor: the same model, for what counted for it.
            detector: the detector whose boxes captures show; None for none.
            kinds: :data:`cxr.dicom_report.instance.REPORT`, :data:`cxr.dicom_report.instance.CAPTURE`, or both.
            deidentified: whether attributes of the patient are left out.
        """
        self.model, self._predictor, self._detector = model, predictor, detector
        self._kinds, self._deidentified = frozenset(kinds), deidentified
        boxes_recipes = () if detector is None else (detector.predictor.recipe,)
        self.recipes: tuple[Recipe, ...] = tuple(dict.fromkeys((*predictor.recipes, *boxes_recipes)))

    @property
    def draws(self) -> bool:
        """Whether captures are built, which need the pixels."""
        return CAPTURE in self._kinds

    def build(
        self, answer: ReportedAnswer, source: SourceImage, image: CapturedImage | None, checked: CheckedImage | None
    ) -> dict[str, bytes]:
        """Build the files about one image.

        Args:
            answer: the answer.
            source: whose image it is.
            image: what a capture shows; None if the image could not be decoded, which then gets no capture.
            checked: the image, prepared by :attr:`recipes`; None if it could not be prepared.

        Returns:
            Kind to the content of the DICOM file.
        """
        files: dict[str, bytes] = {}
        if REPORT in self._kinds:
            files[REPORT] = build_report(answer, source, deidentified=self._deidentified)
        if self.draws and image is not None:
            files[CAPTURE] = self._build_capture(answer, source, image, checked)
        return files

    def _build_capture(
        self, answer: ReportedAnswer, source: SourceImage, image: CapturedImage, checked: CheckedImage | None
    ) -> bytes:
        heat, boxes, phantom_boxes = None, None, False
        if checked is not None and answer.probability is not None:
            with suppress(DataError):  # a network without a convolution
                heat = grad_cam_of_prepared(
                    self._predictor, checked.prepared, image.grey.shape, average_gradients=False
                )
            if self._detector is not None:
                boxes = _find_boxes(self._detector.predictor, image, checked)
                phantom_boxes = self._detector.predictor.metadata.dataset_kind == "phantom"
                answer = replace(answer, detector=self._detector.model)
        pixels = draw_picture(
            image.grey, answer, original_width=image.shape[1], heat=heat, boxes=boxes, phantom_boxes=phantom_boxes
        )
        return build_capture(answer, source, pixels, deidentified=self._deidentified)


def _find_boxes(detector: RegionPredictor, image: CapturedImage, checked: CheckedImage) -> tuple[ScoredBox, ...]:
    from cxr.regions.scoring import draw_boxes

    (boxes,) = draw_boxes(detector, [checked.prepared[detector.recipe]], [image.shape], batch_size=1)
    return boxes
