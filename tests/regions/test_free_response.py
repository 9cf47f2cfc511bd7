"""Free-response ROC: worked out by hand, equal to counting, and the same under weights as under repeated images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cxr.regions.free_response import free_response_curve, sensitivity_at_false_positives
from cxr.regions.matching import BOX_COLUMNS, PREDICTION_COLUMNS, MatchedPredictions, match_predictions
from support.simulated_boxes import annotated_images, detected_boxes

PATHS = ["two.png", "single.png", "normal.png", "empty.png"]
BOXES = pd.DataFrame(
    [("two.png", 0, 0, 10, 10), ("two.png", 20, 0, 10, 10), ("single.png", 0, 0, 10, 10)], columns=BOX_COLUMNS
)
PREDICTIONS = pd.DataFrame(
    [
        ("two.png", 0, 0, 10, 10, 0.9),
        ("two.png", 0, 0, 10, 9, 0.8),  # a second box on the same opacity
        ("normal.png", 0, 0, 10, 10, 0.7),
        ("single.png", 0, 0, 10, 5, 0.6),  # IoU 0.5
        ("normal.png", 30, 0, 10, 10, 0.5),
        ("two.png", 20, 0, 10, 10, 0.5),  # the same score as a false positive: they come together
        ("single.png", 30, 30, 10, 10, 0.2),
    ],
    columns=PREDICTION_COLUMNS,
)
EVERY = {"all": np.ones(len(PATHS), dtype=bool)}


def example(iou_threshold: float = 0.4) -> MatchedPredictions:
    return match_predictions(PATHS, BOXES, PREDICTIONS, [iou_threshold])


def test_the_curve_of_an_example() -> None:
    curve = free_response_curve(example())
    assert curve["threshold"].tolist()[1:] == [0.9, 0.8, 0.7, 0.6, 0.5, 0.2]
    assert np.isnan(curve["threshold"][0])
    # Four images, the empty one included; three opacities.
    assert (4 * curve["false_positives_per_image"]).tolist() == [0, 0, 1, 2, 2, 3, 4]
    assert (3 * curve["sensitivity"]).round(9).tolist() == [0, 1, 1, 1, 2, 3, 3]


def test_a_stricter_overlap_turns_a_hit_into_a_false_positive() -> None:
    curve = free_response_curve(example(0.5))  # an IoU of 0.5 is not above 0.5
    assert (4 * curve["false_positives_per_image"]).tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert (3 * curve["sensitivity"]).round(9).tolist() == [0, 1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(("rate", "hits"), [(0, 1), (0.25, 1), (0.49, 1), (0.5, 2), (0.74, 2), (0.75, 3), (9, 3)])
def test_sensitivity_at_a_number_of_false_positives(rate: float, hits: int) -> None:
    sensitivity = sensitivity_at_false_positives(example(), [rate], np.ones((1, 4)), EVERY)
    assert sensitivity["all"][0, 0] == pytest.approx(hits / 3)


def test_a_stratum_counts_its_opacities_at_the_threshold_of_all_images() -> None:
    strata = {"two": np.array([True, False, False, False]), "normal": np.array([False, False, True, False])}
    sensitivity = sensitivity_at_false_positives(example(), [0.5, 0.75], np.ones((1, 4)), strata)
    assert sensitivity["two"][0].tolist() == [0.5, 1.0]
    assert np.isnan(sensitivity["normal"]).all()


def test_no_predictions_and_no_opacities() -> None:
    nothing = match_predictions(PATHS, BOXES, PREDICTIONS.iloc[:0], [0.4])
    assert free_response_curve(nothing)[["false_positives_per_image", "sensitivity"]].to_numpy().tolist() == [[0, 0]]
    assert sensitivity_at_false_positives(nothing, [0.5], np.ones((1, 4)), EVERY)["all"][0, 0] == 0
    normal = match_predictions(PATHS, BOXES.iloc[:0], PREDICTIONS, [0.4])
    assert free_response_curve(normal)["sensitivity"].isna().all()
    assert np.isnan(sensitivity_at_false_positives(normal, [0.5], np.ones((1, 4)), EVERY)["all"][0, 0])


@pytest.mark.parametrize("seed", range(3))
def test_weights_equal_repeated_images(seed: int) -> None:
    images, boxes = annotated_images(60, seed=seed)
    predictions = detected_boxes(images, boxes, seed=seed + 1)
    predictions["score"] = predictions["score"].round(1)  # with ties
    paths = images["path"].tolist()
    weight = np.random.default_rng(seed).integers(0, 4, len(paths))
    copies = [(path, f"{path}-{copy}") for path, times in zip(paths, weight, strict=True) for copy in range(times)]
    names = pd.DataFrame(copies, columns=["path", "copy"])
    repeated = [
        table.merge(names, on="path").drop(columns="path").rename(columns={"copy": "path"})
        for table in (boxes, predictions)
    ]
    rates = [0.1, 0.3, 0.5, 1.0]
    weighted = sensitivity_at_false_positives(
        match_predictions(paths, boxes, predictions, [0.4]), rates, weight[np.newaxis].astype(float),
        {"all": np.ones(len(paths), dtype=bool)},
    )["all"][0]  # fmt: skip
    expected = sensitivity_at_false_positives(
        match_predictions(names["copy"].tolist(), *repeated, [0.4]), rates, np.ones((1, len(names))),
        {"all": np.ones(len(names), dtype=bool)},
    )["all"][0]  # fmt: skip
    np.testing.assert_allclose(weighted, expected, atol=1e-12, err_msg=f"{seed=}")
    assert len(set(expected.tolist())) > 1, f"{seed=}: the example shows nothing"


def test_each_threshold_gives_the_same_as_leaving_out_the_boxes_below_it() -> None:
    images, boxes = annotated_images(60)
    predictions = detected_boxes(images, boxes, noise=0.25)
    paths = images["path"].tolist()
    curve = free_response_curve(match_predictions(paths, boxes, predictions, [0.4]))
    for position in range(5, len(curve), 7):
        point = curve.iloc[position]
        used = predictions[predictions["score"] >= point["threshold"]]
        last = free_response_curve(match_predictions(paths, boxes, used, [0.4])).iloc[-1]
        assert last["sensitivity"] == point["sensitivity"]
        assert last["false_positives_per_image"] == point["false_positives_per_image"]
