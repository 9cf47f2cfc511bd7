"""How far images from elsewhere are from the training images, by the measures of `cxr drift`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from cxr.drift.detection import detect_drift
from cxr.drift.window_comparison import WindowComparison, WindowLimits

if TYPE_CHECKING:
    from cxr.evaluation.validation_scores import ValidationScores
    from cxr.inference.scoring.batch import ScoringModel


def compare_with_training(
    rows: pd.DataFrame, model: ScoringModel, validation: ValidationScores | None, limits: WindowLimits, *, seed: int
) -> WindowComparison | None:
    """Compare judged images with those that the model was trained and validated on.

    Args:
        rows: what :func:`cxr.external_validation.predictions.predict_labelled_images` returned.
        model: the model.
        validation: its probabilities on validation; None if it has none.
        limits: differences up to which images count as alike.
        seed: seed of the permutations.

    Returns:
        The comparison, of the images that can be read; None if the model has nothing to compare with.
    """
    if model.reference is None and validation is None:
        return None
    name = model.predictor.metadata.model
    readable = rows[rows["error"] == ""]
    window = readable.assign(
        version=model.version, model=name, probability=readable["probability"].where(readable["refusal"].isna())
    )
    return detect_drift(window, (model.version or "", name), model.reference, validation, limits, seed=seed)
