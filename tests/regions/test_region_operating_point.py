"""Threshold, box scale and heat level are those with the highest mean average precision on the given images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cxr.errors import DataError
from cxr.regions.average_precision import IOU_THRESHOLDS, image_average_precisions, mean_average_precision
from cxr.regions.matching import PREDICTION_COLUMNS, match_predictions
from cxr.regions.operating_point import HEAT_LEVEL, choose_region_operating_point, scale_boxes
from support.simulated_boxes import annotated_images, detected_boxes
from support.sweeps import exhaustive

SCALES = (0.7, 0.8, 0.9, 1.0, 1.1)


def tried(
    images: pd.DataFrame, boxes: pd.DataFrame, predictions: pd.DataFrame, scale: float, threshold: float
) -> float:
    resized = scale_boxes(images, predictions[predictions["score"] >= threshold], scale)
    matched = match_predictions(images["path"].tolist(), boxes, resized, IOU_THRESHOLDS)
    return float(mean_average_precision(image_average_precisions(matched, 0.0)))


@pytest.mark.parametrize("seed", [0, *exhaustive(1)])  # one set of images tries every scale and threshold
def test_nothing_that_can_be_tried_is_better(seed: int) -> None:
    images, boxes = annotated_images(40, seed)
    predictions = detected_boxes(images, boxes, scale=1.25, seed=seed)
    point = choose_region_operating_point(images, boxes, predictions, box_scales=SCALES)
    reached = tried(images, boxes, predictions, point.box_scale, point.threshold)
    assert point.mean_average_precision == pytest.approx(reached, abs=1e-9)
    thresholds = [*predictions["score"], 0.0, 1.1]
    best = max(tried(images, boxes, predictions, scale, cut) for scale in SCALES for cut in thresholds)
    assert reached == pytest.approx(best, abs=1e-9), f"{seed=}"


def test_boxes_that_are_too_large_are_shrunk_and_small_boxes_are_grown() -> None:
    images, boxes = annotated_images(60)
    exact = boxes.assign(score=0.9)
    for factor, expected in ((1 / 0.7, 0.7), (1.0, 1.0), (1 / 1.3, 1.3)):
        grown = scale_boxes(images, exact, factor)
        point = choose_region_operating_point(images, boxes, grown, box_scales=[0.7, 1.0, 1.3])
        assert point.box_scale == expected
        assert point.mean_average_precision > 0.99
        assert point.heat_level is None


def test_among_equal_scales_the_one_closest_to_1_is_chosen() -> None:
    images, boxes = annotated_images(60)
    exact = boxes.assign(score=0.9)
    # At 0.95 and at 1.05 every box still hits at all thresholds.
    for scales in ([0.95, 1.0, 1.05], [1.05, 1.0, 0.95], [0.93, 1.05]):
        point = choose_region_operating_point(images, boxes, exact, box_scales=scales)
        assert (point.box_scale, point.mean_average_precision) == (1.0 if 1.0 in scales else 1.05, 1.0)


def test_weak_boxes_in_normal_images_are_cut_off() -> None:
    images, boxes = annotated_images(60)
    normal = images[images["label"] == "NORMAL"]
    weak = pd.DataFrame({"path": normal["path"], "x": 10.0, "y": 10.0, "width": 90.0, "height": 90.0, "score": 0.3})
    both = pd.concat([boxes.assign(score=0.7), weak], ignore_index=True)
    point = choose_region_operating_point(images, boxes, both, box_scales=[1.0])
    assert point.threshold == pytest.approx(0.5)
    assert point.mean_average_precision == 1


def test_scaled_boxes_keep_their_centre_and_stay_inside() -> None:
    images = pd.DataFrame({"path": ["a.png"], "height": [100], "width": [50]})
    rows = [("a.png", 10, 20, 20, 40, 0.5), ("a.png", 40, 80, 10, 20, 0.4), ("a.png", 60, 0, 5, 5, 0.3)]
    predictions = pd.DataFrame(rows, columns=PREDICTION_COLUMNS)
    shrunk, grown = (scale_boxes(images, predictions, scale) for scale in (0.5, 1.5))
    assert shrunk[["x", "y", "width", "height"]].to_numpy()[0].tolist() == [15, 30, 10, 20]
    assert grown[["x", "y", "width", "height"]].to_numpy()[:2].tolist() == [[5, 10, 30, 60], [37.5, 75, 12.5, 25]]
    assert shrunk["width"][2] == 0, "a box outside of its image has no area"
    assert shrunk["score"].tolist() == [0.5, 0.4, 0.3]


def test_the_heat_level_is_chosen_too() -> None:
    images, boxes = annotated_images(60)
    levels = {
        0.3: scale_boxes(images, boxes, 1.7), 0.5: boxes, 0.7: scale_boxes(images, boxes, 0.5)
    }  # fmt: skip
    predictions = pd.concat([table.assign(score=0.8, **{HEAT_LEVEL: level}) for level, table in levels.items()])
    point = choose_region_operating_point(images, boxes, predictions, box_scales=[0.9, 1.0])
    assert (point.heat_level, point.box_scale) == (0.5, 1.0)
    resized = point.resize(images, predictions)
    assert HEAT_LEVEL not in resized
    assert len(resized) == len(boxes)


def test_without_predictions_nothing_counts() -> None:
    images, boxes = annotated_images(20)
    none = pd.DataFrame(columns=PREDICTION_COLUMNS)
    point = choose_region_operating_point(images, boxes, none, box_scales=[1.0])
    assert (point.threshold, point.mean_average_precision) == (1.0, 0.0)
    assert point.resize(images, none).empty
    hopeless = boxes.assign(x=0.0, y=0.0, width=1.0, height=1.0, score=0.99)
    assert choose_region_operating_point(images, boxes, hopeless, box_scales=[0.9]).mean_average_precision == 0


def test_images_without_opacities_cannot_choose() -> None:
    images, boxes = annotated_images(20)
    with pytest.raises(DataError, match="none in 20 images"):
        choose_region_operating_point(images, boxes.iloc[:0], boxes.assign(score=0.5), box_scales=[1.0])


def test_the_threshold_lies_between_two_scores() -> None:
    images, boxes = annotated_images(40)
    predictions = detected_boxes(images, boxes)
    point = choose_region_operating_point(images, boxes, predictions, box_scales=[1.0])
    assert np.abs(predictions["score"] - point.threshold).min() > 0
