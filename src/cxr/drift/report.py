"""The files of a comparison: drift.json, and a page with plots that needs no other file and no network."""

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

from cxr.data.exploration.images import Picture, picture
from cxr.drift import figures
from cxr.drift.findings import EMBEDDING, FILMS, PROBABILITY, WindowComparison
from cxr.drift.rows import of_version
from cxr.evaluation.validation_scores import ValidationScores
from cxr.files import DRIFT_FILE, write_json
from cxr.inference.reference.reference import Reference
from cxr.models.metadata import ModelCard
from cxr.plots.style import Caption, data_address

PAGE_NAME = "report.html"
EXAMPLES = 8
"""Most pictures in a report."""


@dataclass(frozen=True)
class Watched:
    """What a window was compared with.

    Attributes:
        version: number of the version; empty for a model from a folder.
        alias: the alias that it was found by; empty if by none.
        card: its card.
        reference: films of its training; None where it has none.
        validation: its scores on validation; None where it has none.
        since: first moment of the window, UTC.
        until: moment after the last, UTC.
        damaged: lines of the log that were no rows.
    """

    version: str
    alias: str
    card: ModelCard
    reference: Reference | None
    validation: ValidationScores | None
    since: datetime
    until: datetime
    damaged: int

    def to_dict(self) -> dict[str, Any]:
        """What was compared, for programs.

        Returns:
            Plain values.
        """
        return {
            "version": self.version or None,
            "alias": self.alias or None,
            "model": self.card.model,
            "dataset": {"name": self.card.dataset["name"], "kind": self.card.dataset_kind},
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "damaged_lines": self.damaged,
        }


def write_report(
    folder: Path,
    comparison: WindowComparison,
    rows: pd.DataFrame,
    watched: Watched,
    *,
    picture_of: Callable[[str], Path | None] = lambda _: None,
    more: dict[str, Any] | None = None,
) -> None:
    """Write the page, and everything for programs.

    Args:
        folder: where to write; must exist.
        comparison: what was found.
        rows: rows of the window.
        watched: what they were compared with.
        picture_of: id of a row to its kept picture, None where none was kept.
        more: further entries for drift.json.
    """
    write_json(folder / DRIFT_FILE, {**watched.to_dict(), **comparison.to_dict(), **(more or {})})
    environment = Environment(
        loader=PackageLoader("cxr.drift"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(PAGE_NAME).render(
        found=comparison,
        watched=watched,
        plots=_plots(comparison, rows, watched),
        examples=_examples(rows, watched.reference, picture_of),
    )
    (folder / PAGE_NAME).write_text(page, encoding="utf-8")


def _plots(comparison: WindowComparison, rows: pd.DataFrame, watched: Watched) -> list[tuple[str, str]]:
    """Words for who cannot see the plot, and the plot as a data address."""
    card, reference, validation = watched.card, watched.reference, watched.validation
    name = f"version {watched.version}, {card.model}" if watched.version else card.model
    caption = Caption(
        name, card.dataset["name"], f"{watched.since:%d %b} to {watched.until:%d %b %Y}", card.dataset_kind == "phantom"
    )
    own = rows[of_version(rows, watched.version, card.model)]
    compared = {one.name for one in comparison.findings}
    found = []
    if compared:
        found.append(("Each comparison with its distance and limit", figures.distances(comparison, caption)))
    if reference is not None and any(one.group == FILMS for one in comparison.findings):
        found.append(
            ("Statistics of films at training and now", figures.films(comparison, reference, rows, caption))
        )  # fmt: skip
    if reference is not None and EMBEDDING in compared:
        found.append(("Embeddings of films at training and now", figures.places(comparison, reference, own, caption)))
    if validation is not None and PROBABILITY in compared:
        found.append(("Probabilities on validation and now", figures.scores(comparison, validation, own, caption)))
    if len(rows):
        found.append(("Rows, refusals and answers per day", figures.days(comparison, reference, rows, caption)))
    return [(words, data_address(figure)) for words, figure in found]


def _examples(
    rows: pd.DataFrame, reference: Reference | None, picture_of: Callable[[str], Path | None]
) -> list[Picture]:
    """Pictures that were kept, those least like training first."""
    found: list[Picture] = []
    for _, row in _strangest(rows, reference).iterrows():
        path = picture_of(str(row["id"]))
        grey = None if path is None else cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            continue
        if isinstance(row["refusal"], str):
            words = f"refused: {row['refusal'].replace('_', ' ')}"
        else:
            words = f"{row['label']}, {100 * row['probability']:.0f} %"
        found.append(picture(np.asarray(grey, dtype=np.uint8), "", f"{row['time']:%d %b %H:%M}, {words}"))
        if len(found) == EXAMPLES:
            break
    return found


def _strangest(rows: pd.DataFrame, reference: Reference | None) -> pd.DataFrame:
    """Rows in order of how far their embeddings lie from the middle of the training's; those without one last."""
    if reference is None:
        return rows
    middle = reference.embeddings.mean(axis=0)
    spread = reference.embeddings.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    far = [
        float(np.linalg.norm((one - middle) / scale)) if isinstance(one, np.ndarray) and one.shape == middle.shape
        else -1.0
        for one in rows["embedding"]
    ]  # fmt: skip
    return rows.iloc[np.argsort(far)[::-1]]
