"""The report of a comparison: drift.json, and a page with plots that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from cxr.data.exploration.thumbnails import Thumbnail, make_thumbnail
from cxr.drift import plots
from cxr.drift.window_comparison import EMBEDDING, IMAGES, PREDICTIONS, PROBABILITY, WindowComparison
from cxr.drift.window_rows import embedding_scale, is_of_version
from cxr.evaluation.validation_scores import ValidationScores
from cxr.files import DRIFT_FILE, write_json
from cxr.inference.reference.reference import Reference
from cxr.models.metadata import ModelMetadata
from cxr.plots.style import Caption, png_data_uri

REPORT_PAGE = "report.html"
MAX_EXAMPLES = 8
"""Largest number of example images in a report."""
GROUP_TITLES = {IMAGES: "images", PREDICTIONS: "predictions"}


@dataclass(frozen=True)
class ReportContext:
    """The version and the window that were compared.

    Attributes:
        version: number of the version; empty for a model from a folder.
        alias: alias by which the version was found; empty if by none.
        metadata: the model's metadata.
        reference: statistics of its training images; None if it has none.
        validation: its probabilities on validation; None if it has none.
        since: start of the window, UTC.
        until: end of the window, UTC, exclusive.
        damaged: number of damaged lines in the log.
    """

    version: str
    alias: str
    metadata: ModelMetadata
    reference: Reference | None
    validation: ValidationScores | None
    since: datetime
    until: datetime
    damaged: int

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {
            "version": self.version or None,
            "alias": self.alias or None,
            "model": self.metadata.model,
            "dataset": {"name": self.metadata.dataset["name"], "kind": self.metadata.dataset_kind},
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "damaged_lines": self.damaged,
        }


def write_report(
    folder: Path,
    comparison: WindowComparison,
    rows: pd.DataFrame,
    context: ReportContext,
    *,
    image_path: Callable[[str], Path | None] = lambda _: None,
    entries: dict[str, Any] | None = None,
) -> None:
    """Write the page, and drift.json for programs.

    Args:
        folder: where to write; must exist.
        comparison: the comparison.
        rows: rows of the window.
        context: the version and the window that were compared.
        image_path: from the id of a row to the stored image, None if it was not stored.
        entries: further entries of drift.json.
    """
    write_json(folder / DRIFT_FILE, {**context.to_dict(), **comparison.to_dict(), **(entries or {})})
    environment = Environment(
        loader=PackageLoader("cxr.drift"), autoescape=select_autoescape(["html"]), trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template(REPORT_PAGE).render(
        comparison=comparison,
        context=context,
        group_titles=GROUP_TITLES,
        plots=_draw_plots(comparison, rows, context),
        examples=_examples(rows, context.reference, image_path),
    )
    (folder / REPORT_PAGE).write_text(page, encoding="utf-8")


def _draw_plots(comparison: WindowComparison, rows: pd.DataFrame, context: ReportContext) -> list[tuple[str, str]]:
    """Alternative text and data URI of each plot."""
    metadata, reference, validation = context.metadata, context.reference, context.validation
    caption = Caption(
        f"version {context.version}, {metadata.model}" if context.version else metadata.model,
        metadata.dataset["name"],
        f"{context.since:%d %b} to {context.until:%d %b %Y}",
        metadata.dataset_kind == "phantom",
    )
    version_rows = rows[is_of_version(rows, context.version, metadata.model)]
    tests, groups = ({getattr(test, key) for test in comparison.tests} for key in ("name", "group"))
    figures = {}
    if tests:
        figures["Distance and limit of each comparison"] = plots.plot_distances(comparison, caption)
    if reference is not None and IMAGES in groups:
        figure = plots.plot_image_statistics(comparison, reference, rows, caption)
        figures["Statistics of images at training and in the window"] = figure
    if reference is not None and EMBEDDING in tests:
        figure = plots.plot_embeddings(comparison, reference, version_rows, caption)
        figures["Embeddings of images at training and in the window"] = figure
    if validation is not None and PROBABILITY in tests:
        figure = plots.plot_probabilities(comparison, validation, version_rows, caption)
        figures["Probabilities on validation and in the window"] = figure
    if len(rows):
        figure = plots.plot_by_day(comparison, reference, rows, caption)
        figures["Rows, refusals and predictions per day"] = figure
    return [(alternative_text, png_data_uri(figure)) for alternative_text, figure in figures.items()]


def _examples(
    rows: pd.DataFrame, reference: Reference | None, image_path: Callable[[str], Path | None]
) -> list[Thumbnail]:
    """Stored images, those least similar to training first."""
    examples: list[Thumbnail] = []
    for _, row in _least_similar_first(rows, reference).iterrows():
        path = image_path(str(row["id"]))
        grey = None if path is None else cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            continue
        if isinstance(row["refusal"], str):
            result = f"refused: {row['refusal'].replace('_', ' ')}"
        else:
            result = f"{row['label']}, {100 * row['probability']:.0f} %"
        examples.append(make_thumbnail(np.asarray(grey, dtype=np.uint8), "", f"{row['time']:%d %b %H:%M}, {result}"))
        if len(examples) == MAX_EXAMPLES:
            break
    return examples


def _least_similar_first(rows: pd.DataFrame, reference: Reference | None) -> pd.DataFrame:
    """Sort rows by the distance of their embedding from the mean of the training's; rows without one come last."""
    if reference is None:
        return rows
    mean, scale = reference.embeddings.mean(axis=0), embedding_scale(reference.embeddings)
    distances = [
        float(np.linalg.norm((embedding - mean) / scale))
        if isinstance(embedding, np.ndarray) and embedding.shape == mean.shape
        else -1.0
        for embedding in rows["embedding"]
    ]
    return rows.iloc[np.argsort(distances)[::-1]]
