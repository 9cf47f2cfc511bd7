"""From pictures to answers, or to the reason why there is none: what page, service and batch have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cxr.errors import ImageError
from cxr.images.recipes import apply
from cxr.inference.predictor import BATCH_SIZE, Prediction, Predictor
from cxr.inference.reference.reference import Film, Reference, Refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxr.images.decoding import Picture
    from cxr.images.recipes import Recipe


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture.

    Attributes:
        prediction: the prediction; None where the picture is refused.
        refusal: why there is no prediction; None where there is one.
        film: the picture in a few numbers, for the log and for drift; None where the model has no reference.
    """

    prediction: Prediction | None
    refusal: Refusal | None = None
    film: Film | None = None


@dataclass(frozen=True)
class Seen:
    """A picture that was looked at, ready for the network.

    Attributes:
        prepared: each recipe of the model to ``(size, size, planes)`` uint8; empty where it is refused.
        refusal: why it gets no prediction; None if it gets one.
        film: the picture in a few numbers; None where the model has no reference.
    """

    prepared: Mapping[Recipe, NDArray[np.uint8]]
    refusal: Refusal | None
    film: Film | None


def look(recipes: Sequence[Recipe], reference: Reference | None, picture: Picture) -> Seen:
    """Check that a picture is a chest film, and prepare it; no network is asked.

    Args:
        recipes: recipes of the model, :attr:`cxr.inference.predictor.Predictor.recipes`.
        reference: what the model's training films look like; None lets every picture pass.
        picture: as it came.

    Returns:
        What the network needs.

    Raises:
        ImageError: ``unsuitable``, if a recipe cannot cope with the picture, such as one of a single pixel.
    """
    film = refusal = None
    try:
        if reference is not None:
            film = reference.film(picture)
            refusal = reference.refusal(picture, film)
        prepared = {} if refusal else {recipe: apply(recipe, picture.grey) for recipe in recipes}
    except cv2.error as error:
        raise ImageError("unsuitable", str(error.err)) from error
    return Seen(prepared, refusal, film)


def conclude(predictor: Predictor, seen: Sequence[Seen], batch_size: int = BATCH_SIZE) -> list[Answer]:
    """Ask the network about pictures that were looked at.

    Args:
        predictor: the calibrated model.
        seen: what :func:`look` gave for each.
        batch_size: pictures per network call.

    Returns:
        One answer per picture, in order.

    Raises:
        MissingInputError: if the model isn't calibrated.
    """
    taken = [one for one in seen if one.refusal is None]
    predictions: Iterator[Prediction] = iter(())
    if taken:
        stacked = {recipe: np.stack([one.prepared[recipe] for one in taken]) for recipe in predictor.recipes}
        predictions = iter(predictor.answers(predictor.raw_of(stacked, batch_size)))
    return [Answer(next(predictions) if one.refusal is None else None, one.refusal, one.film) for one in seen]


def answer(
    predictor: Predictor, reference: Reference | None, pictures: Sequence[Picture], batch_size: int = BATCH_SIZE
) -> list[Answer]:
    """Answer for pictures, but for those that are no chest films.

    Args:
        predictor: the calibrated model.
        reference: what its training films look like; None answers for every picture.
        pictures: as they came.
        batch_size: pictures per network call.

    Returns:
        One answer per picture, in order.

    Raises:
        ImageError: ``unsuitable``, if a recipe cannot cope with a picture.
        MissingInputError: if the model isn't calibrated.
    """
    return conclude(predictor, [look(predictor.recipes, reference, one) for one in pictures], batch_size)
