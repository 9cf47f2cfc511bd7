"""The folder of an evaluation with all its plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.split_table import TEST
from cxr.evaluation.evaluate import Evaluation
from cxr.evaluation.files import write_evaluation
from cxr.evaluation.mistakes import images_to_show, worst_mistakes
from cxr.images.prepared import PreparedImages
from cxr.images.raw_images import RawImages
from cxr.models.metadata import ModelMetadata
from cxr.models.stored_files import record_digests
from cxr.plots.classification import plot_calibration, plot_confusion, plot_precision_recall, plot_roc
from cxr.plots.scores import plot_mistakes, plot_scores
from cxr.plots.stress import plot_stress
from cxr.plots.style import Caption, save_png
from cxr.plots.training import plot_training

PLOT_NAMES = ("roc", "precision_recall", "confusion", "calibration", "scores", "stress", "training", "mistakes")
"""File names without suffix. There is no stress without a stress test, no training without a history, and there are no
mistakes without images."""


def write_evaluation_folder(
    folder: Path,
    evaluation: Evaluation,
    metadata: ModelMetadata,
    *,
    prepared: PreparedImages | None,
    raw: RawImages,
    mistakes: int,
    history: pd.DataFrame | None = None,
) -> None:
    """Write everything about an evaluation: metrics, predictions, curves, stress test, calibrated metadata and plots.

    The digests of all these files come last.

    Args:
        folder: where to write; created if it does not exist.
        evaluation: the evaluation.
        metadata: metadata of the model, without calibration.
        prepared: prepared images, shown where a raw image is missing; None if there are none.
        raw: the raw images; they may be missing.
        mistakes: maximum of images of each kind of mistake on the sheet of mistakes.
        history: metrics per epoch of training; None if unknown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_evaluation(folder, evaluation, history)
    evaluation.calibrate(metadata).write(folder)
    sheet = worst_mistakes(evaluation.predictions, evaluation.operating_point.threshold, mistakes)
    write_evaluation_plots(
        folder / "plots", evaluation, sheet, images_to_show(sheet["path"].tolist(), prepared, raw),
        Caption.of(metadata), history, metadata.training.get("best_epoch"),
    )  # fmt: skip
    record_digests(folder)


def write_evaluation_plots(
    folder: Path,
    evaluation: Evaluation,
    sheet: pd.DataFrame,
    images: Sequence[NDArray[np.uint8]] | None,
    caption: Caption,
    history: pd.DataFrame | None = None,
    best_epoch: int | None = None,
) -> list[Path]:
    """Plot an evaluation and write the figures as PNG.

    Args:
        folder: where to write; created if it does not exist.
        evaluation: the evaluation.
        sheet: the result of :func:`cxr.evaluation.mistakes.worst_mistakes`.
        images: images of the sheet's rows, uint8 ``(height, width)`` each; None if they are not available.
        caption: what the figures are about.
        history: one row per epoch of the training; None if unknown.
        best_epoch: epoch whose weights were kept; None if unknown.

    Returns:
        The files, in the order of :data:`PLOT_NAMES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    test, threshold, curves = evaluation.report[TEST], evaluation.operating_point.threshold, evaluation.curves
    predictions = evaluation.predictions
    figures = {
        "roc": plot_roc(curves["roc"], curves["roc_band"], test, threshold, caption),
        "precision_recall": plot_precision_recall(curves["precision_recall"], test, threshold, caption),
        "confusion": plot_confusion(test, threshold, caption),
        "calibration": plot_calibration(curves["calibration"], predictions, test, evaluation.temperature, caption),
        "scores": plot_scores(predictions, test, threshold, caption),
    }
    if evaluation.stress is not None:
        figures["stress"] = plot_stress(evaluation.stress[TEST], threshold, caption)
    if images is not None:
        figures["mistakes"] = plot_mistakes(sheet, images, test, caption)
    if history is not None and len(history):
        figures["training"] = plot_training(history, best_epoch, caption)
    written = []
    for name in PLOT_NAMES:
        if name in figures:
            written.append(folder / f"{name}.png")
            save_png(figures[name], written[-1])
    return written
