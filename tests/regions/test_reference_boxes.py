"""Reference boxes: the mean box of each side, and boxes around the heat of a real network."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cxr.errors import DataError
from cxr.inference.predictor import Predictor
from cxr.regions.matching import BOX_COLUMNS, PREDICTION_COLUMNS
from cxr.regions.operating_point import HEAT_LEVEL
from cxr.regions.reference_boxes import PriorBoxes, heat_boxes, predict_heat_boxes
from support.model_folders import RECIPE, make_metadata
from support.simulated_boxes import annotated_images

IMAGES = pd.DataFrame({"path": ["a.png", "b.png", "c.png"], "height": [100, 200, 100], "width": [100, 100, 400]})
BOXES = pd.DataFrame(
    [
        ("a.png", 10, 20, 20, 40),  # left: 0.10, 0.20, 0.20, 0.40
        ("b.png", 20, 80, 30, 40),  # left: 0.20, 0.40, 0.30, 0.20
        ("b.png", 60, 20, 20, 60),  # right: 0.60, 0.10, 0.20, 0.30
    ],
    columns=BOX_COLUMNS,
)


def test_prior_boxes_are_the_mean_of_each_side_in_shares_of_the_image() -> None:
    prior = PriorBoxes.fit(IMAGES, BOXES)
    np.testing.assert_allclose(prior.boxes, [[0.15, 0.3, 0.25, 0.3], [0.6, 0.1, 0.2, 0.3]])
    assert prior.frequency.tolist() == [1.0, 0.5]  # of the two images with opacities


def test_prior_boxes_follow_the_size_of_the_image() -> None:
    table = PriorBoxes.fit(IMAGES, BOXES).predict(IMAGES)
    assert list(table) == PREDICTION_COLUMNS
    of_c = table[table["path"] == "c.png"].drop(columns="path").to_numpy()
    np.testing.assert_allclose(of_c, [[60, 30, 100, 30, 1.0], [240, 10, 80, 30, 0.5]])


def test_prior_boxes_take_the_probability_of_a_classifier() -> None:
    table = PriorBoxes.fit(IMAGES, BOXES).predict(IMAGES, {"a.png": 0.8, "b.png": 0.1, "c.png": 0.5})
    assert table[table["path"] == "a.png"]["score"].tolist() == pytest.approx([0.8, 0.4])
    assert table[table["path"] == "b.png"]["score"].tolist() == pytest.approx([0.1, 0.05])


def test_a_side_without_opacities_gets_no_box_and_boxes_of_other_images_do_not_count() -> None:
    only_left = PriorBoxes.fit(IMAGES[:1], BOXES)
    assert only_left.boxes.tolist() == [[0.1, 0.2, 0.2, 0.4]]
    with pytest.raises(DataError, match="none in 1 images"):
        PriorBoxes.fit(IMAGES[2:], BOXES)


def test_heat_gets_a_box_around_each_part() -> None:
    heat = np.zeros((100, 120), np.float32)
    heat[10:30, 20:50] = 0.6
    heat[15:20, 30:40] = 1.0
    heat[60:90, 80:100] = 0.4
    heat[50, 10] = 1.0  # too small for a box
    table = heat_boxes(heat, [0.3, 0.5, 0.9])
    rows = {
        level: sorted(part.drop(columns=HEAT_LEVEL).round(6).to_numpy().tolist())
        for level, part in table.groupby(HEAT_LEVEL)
    }
    assert rows == {
        0.3: [[20, 10, 30, 20, 1.0], [80, 60, 20, 30, 0.4]],
        0.5: [[20, 10, 30, 20, 1.0]],
        0.9: [[30, 15, 10, 5, 1.0]],
    }
    assert heat_boxes(np.zeros_like(heat), [0.3]).empty


def quadrant_predictor() -> Predictor:
    """A network that sees brightness in the lower right quarter of the image only."""
    import keras

    size = RECIPE.size
    kernel = np.zeros((size, size, 1))
    kernel[size // 2 :, size // 2 :] = 0.1
    image = keras.Input((size, size, 1))
    x = keras.layers.Conv2D(1, 3, padding="same", activation="relu")(image)
    model = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(x)))
    model.set_weights([np.full((3, 3, 1, 1), 1 / 9), np.zeros(1), kernel.reshape(-1, 1), np.zeros(1)])
    metadata = make_metadata(recipe=RECIPE.to_dict(), input_shape=RECIPE.input_shape)
    return Predictor(model, metadata.with_calibration(1.0, 0.5, "rule"))


def test_boxes_of_a_network_lie_where_it_looks() -> None:
    def read_image(path: str) -> NDArray[np.uint8]:
        shape = (80, 120) if path == "wide.png" else (150, 100)
        return np.full(shape, 0 if path == "black.png" else 180, np.uint8)

    probability = {"wide.png": 0.9, "tall.png": 0.5, "black.png": 0.2}
    table = predict_heat_boxes(quadrant_predictor(), read_image, probability, [0.5])
    assert list(table) == [*PREDICTION_COLUMNS, HEAT_LEVEL]
    assert table["path"].tolist() == ["wide.png", "tall.png"], "a black image has no evidence, so no box"
    assert table["score"].tolist() == pytest.approx([0.9, 0.5])
    for (_, x, y, width, height, *_), (rows, columns) in zip(
        table.itertuples(index=False), ((80, 120), (150, 100)), strict=True
    ):
        np.testing.assert_allclose([x, y], [columns / 2, rows / 2], atol=0.1 * columns)
        np.testing.assert_allclose([x + width, y + height], [columns, rows], atol=0.1 * columns)
    assert predict_heat_boxes(quadrant_predictor(), read_image, {"black.png": 0.2}, [0.5]).empty


def test_prior_boxes_of_simulated_images_lie_on_both_sides() -> None:
    images, boxes = annotated_images(100)
    prior = PriorBoxes.fit(images, boxes)
    assert prior.boxes.shape == (2, 4)
    centres = prior.boxes[:, 0] + prior.boxes[:, 2] / 2
    assert centres[0] < 0.5 < centres[1]
