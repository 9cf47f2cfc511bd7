"""The methods that a detector is judged beside: boxes from a classifier, and fixed boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.split_table import TEST, TRAIN, VALIDATION
from cxr.errors import DataError
from cxr.files import PREDICTIONS_FILE
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.regions.evaluation import RegionEvaluation, RegionMethod
from cxr.regions.reference_boxes import PriorBoxes, predict_heat_boxes
from cxr.tables import read_table

DETECTOR, HEAT, PRIOR_WITH_CLASSIFIER, PRIOR = "detector", "grad_cam", "prior_with_classifier", "prior"
"""Keys of the methods in reports, in their order."""


@dataclass(frozen=True)
class ComparedClassifier:
    """A classifier whose heat and probabilities give boxes to compare with.

    Attributes:
        predictor: the classifier, or an ensemble.
        probability: path to its calibrated probability of pneumonia, for the validation and test images.
    """

    predictor: Predictor
    probability: Mapping[str, float]

    @classmethod
    def read(cls, trained: Path, evaluation: Path, split_digest: str) -> ComparedClassifier:
        """Read a classifier and its predictions.

        Args:
            trained: folder of the trained classifier.
            evaluation: folder of its evaluation.
            split_digest: digest of the split that the detector was trained on.

        Returns:
            The classifier.

        Raises:
            MissingInputError: if a file is missing.
            DataError: if it was trained on another split: its training images may be among the test images.
        """
        metadata = ModelMetadata.read(evaluation)
        if metadata.split_digest != split_digest:
            raise DataError(
                f"expected a classifier of the same split as the detector (digest={split_digest}), received "
                f"classifier={trained} with digest={metadata.split_digest}; train it on this split"
            )
        predictions = read_table(evaluation / PREDICTIONS_FILE, columns=["path", "probability"])
        probability = dict(zip(predictions["path"], predictions["probability"].tolist(), strict=True))
        return cls(Predictor.load(trained, metadata), probability)


def methods_to_compare(
    images: pd.DataFrame,
    boxes: pd.DataFrame,
    detections: pd.DataFrame,
    *,
    classifier: ComparedClassifier | None,
    read_image: Callable[[str], NDArray[np.uint8]],
    heat_levels: Sequence[float],
) -> dict[str, RegionMethod]:
    """Draw the boxes of all methods in validation and test images.

    Args:
        images: the images of all splits with :data:`cxr.regions.image_tables.IMAGE_COLUMNS`.
        boxes: their opacities; those of train make the prior boxes.
        detections: boxes that the detector proposes in validation and test images.
        classifier: the classifier; None leaves out the methods that need one.
        read_image: path to the decoded image, ``(height, width)`` uint8.
        heat_levels: levels to cut the classifier's heat at, in (0, 1].

    Returns:
        Key to method, the detector first.
    """
    judged = images[images["split"].isin((VALIDATION, TEST))]
    prior = PriorBoxes.fit(images[images["split"] == TRAIN], boxes)
    methods = {DETECTOR: RegionMethod("Detector", detections)}
    if classifier is not None:
        probability = {path: classifier.probability[path] for path in judged["path"]}
        heat = predict_heat_boxes(classifier.predictor, read_image, probability, heat_levels)
        methods[HEAT] = RegionMethod("Grad-CAM boxes", heat)
        methods[PRIOR_WITH_CLASSIFIER] = RegionMethod(
            "Prior boxes, with classifier", prior.predict(judged, probability)
        )
    methods[PRIOR] = RegionMethod("Prior boxes", prior.predict(judged))
    return methods


def add_box_choice(metadata: ModelMetadata, evaluation: RegionEvaluation) -> ModelMetadata:
    """Add what validation chose for the detector to its metadata.

    Args:
        metadata: metadata of the trained detector.
        evaluation: its evaluation beside the other methods.

    Returns:
        The metadata with threshold and box scale.
    """
    point = evaluation.operating_point
    rule = (
        f"highest mean average precision on validation images ({point.mean_average_precision:.3f}), of all "
        f"thresholds and the box scales {', '.join(f'{scale:g}' for scale in evaluation.report['rules']['box_scales'])}"
    )
    return metadata.with_box_choice(point.threshold, point.box_scale, rule)
