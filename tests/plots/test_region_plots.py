"""Plots of a detector: readable, the same each time, marked for phantoms, and the boxes are where they should be."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from cxr.plots.regions import (
    PREDICTED_BOX,
    REGION_PLOT_NAMES,
    TRUE_BOX,
    plot_free_response,
    plot_region_examples,
    write_region_plots,
)
from cxr.plots.style import PURPLE, Caption
from cxr.regions.evaluation import PHANTOM_NOTE, RegionEvaluation, RegionMethod
from cxr.regions.examples import choose_examples
from cxr.regions.matching import PREDICTION_COLUMNS
from support.simulated_boxes import PATIENTS_CARD, PHANTOM_CARD, annotated_images, detected_boxes, judged

CAPTION = Caption("pneumonia-regions", PHANTOM_CARD.name, "grouped split", phantom=True)


def originals(examples: pd.DataFrame) -> list[np.ndarray]:
    return [np.full((row.height, row.width), 90, np.uint8) for row in examples.itertuples()]


def draw(folder: Path, evaluation: RegionEvaluation, count: int = 8) -> dict[str, bytes]:
    examples = choose_examples(evaluation, count)
    files = write_region_plots(folder, evaluation, examples, originals(examples), CAPTION)
    return {path.stem: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def evaluation() -> RegionEvaluation:
    return judged(count=200)


@pytest.fixture(scope="module")
def figures(evaluation: RegionEvaluation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return draw(tmp_path_factory.mktemp("plots"), evaluation)


def pixels(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_every_figure_is_of_readable_size(figures: dict[str, bytes]) -> None:
    assert tuple(figures) == REGION_PLOT_NAMES
    for name, data in figures.items():
        assert min(pixels(data).shape[:2]) >= 850, name
        assert pixels(data).std() > 10, name


def test_the_same_evaluation_gives_the_same_bytes(
    evaluation: RegionEvaluation, figures: dict[str, bytes], tmp_path: Path
) -> None:
    assert draw(tmp_path, evaluation) == figures


def test_phantoms_are_marked_in_every_figure(figures: dict[str, bytes], tmp_path: Path) -> None:
    def badge(data: bytes) -> int:
        colour = [int(PURPLE[start : start + 2], 16) for start in (5, 3, 1)]
        return int((pixels(data)[:100] == colour).all(axis=2).sum())

    assert all(badge(data) > 1000 for data in figures.values())
    assert all(badge(data) == 0 for data in draw(tmp_path, judged(PATIENTS_CARD, 100)).values())


def test_phantoms_say_that_they_say_nothing_about_patients(evaluation: RegionEvaluation) -> None:
    texts = [text.get_text() for text in plot_free_response(evaluation, CAPTION).texts]
    assert PHANTOM_NOTE in texts
    texts = [text.get_text() for text in plot_free_response(judged(PATIENTS_CARD, 100), CAPTION).texts]
    assert PHANTOM_NOTE not in texts


def test_the_curve_names_the_methods_with_their_sensitivity(evaluation: RegionEvaluation) -> None:
    axes = plot_free_response(evaluation, CAPTION).axes[0]
    labels = axes.get_legend_handles_labels()[1]
    value = evaluation.report["test"]["methods"]["detector"]["all"]["sensitivity"]["value"]
    assert labels[0].startswith(f"Detector: {value:.3f} (")
    assert [label.partition(":")[0] for label in labels[1:]] == [
        "Grad-CAM boxes", "Prior boxes, with classifier", "Prior boxes"
    ]  # fmt: skip


def test_examples_show_the_opacities_and_the_boxes_that_count(evaluation: RegionEvaluation) -> None:
    examples = choose_examples(evaluation, 6)
    figure = plot_region_examples(evaluation, examples, originals(examples), CAPTION)
    counted = evaluation.predictions[
        evaluation.predictions["counts"] & (evaluation.predictions["method"] == "detector")
    ]
    total = 0
    for axes, path in zip(figure.axes, examples["path"], strict=False):
        rectangles = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        for (colour, _), table in ((TRUE_BOX, evaluation.boxes), (PREDICTED_BOX, counted)):
            drawn = [box.get_bbox().bounds for box in rectangles if box.get_edgecolor()[:3] == to_rgb(colour)]
            rows = table.loc[table["path"] == path, ["x", "y", "width", "height"]].to_numpy()
            np.testing.assert_allclose(np.reshape(drawn, (-1, 4)), rows)
            total += len(drawn)
    assert total > 6


def test_methods_without_boxes_and_no_images_are_drawn(tmp_path: Path) -> None:
    images, boxes = annotated_images(100)
    nothing = RegionMethod("Nothing", pd.DataFrame(columns=PREDICTION_COLUMNS))
    detector = RegionMethod("Detector", detected_boxes(images, boxes))
    evaluation = judged(count=100, detector=detector, nothing=nothing)
    examples = choose_examples(evaluation, 3)
    assert len(write_region_plots(tmp_path, evaluation, examples, None, CAPTION)) == 2
    single = judged(count=100, nothing=nothing)
    assert set(draw(tmp_path, single, 1)) == set(REGION_PLOT_NAMES)
