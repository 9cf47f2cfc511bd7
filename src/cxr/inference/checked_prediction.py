"""From decoded images to predictions or refusals: what page, service and batch scoring have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cxr.errors import ImageError
from cxr.images.recipes import apply_recipe
from cxr.inference.predictor import BATCH_SIZE, Prediction, Predictor
from cxr.inference.reference.reference import ImageFeatures, Reference
from cxr.inference.reference.refusals import Refusal, find_refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxr.images.recipes import Recipe
    from cxr.images.strict_decoding import DecodedImage


@dataclass(frozen=True)
class PredictionResult:
    """What a model says of one image.

    Attributes:
        prediction: the prediction; None where the image is refused.
        refusal: why there is no prediction; None where there is one.
        features: the image as numbers, for the prediction log and for drift; None where the model has no reference.
    """

    prediction: Prediction | None
    refusal: Refusal | None = None
    features: ImageFeatures | None = None


@dataclass(frozen=True)
class CheckedImage:
    """An image that was compared with the reference and prepared for the network.

    Attributes:
        prepared: each recipe of the model to ``(size, size, planes)`` uint8; empty where the image is refused.
        refusal: why the image gets no prediction; None if it gets one.
        features: the image as numbers; None where the model has no reference.
    """

    prepared: Mapping[Recipe, NDArray[np.uint8]]
    refusal: Refusal | None
    features: ImageFeatures | None


def check_image(recipes: Sequence[Recipe], reference: Reference | None, image: DecodedImage) -> CheckedImage:
    """Check that an image is a chest radiograph, and prepare it. The network is not called.

    Args:
        recipes: recipes of the model, :attr:`cxr.inference.predictor.Predictor.recipes`.
        reference: statistics of the model's training images; None accepts every image.
        image: the image before any recipe.

    Returns:
        What the network needs.

    Raises:
        ImageError: ``unsuitable``, if a recipe cannot process the image, such as one of a single pixel.
    """
    features = refusal = None
    try:
        if reference is not None:
            features = reference.features(image)
            refusal = find_refusal(reference, image, features)
        prepared = {} if refusal else {recipe: apply_recipe(recipe, image.grey) for recipe in recipes}
    except cv2.error as error:
        detail = f"it is too small or too narrow for the recipe of the model ({error.err}); give a larger image"
        raise ImageError("unsuitable", detail) from error
    return CheckedImage(prepared, refusal, features)


def predict_checked(
    predictor: Predictor, images: Sequence[CheckedImage], batch_size: int = BATCH_SIZE
) -> list[PredictionResult]:
    """Predict for images that were checked.

    Args:
        predictor: the calibrated model.
        images: what :func:`check_image` gave for each.
        batch_size: images per network call.

    Returns:
        One result per image, in order.

    Raises:
        MissingInputError: if the model isn't calibrated.
    """
    accepted = [image for image in images if image.refusal is None]
    predictions: Iterator[Prediction] = iter(())
    if accepted:
        stacked = {recipe: np.stack([image.prepared[recipe] for image in accepted]) for recipe in predictor.recipes}
        predictions = iter(predictor.calibrated_predictions(predictor.predict_raw(stacked, batch_size)))
    return [
        PredictionResult(next(predictions) if image.refusal is None else None, image.refusal, image.features)
        for image in images
    ]


def check_and_predict(
    predictor: Predictor, reference: Reference | None, images: Sequence[DecodedImage], batch_size: int = BATCH_SIZE
) -> list[PredictionResult]:
    """Predict for images that are chest radiographs; refuse the others.

    Args:
        predictor: the calibrated model.
        reference: statistics of the model's training images; None accepts every image.
        images: the images before any recipe.
        batch_size: images per network call.

    Returns:
        One result per image, in order.

    Raises:
        ImageError: ``unsuitable``, if a recipe cannot process an image.
        MissingInputError: if the model isn't calibrated.
    """
    return predict_checked(
        predictor, [check_image(predictor.recipes, reference, image) for image in images], batch_size
    )
