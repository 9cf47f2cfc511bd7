"""Sensitivity and specificity of a threshold are those of the validation films alone."""

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
def test_a_film_at_the_threshold_is_called_pneumonia(threshold: float, sensitivity: float, specificity: float) -> None:
    assert SCORES.sensitivity(threshold) == pytest.approx(sensitivity)
    assert SCORES.specificity(threshold) == pytest.approx(specificity)


def test_a_class_without_films_has_no_figure() -> None:
    only_ill = ValidationScores(np.array([0.4]), np.array([True]))
    assert math.isnan(only_ill.specificity(0.5)) and only_ill.sensitivity(0.5) == 0


def test_scores_come_back_as_saved_and_damage_is_told(tmp_path: Path) -> None:
    assert ValidationScores.load(tmp_path) is None
    SCORES.save(tmp_path)
    again = ValidationScores.load(tmp_path)
    assert again is not None
    np.testing.assert_array_equal(again.probability, SCORES.probability)
    np.testing.assert_array_equal(again.pneumonia, SCORES.pneumonia)
    (tmp_path / VALIDATION_SCORES_FILE).write_bytes(b"PK")
    with pytest.raises(
        DataError, match=f"probability, pneumonia, received .*{VALIDATION_SCORES_FILE}.*register the model again"
    ):
        ValidationScores.load(tmp_path)


def test_only_validation_rows_of_an_evaluation_count(tmp_path: Path) -> None:
    rows = [("validation", "NORMAL", 0.2), ("test", "NORMAL", 0.9), ("validation", "PNEUMONIA", 0.7)]
    pd.DataFrame(rows, columns=["split", "label", "probability"]).to_parquet(tmp_path / "predictions.parquet")
    found = ValidationScores.of_evaluation(tmp_path)
    assert found.probability.tolist() == [0.2, 0.7] and found.pneumonia.tolist() == [False, True]
