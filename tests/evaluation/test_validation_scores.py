"""Sensitivity and specificity of a threshold are those of the validation images alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.errors import DataError
from cxr.evaluation.validation_scores import ValidationScores
from cxr.files import VALIDATION_SCORES_FILE

SCORES = ValidationScores(np.array([0.1, 0.5, 0.6, 0.5, 0.9]), np.array([False, False, False, True, True]))


@pytest.mark.parametrize(
    ("threshold", "sensitivity", "specificity"),
    [(0.0, 1, 0), (0.5, 1, 1 / 3), (0.51, 0.5, 2 / 3), (0.61, 0.5, 1), (1.0, 0, 1)],
)
def test_an_image_at_the_threshold_is_called_pneumonia(
    threshold: float, sensitivity: float, specificity: float
) -> None:
    assert SCORES.sensitivity(threshold) == pytest.approx(sensitivity)
    assert SCORES.specificity(threshold) == pytest.approx(specificity)


def test_a_class_without_images_has_no_metric() -> None:
    only_pneumonia = ValidationScores(np.array([0.4]), np.array([True]))
    assert math.isnan(only_pneumonia.specificity(0.5)) and only_pneumonia.sensitivity(0.5) == 0


def test_scores_are_read_as_saved_and_damage_is_reported(tmp_path: Path) -> None:
    assert ValidationScores.load(tmp_path) is None
    SCORES.save(tmp_path)
    loaded = ValidationScores.load(tmp_path)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.probability, SCORES.probability)
    np.testing.assert_array_equal(loaded.pneumonia, SCORES.pneumonia)
    (tmp_path / VALIDATION_SCORES_FILE).write_bytes(b"PK")
    with pytest.raises(
        DataError, match=f"probability, pneumonia, received .*{VALIDATION_SCORES_FILE}.*register the model again"
    ):
        ValidationScores.load(tmp_path)


def test_only_validation_rows_of_an_evaluation_count(tmp_path: Path) -> None:
    rows = [("validation", "NORMAL", 0.2), ("test", "NORMAL", 0.9), ("validation", "PNEUMONIA", 0.7)]
    pd.DataFrame(rows, columns=["split", "label", "probability"]).to_parquet(tmp_path / "predictions.parquet")
    scores = ValidationScores.from_evaluation(tmp_path)
    assert scores.probability.tolist() == [0.2, 0.7] and scores.pneumonia.tolist() == [False, True]
