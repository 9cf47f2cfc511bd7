"""All figures of one evaluation, drawn into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.evaluation.evaluate import TEST, Evaluation
from cxr.plots import figures as plot_figures
from cxr.plots import images as plot_pictures
from cxr.plots.style import Caption, save

NAMES = ("roc", "precision_recall", "confusion", "calibration", "scores", "training", "mistakes")
"""File names without suffix; training is left out where there is no history, mistakes without images."""


def write_plots(
    folder: Path,
    evaluation: Evaluation,
    sheet: pd.DataFrame,
    images: Sequence[NDArray[np.uint8]] | None,
    caption: Caption,
    history: pd.DataFrame | None = None,
    best_epoch: int | None = None,
) -> list[Path]:
    """Draw and write the figures as PNG.

    Args:
        folder: where to write; made if it is not there.
        evaluation: what to draw.
        sheet: what :func:`cxr.evaluation.mistakes.worst_mistakes` gives.
        images: grey pictures of the sheet's rows, in the same order; None if they are not at hand.
        caption: what the figures are about.
        history: figures per epoch of training; None if unknown.
        best_epoch: epoch whose weights were kept; None if unknown.

    Returns:
        The files, in the order of :data:`NAMES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    test, threshold, curves = evaluation.report[TEST], evaluation.point.threshold, evaluation.curves
    predictions = evaluation.predictions
    figures = {
        "roc": plot_figures.roc(curves["roc"], curves["roc_band"], test, threshold, caption),
        "precision_recall": plot_figures.precision_recall(curves["precision_recall"], test, threshold, caption),
        "confusion": plot_figures.confusion(test, threshold, caption),
        "calibration": plot_figures.calibration(
            curves["calibration"], predictions, test, evaluation.temperature, caption
        ),
        "scores": plot_pictures.scores(predictions, test, threshold, caption),
    }
    if images is not None:
        figures["mistakes"] = plot_pictures.mistakes(sheet, images, test, caption)
    if history is not None and len(history):
        figures["training"] = plot_pictures.training(history, best_epoch, caption)
    written = []
    for name in NAMES:
        if name in figures:
            written.append(folder / f"{name}.png")
            save(figures[name], written[-1])
    return written
