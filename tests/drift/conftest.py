"""A version that windows are compared with: statistics of its training images and its scores on validation."""

from __future__ import annotations

import numpy as np
import pytest

from cxr.evaluation.validation_scores import ValidationScores
from cxr.inference.reference.reference import Reference
from support.logged_predictions import make_features, make_reference, make_results


@pytest.fixture(scope="package")
def training() -> Reference:
    return make_reference(make_features(400, 0))


@pytest.fixture(scope="package")
def validation() -> ValidationScores:
    results = make_results(make_features(400, 99), 99)
    probability = np.array([result.prediction.probability for result in results if result.prediction])
    return ValidationScores(probability, np.random.default_rng(99).random(400) < probability)
