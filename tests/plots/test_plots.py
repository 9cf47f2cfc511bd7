"""Figures are written for every evaluation, also odd ones, the same bytes each time, and phantoms say so."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.evaluation.evaluate import Evaluation, evaluate
from cxr.evaluation.mistakes import worst_mistakes
from cxr.plots import figures as plot_figures
from cxr.plots.evaluation import NAMES, write_plots
from cxr.plots.style import PURPLE, Caption, save
from support.judged_models import predictions

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
    folder: Path, found: Evaluation, caption: Caption = CAPTION, history: pd.DataFrame | None = HISTORY
) -> dict[str, bytes]:
    sheet = worst_mistakes(found.predictions, found.point.threshold)
    images = [np.full((40 + 3 * number, 50), 90, np.uint8) for number in range(len(sheet))]
    return {path.stem: path.read_bytes() for path in write_plots(folder, found, sheet, images, caption, history, 2)}


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluate(predictions(), resamples=100)


@pytest.fixture(scope="module")
def written(found: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return draw(tmp_path_factory.mktemp("plots"), found)


def pixels(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_every_figure_is_a_picture_of_readable_size(written: dict[str, bytes]) -> None:
    assert tuple(written) == NAMES
    for name, data in written.items():
        height, width, _ = pixels(data).shape
        assert min(height, width) >= 850, name
        assert pixels(data).std() > 10, name


def test_the_same_evaluation_gives_the_same_bytes(found: Evaluation, written: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"
    save(plot_figures.confusion(found.report["test"], found.point.threshold, CAPTION), path)
    assert path.read_bytes() == written["confusion"]


def test_phantoms_are_marked_in_every_figure(found: Evaluation, written: dict[str, bytes], tmp_path: Path) -> None:
    def badge(data: bytes) -> int:
        colour = [int(PURPLE[start : start + 2], 16) for start in (5, 3, 1)]
        return int((pixels(data)[:100] == colour).all(axis=2).sum())

    marked = draw(tmp_path, found, Caption("three_block", "phantom", "grouped split", True))
    assert all(badge(data) == 0 for data in written.values())
    assert all(badge(data) > 1000 for data in marked.values())


def test_without_history_and_without_mistakes_the_rest_is_drawn(tmp_path: Path) -> None:
    table = predictions(80)
    sick = table["label"] == "PNEUMONIA"
    table["probability_raw"] = np.where(sick, 0.9, 0.1) + np.linspace(0, 0.05, len(table))
    written = draw(tmp_path, evaluate(table, resamples=100), history=None)
    assert tuple(written) == tuple(name for name in NAMES if name != "training")


def test_a_test_set_of_one_class_is_drawn_too(tmp_path: Path) -> None:
    table = predictions(80)
    table = table[(table["split"] == "validation") | (table["label"] == "NORMAL")]
    assert len(draw(tmp_path, evaluate(table, resamples=100))) == len(NAMES)
