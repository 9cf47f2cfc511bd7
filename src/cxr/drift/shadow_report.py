"""The report of a comparison with a shadow: a page, comparison.json, the disagreements as a table, and plots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxr.drift.detection import detect_drift
from cxr.drift.plots import plot_probabilities
from cxr.drift.report import GROUP_TITLES
from cxr.drift.shadow_comparison import (
    ShadowComparison,
    VersionPair,
    find_disagreements,
    rows_as_of_shadow,
    rows_of_pair,
)
from cxr.drift.shadow_plots import plot_differences, plot_disagreements_sheet, plot_probabilities_of_both
from cxr.drift.window_comparison import EMBEDDING, PROBABILITY, WindowComparison, WindowLimits
from cxr.evaluation.validation_scores import ValidationScores
from cxr.files import COMPARISON_FILE, write_json
from cxr.inference.reference.reference import Reference
from cxr.models.metadata import ModelMetadata
from cxr.plots.style import Caption, png_data_uri, save_png

REPORT_PAGE = "comparison.html"
REPORT_FILE = "report.html"
DISAGREEMENTS_FILE = "disagreements.csv"
PLOTS_FOLDER, DISAGREEMENTS_SHEET = "plots", "disagreements"
MAX_IMAGES = 24
"""Most images on the sheet of disagreements."""
MAX_TABLE_ROWS = 50
"""Most rows of the page's table; the CSV file has all."""
DISAGREEMENT_COLUMNS = (
    "id", "time", "outcome", "probability", "threshold", "refusal", "shadow_outcome", "shadow_probability",
    "shadow_threshold", "shadow_refusal", "difference",
)  # fmt: skip


@dataclass(frozen=True)
class ComparedVersion:
    """What is known about the training of a version that is compared.

    Attributes:
        metadata: its metadata.
        reference: statistics of its training images; None if it has none.
        validation: its probabilities on validation; None if it has none.
    """

    metadata: ModelMetadata
    reference: Reference | None
    validation: ValidationScores | None


@dataclass(frozen=True)
class DriftOfVersion:
    """How far the images that both have answered are from the training of one of the versions.

    Attributes:
        title: name of the version in the report.
        comparison: the comparison with its training; None if that is not known.
        reason: why it is not known; empty if it is.
    """

    title: str
    comparison: WindowComparison | None
    reason: str = ""


@dataclass(frozen=True)
class ShadowReport:
    """Everything that the report shows.

    Attributes:
        comparison: agreement and differences.
        both: rows for which both have answered, as :func:`cxr.drift.shadow_comparison.rows_of_pair` returns them.
        versions: what is known of the version and of the shadow, in this order; None if that could not be read.
        drifts: drift of the version and of the shadow, in this order.
        since: start of the window, UTC.
        until: end of the window, UTC, exclusive.
        damaged: number of damaged lines in the log.
        notes: further sentences for the reader, without full stop.
    """

    comparison: ShadowComparison
    both: pd.DataFrame
    versions: tuple[ComparedVersion | None, ComparedVersion | None]
    drifts: tuple[DriftOfVersion, DriftOfVersion]
    since: datetime
    until: datetime
    damaged: int
    notes: tuple[str, ...] = field(default=())

    @property
    def is_phantom(self) -> bool:
        """Whether one of the versions was trained on drawn phantoms."""
        return any(version is not None and version.metadata.dataset_kind == "phantom" for version in self.versions)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        drifts = {
            name: None if drift.comparison is None else drift.comparison.to_dict()
            for name, drift in zip(("version", "shadow"), self.drifts, strict=True)
        }
        notes = [*self.notes, *(drift.reason for drift in self.drifts if drift.reason)]
        return {
            **self.comparison.to_dict(), "since": self.since.isoformat(), "until": self.until.isoformat(),
            "damaged_lines": self.damaged, "notes": notes, "drift": drifts,
        }  # fmt: skip


def detect_drift_of_both(
    rows: pd.DataFrame,
    pair: VersionPair,
    versions: tuple[ComparedVersion | None, ComparedVersion | None],
    limits: WindowLimits,
    *,
    seed: int,
) -> tuple[DriftOfVersion, DriftOfVersion]:
    """Compare the images that both have answered with the training of each, by the measures of `cxr drift`.

    Args:
        rows: rows of a window.
        pair: the version and its shadow.
        versions: what is known of them; None if it could not be read.
        limits: how far the window may move.
        seed: seed of the permutations.

    Returns:
        Drift of the version and of its shadow.
    """
    both = rows_of_pair(rows, pair)
    shadow = _drift(
        f"shadow, version {pair.shadow_version} ({pair.shadow_model})", rows_as_of_shadow(both),
        (pair.shadow_version, pair.shadow_model), versions[1], limits, seed,
    )  # fmt: skip
    if shadow.comparison is not None:  # the log has only embeddings of the version that answered the clients
        notes = tuple(note for note in shadow.comparison.notes if not note.startswith(EMBEDDING))
        shadow = replace(shadow, comparison=replace(shadow.comparison, notes=notes))
    title = f"version {pair.version} ({pair.model})"
    return _drift(title, both, (pair.version, pair.model), versions[0], limits, seed), shadow


def write_shadow_report(folder: Path, report: ShadowReport, *, image_path: Callable[[str], Path | None]) -> None:
    """Write the page, comparison.json, disagreements.csv and the plots.

    Args:
        folder: where to write; must exist.
        report: what to write.
        image_path: from the id of a row to the stored image, None if it was not stored.
    """
    disagreements = find_disagreements(report.both)
    paths = [image_path(str(row_id)) for row_id in disagreements["id"]]
    write_json(folder / COMPARISON_FILE, report.to_dict())
    table = disagreements[list(DISAGREEMENT_COLUMNS)].assign(
        image=["" if path is None else f"{path.parent.name}/{path.name}" for path in paths]
    )
    table.to_csv(folder / DISAGREEMENTS_FILE, index=False)
    figures = _draw_plots(report, disagreements, paths)
    (folder / PLOTS_FOLDER).mkdir()
    for name, (_, figure) in figures.items():
        save_png(figure, folder / PLOTS_FOLDER / f"{name}.png")
    environment = Environment(
        loader=PackageLoader("cxr.drift"), autoescape=select_autoescape(["html"]), trim_blocks=True, lstrip_blocks=True
    )
    outcomes = report.comparison.outcomes
    sources = {name: (alternative_text, png_data_uri(figure)) for name, (alternative_text, figure) in figures.items()}
    page = environment.get_template(REPORT_PAGE).render(
        report=report,
        pair=report.comparison.pair,
        outcome_names=sorted({*outcomes, *(name for counts in outcomes.values() for name in counts)}),
        group_titles=GROUP_TITLES,
        disagreements=list(disagreements.head(MAX_TABLE_ROWS).itertuples()),
        sheet=sources.pop(DISAGREEMENTS_SHEET, None),
        plots=list(sources.values()),
    )
    (folder / REPORT_FILE).write_text(page, encoding="utf-8")


def _drift(
    title: str, rows: pd.DataFrame, version: tuple[str, str], compared: ComparedVersion | None, limits: WindowLimits,
    seed: int,
) -> DriftOfVersion:  # fmt: skip
    if compared is None:
        return DriftOfVersion(title, None, f"drift of {title} is unknown: the version cannot be read")
    if compared.reference is None and compared.validation is None:
        return DriftOfVersion(
            title, None, f"drift of {title} is unknown: it has neither statistics of its training images nor scores of "
            "its validation; register it again"
        )  # fmt: skip
    return DriftOfVersion(
        title, detect_drift(rows, version, compared.reference, compared.validation, limits, seed=seed)
    )


def _draw_plots(
    report: ShadowReport, disagreements: pd.DataFrame, paths: list[Path | None]
) -> dict[str, tuple[str, Figure]]:
    """Name of the file to alternative text and figure."""
    comparison, both, pair = report.comparison, report.both, report.comparison.pair
    datasets = dict.fromkeys(version.metadata.dataset["name"] for version in report.versions if version is not None)
    caption = Caption(
        f"version {pair.version} and shadow {pair.shadow_version}", ", ".join(datasets) or "unknown data",
        f"{report.since:%d %b} to {report.until:%d %b %Y}", report.is_phantom,
    )  # fmt: skip
    figures = {}
    if comparison.predicted:
        figure = plot_probabilities_of_both(comparison, both, caption)
        figures["probabilities"] = ("Probability of the shadow over that of the version", figure)
        figure = plot_differences(comparison, both, caption)
        figures["differences"] = ("Histogram of the differences of the probabilities", figure)
    for name, rows, version, drift in zip(
        ("version", "shadow"), (both, rows_as_of_shadow(both)), report.versions, report.drifts, strict=True
    ):
        if version is None or version.validation is None or drift.comparison is None:
            continue
        if PROBABILITY in {test.name for test in drift.comparison.tests}:
            version_caption = replace(caption, model=drift.title)
            figure = plot_probabilities(drift.comparison, version.validation, rows, version_caption)
            figures[f"{name}_probabilities"] = (f"Probabilities on validation and in the window, {drift.title}", figure)
    stored = [(number, image) for number, path in enumerate(paths) if (image := _read_image(path)) is not None]
    if stored:
        shown = stored[:MAX_IMAGES]
        rows = disagreements.iloc[[number for number, _ in shown]]
        figure = plot_disagreements_sheet(rows, [image for _, image in shown], len(disagreements), caption)
        figures[DISAGREEMENTS_SHEET] = ("Images with different outcomes", figure)
    return figures


def _read_image(path: Path | None) -> NDArray[np.uint8] | None:
    grey = None if path is None else cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    return None if grey is None else np.asarray(grey, dtype=np.uint8)
