"""The challenge's mean average precision: examples worked out by hand, and an implementation that counts pixels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from cxr.errors import DataError
from cxr.regions.average_precision import (
    IOU_THRESHOLDS,
    image_average_precisions,
    mean_average_precision,
    mean_average_precisions,
)
from cxr.regions.matching import BOX_COLUMNS, PREDICTION_COLUMNS, MatchedPredictions, match_predictions

Box = tuple[int, int, int, int]
ScoredBox = tuple[int, int, int, int, float]
Images = list[tuple[list[Box], list[ScoredBox]]]

SQUARE: Box = (0, 0, 10, 10)
FAR: Box = (50, 50, 10, 10)


def matched(images: Images) -> MatchedPredictions:
    boxes = [(f"{number}.png", *box) for number, (opacities, _) in enumerate(images) for box in opacities]
    predictions = [(f"{number}.png", *box) for number, (_, boxes_of) in enumerate(images) for box in boxes_of]
    return match_predictions(
        [f"{number}.png" for number in range(len(images))],
        pd.DataFrame(boxes, columns=BOX_COLUMNS),
        pd.DataFrame(predictions, columns=PREDICTION_COLUMNS),
        IOU_THRESHOLDS,
    )


def average_precision(opacities: list[Box], predictions: list[ScoredBox], threshold: float = 0.0) -> float:
    return float(image_average_precisions(matched([(opacities, predictions)]), threshold)[0])


@pytest.mark.parametrize(
    ("opacities", "predictions", "expected"),
    [
        ([SQUARE], [(*SQUARE, 0.9)], 1),
        ([SQUARE], [], 0),
        ([SQUARE], [(*FAR, 0.9)], 0),
        # One hit, one false positive, one opacity that is missed: 1 / (1 + 1 + 1).
        ([SQUARE, FAR], [(*SQUARE, 0.9), (20, 20, 10, 10, 0.8)], 1 / 3),
        # A second box on the same opacity is a false positive: 1 / (1 + 1 + 0).
        ([SQUARE], [(*SQUARE, 0.9), (*SQUARE, 0.8)], 1 / 2),
        # IoU 60 / 100 is above 0.40 .. 0.55, and not above 0.60: 4 of 8 thresholds.
        ([SQUARE], [(0, 0, 10, 6, 0.9)], 4 / 8),
        # 75 / 100 is not above 0.75, 40 / 100 not above 0.40.
        ([(0, 0, 10, 10)], [(0, 0, 10, 7, 0.9)], 6 / 8),
        ([(0, 0, 20, 5)], [(0, 0, 15, 5, 0.9)], 7 / 8),
        ([(0, 0, 20, 5)], [(0, 0, 8, 5, 0.9)], 0),
        # No opacity: any number of predictions gives 0.
        ([], [(*SQUARE, 0.1)], 0),
        ([], [(*SQUARE, 0.1), (*FAR, 0.2)], 0),
    ],
)
def test_worked_examples_of_one_image(opacities: list[Box], predictions: list[ScoredBox], expected: float) -> None:
    assert average_precision(opacities, predictions) == pytest.approx(expected, abs=1e-12)


def test_boxes_are_gone_through_by_falling_confidence() -> None:
    # The first box overlaps both opacities (81.8 % and 53.8 %), the second one only the first opacity (80 %). If the
    # first box comes first, it takes that opacity, and nothing is left for the second one: 1 / 3 at all thresholds.
    # The other way round both hit, at the thresholds 0.40, 0.45 and 0.50.
    opacities: list[Box] = [(0, 0, 10, 10), (4, 0, 10, 10)]
    both, single = (1, 0, 10, 10), (0, 0, 8, 10)
    assert average_precision(opacities, [(*both, 0.9), (*single, 0.8)]) == pytest.approx(1 / 3)
    assert average_precision(opacities, [(*both, 0.8), (*single, 0.9)]) == pytest.approx((3 * 1 + 5 / 3) / 8)
    assert average_precision(opacities, [(*single, 0.9), (*both, 0.8)]) == pytest.approx((3 * 1 + 5 / 3) / 8)


def test_equal_confidences_keep_the_order_of_the_table() -> None:
    opacities: list[Box] = [(0, 0, 10, 10), (4, 0, 10, 10)]
    both, single = (1, 0, 10, 10, 0.5), (0, 0, 8, 10, 0.5)
    assert average_precision(opacities, [both, single]) == pytest.approx(1 / 3)
    assert average_precision(opacities, [single, both]) == pytest.approx((3 * 1 + 5 / 3) / 8)


def test_boxes_below_the_threshold_do_not_count() -> None:
    predictions = [(*SQUARE, 0.9), (*FAR, 0.4)]
    assert average_precision([SQUARE], predictions, 0.4) == 1 / 2
    assert average_precision([SQUARE], predictions, 0.41) == 1


def test_an_image_with_neither_is_left_out_of_the_mean() -> None:
    images: Images = [
        ([SQUARE], [(*SQUARE, 0.9)]),  # 1
        ([SQUARE], [(0, 0, 10, 6, 0.9)]),  # 1 / 2
        ([], [(*SQUARE, 0.3)]),  # 0
        ([], []),  # left out
    ]
    per_image = image_average_precisions(matched(images), 0.0)
    assert np.isnan(per_image[3])
    assert mean_average_precision(per_image) == pytest.approx(0.5)
    # Without the weak box the third image is left out, too.
    assert mean_average_precision(image_average_precisions(matched(images), 0.5)) == pytest.approx(0.75)
    assert np.isnan(mean_average_precision(image_average_precisions(matched([([], [])]), 0.0)))


def test_a_weight_counts_an_image_several_times() -> None:
    images = random_images(np.random.default_rng(5), 30)
    weight = np.random.default_rng(6).integers(0, 4, 30)
    repeated = [image for image, times in zip(images, weight, strict=True) for _ in range(times)]
    per_image = image_average_precisions(matched(images), 0.3)
    expected = mean_average_precision(image_average_precisions(matched(repeated), 0.3))
    assert mean_average_precision(per_image, weight[np.newaxis])[0] == pytest.approx(float(expected))


def random_images(generator: np.random.Generator, count: int) -> Images:
    """Small integer boxes that often overlap, near misses, empty images, and scores with ties."""
    images: Images = []
    for _ in range(count):
        opacities = [(*map(int, generator.integers(0, 8, 2)), *map(int, generator.integers(1, 10, 2)))
                     for _ in range(generator.integers(0, 4))]  # fmt: skip
        predictions = []
        for number in range(generator.integers(0, 6)):
            if opacities and generator.uniform() < 0.6:
                x, y, width, height = np.array(opacities[number % len(opacities)]) + generator.integers(-1, 2, 4)
            else:
                x, y, width, height = *generator.integers(0, 8, 2), *generator.integers(1, 10, 2)
            score = round(float(generator.uniform()), 1)
            predictions.append((int(max(x, 0)), int(max(y, 0)), int(max(width, 1)), int(max(height, 1)), score))
        images.append((opacities, predictions))
    return images


def painted(box: Box) -> set[tuple[int, int]]:
    x, y, width, height = box
    return {(column, row) for column in range(x, x + width) for row in range(y, y + height)}


def by_counting_pixels(images: Images, threshold: float) -> float:
    """The challenge's text step by step: sets of pixels, whole numbers for the comparison, lists that get shorter."""
    scores = []
    for opacities, predictions in images:
        used = sorted((box for box in predictions if box[4] >= threshold), key=lambda box: box[4], reverse=True)
        if not opacities and not used:
            continue
        precisions = []
        for percent in range(40, 80, 5):
            remaining = [painted(box) for box in opacities]
            true_positives = false_positives = 0
            for box in used:
                pixels = painted(box[:4])
                overlaps = [(len(pixels & other) / len(pixels | other), pixels, other) for other in remaining]
                fitting = [overlap for overlap in overlaps
                           if 100 * len(overlap[1] & overlap[2]) > percent * len(overlap[1] | overlap[2])]  # fmt: skip
                if fitting:
                    remaining.remove(max(fitting, key=lambda overlap: overlap[0])[2])
                    true_positives += 1
                else:
                    false_positives += 1
            precisions.append(true_positives / (true_positives + false_positives + len(remaining)))
        scores.append(math.fsum(precisions) / len(precisions))
    return math.fsum(scores) / len(scores) if scores else math.nan


@pytest.mark.parametrize("seed", range(8))
def test_it_equals_an_implementation_that_counts_pixels(seed: int) -> None:
    images = random_images(np.random.default_rng(seed), 40)
    predictions = matched(images)
    thresholds = [0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.5]
    expected = [by_counting_pixels(images, threshold) for threshold in thresholds]
    assert min(expected) < max(expected), f"{seed=}: the example shows nothing"
    single = [float(mean_average_precision(image_average_precisions(predictions, each))) for each in thresholds]
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-12, err_msg=f"{seed=}")
    swept = mean_average_precisions(predictions, thresholds)
    np.testing.assert_allclose(swept, expected, rtol=0, atol=1e-12, err_msg=f"{seed=}")


def test_sweeping_without_any_prediction_or_opacity() -> None:
    assert mean_average_precisions(matched([([SQUARE], [])]), [0.5]) == 0
    assert np.isnan(mean_average_precisions(matched([([], [])]), [0.5])).all()


def test_wrong_predictions_are_named() -> None:
    for score, x in ((1.2, 0.0), (np.nan, 0.0), (0.5, np.inf)):
        table = pd.DataFrame([("a.png", x, 0.0, 1.0, 1.0, score)], columns=PREDICTION_COLUMNS)
        with pytest.raises(DataError, match=r"1 images: a\.png"):
            match_predictions(["a.png"], pd.DataFrame(columns=BOX_COLUMNS), table, IOU_THRESHOLDS)
