"""Plots of an evaluation: readable, reproducible to the byte, marked for phantoms, and drawn for unusual test sets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.evaluation.evaluate import Evaluation
from cxr.evaluation.mistakes import worst_mistakes
from cxr.evaluation.stress_test import with_stress_test
from cxr.plots.classification import ENLARGED_FROM, plot_confusion, plot_roc
from cxr.plots.evaluation import PLOT_NAMES, write_evaluation_plots
from cxr.plots.style import PURPLE, Caption, save_png
from cxr.plots.training import plot_training
from support.simulated_predictions import changed_predictions, evaluated, predictions

CAPTION = Caption("three_block", "kermany", "grouped split", False)
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "loss": [0.7, 0.5, 0.4],
        "val_loss": [0.6, 0.5, 0.55],
        "val_auroc": [np.nan, 0.8, 0.9],
    }
)


def draw(
    folder: Path, evaluation: Evaluation, caption: Caption = CAPTION, history: pd.DataFrame | None = HISTORY
) -> dict[str, bytes]:
    sheet = worst_mistakes(evaluation.predictions, evaluation.operating_point.threshold, 6)
    changed = changed_predictions(evaluation.predictions, {"blur_0.015": 3.0})
    evaluation = with_stress_test(evaluation, changed, resamples=100, seed=0)
    images = [np.full((40 + 3 * number, 50), 90, np.uint8) for number in range(len(sheet))]
    return {
        path.stem: path.read_bytes()
        for path in write_evaluation_plots(folder, evaluation, sheet, images, caption, history, 2)
    }


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluated(predictions(), resamples=100)


@pytest.fixture(scope="module")
def figures(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return draw(tmp_path_factory.mktemp("plots"), evaluation)


def pixels(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_every_figure_is_of_readable_size(figures: dict[str, bytes]) -> None:
    assert tuple(figures) == PLOT_NAMES
    for name, data in figures.items():
        height, width, _ = pixels(data).shape
        assert min(height, width) >= 850, name
        assert pixels(data).std() > 10, name


def test_the_same_evaluation_gives_the_same_bytes(
    evaluation: Evaluation, figures: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "confusion.png"
    save_png(plot_confusion(evaluation.report["test"], evaluation.operating_point.threshold, CAPTION), path)
    assert path.read_bytes() == figures["confusion"]


def test_nothing_covers_the_roc_curve_of_a_poor_model_and_the_corner_of_a_good_one_is_enlarged(
    evaluation: Evaluation,
) -> None:
    poor = predictions()
    poor["probability_raw"] = np.random.default_rng(0).uniform(0.3, 0.7, len(poor))
    for shown, is_good in ((evaluation, True), (evaluated(poor, resamples=100), False)):
        auroc = shown.report["test"]["at_threshold"]["auroc"]["value"]
        assert (auroc > ENLARGED_FROM) == is_good, auroc
        curves = shown.curves
        figure = plot_roc(curves["roc"], curves["roc_band"], shown.report["test"], 0.5, CAPTION)
        (axes,) = figure.axes
        assert len(axes.child_axes) == is_good
        assert (axes.get_legend() is not None, len(figure.legends)) == (is_good, not is_good)


def test_phantoms_are_marked_in_every_figure(evaluation: Evaluation, figures: dict[str, bytes], tmp_path: Path) -> None:
    def badge(data: bytes) -> int:
        colour = [int(PURPLE[start : start + 2], 16) for start in (5, 3, 1)]
        return int((pixels(data)[:100] == colour).all(axis=2).sum())

    marked = draw(tmp_path, evaluation, Caption("three_block", "phantom", "grouped split", True))
    assert all(badge(data) == 0 for data in figures.values())
    assert all(badge(data) > 1000 for data in marked.values())


def test_all_other_figures_are_drawn_without_history_and_mistakes(tmp_path: Path) -> None:
    table = predictions(80)
    is_pneumonia = table["label"] == "PNEUMONIA"
    table["probability_raw"] = np.where(is_pneumonia, 0.9, 0.1) + np.linspace(0, 0.05, len(table))
    figures = draw(tmp_path, evaluated(table, resamples=100), history=None)
    assert tuple(figures) == tuple(name for name in PLOT_NAMES if name != "training")


def test_a_test_set_of_one_class_is_drawn(tmp_path: Path) -> None:
    table = predictions(80)
    table = table[(table["split"] == "validation") | (table["label"] == "NORMAL")]
    assert len(draw(tmp_path, evaluated(table, resamples=100))) == len(PLOT_NAMES)


@pytest.mark.parametrize("losses", [np.linspace(0.77, 0.62, 12), np.geomspace(1.5, 0.01, 12)], ids=["flat", "falling"])
def test_the_curves_of_a_loss_stay_in_their_panel_and_clear_of_the_legend(losses: np.ndarray) -> None:
    history = pd.DataFrame({"epoch": np.arange(1, 13), "loss": losses, "val_loss": losses * 0.98})
    figure = plot_training(history, 11, Caption("shallow", "phantom", "grouped", phantom=True))
    figure.canvas.draw()
    axes = figure.axes[0]
    legend = axes.get_legend()
    assert legend is not None
    frame = legend.get_window_extent()
    for line in axes.lines[:2]:
        points = axes.transData.transform(line.get_xydata())
        assert axes.bbox.padded(-3).contains(*points.T[:, points[:, 1].argmax()])
        assert not any(frame.contains(x, y) for x, y in points)
