"""Slices of images from elsewhere, by the columns that their own tables have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cxr.data.label_table import ImageLabels
from cxr.errors import ParameterError
from cxr.evaluation.slices import (
    PREFIX,
    SLICE_MEASURES,
    SLICES,
    describe_too_small,
    name_slices,
    problems_of_slices,
    slice_title,
)
from cxr.files import PATIENTS_FILE
from cxr.results.formatting import format_interval, format_measure, markdown_table, measure_heading
from cxr.results.judgements import ANSWERED

IMAGE_COLUMNS = ("subtype", "width", "height", "size", "brightness", "sharpness")
"""Columns that every data set has; ``size`` is width times height, in pixels. One of a table comes first."""
_KEYS = ("path", "patient")


@dataclass(frozen=True)
class OutsideSlices:
    """The slices of a data set.

    Attributes:
        columns: wanted columns that it has, in the wanted order.
        absent: wanted columns that it does not have.
        min_patients: fewest patients of a class for a figure of a slice.
        assigned: column of a table to the slices of the labelled images, in their order.
    """

    columns: tuple[str, ...]
    absent: tuple[str, ...]
    min_patients: int
    assigned: Mapping[str, pd.Categorical]

    def assign(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Say for each image which slice of each column it belongs to.

        Args:
            rows: one row per labelled image, in their order, with the columns of :data:`IMAGE_COLUMNS` but size.

        Returns:
            The rows with a column ``slice.NAME`` for each: ordered categories, in the order of a report.
        """
        facts = rows.assign(size=rows["width"] * rows["height"])
        everywhere = np.ones(len(rows), dtype=bool)
        return rows.assign(
            **{
                PREFIX + column: self.assigned[column]
                if column in self.assigned
                else name_slices(facts[column], everywhere)
                for column in self.columns
            }
        )


def find_slices(
    columns: Sequence[str], labels: ImageLabels, patients: pd.DataFrame | None, *, min_patients: int
) -> OutsideSlices:
    """Find the wanted columns in the tables of a data set, before its images are read.

    Args:
        columns: wanted columns of the table of labels, of ``patients.csv`` or of :data:`IMAGE_COLUMNS`.
        labels: the labelled images, with their cells of these columns.
        patients: what ``patients.csv`` beside the images says, by path, all text; None if there is none.
        min_patients: fewest patients of a class for a figure of a slice.

    Returns:
        The slices; columns that are nowhere are named in ``absent``.

    Raises:
        ParameterError: if the data set has none of the columns, both tables have one, ``patients.csv`` is about other
            images, or a column has too many values (all problems are listed).
    """
    paths = [image.path for image in labels.images]
    in_patients: dict[str, dict[str, str]] = {}
    if patients is not None:
        in_patients = {
            str(column): dict(zip(patients["path"], patients[column], strict=True))
            for column in patients.columns
            if column not in _KEYS
        }
    assigned, problems = {}, []
    for column in columns:
        if column in labels.cells and column in in_patients:
            problems.append(
                f"expected a column of one table, received slices={column}, which the table of labels and "
                f"{PATIENTS_FILE} have; rename one of them"
            )
        elif column in labels.cells or column in in_patients:
            cells = labels.cells[column] if column in labels.cells else in_patients[column]
            if column in in_patients and cells.keys().isdisjoint(paths):
                problems.append(
                    f"expected rows of {PATIENTS_FILE} for the images, received slices={column} and none for images "
                    f"such as {paths[0]!r}; correct the paths in the table"
                )
            values = pd.Series([cells.get(path) for path in paths], dtype=object)
            assigned[column] = name_slices(values, np.ones(len(values), dtype=bool))
            problems += problems_of_slices(column, assigned[column])
    absent = tuple(name for name in columns if name not in (*labels.cells, *in_patients, *IMAGE_COLUMNS))
    if absent and len(absent) == len(columns):
        problems.append(
            f"expected columns of the table of labels or of {PATIENTS_FILE}, or some of {', '.join(IMAGE_COLUMNS)}, "
            f"received slices={', '.join(absent)}, which are not there; correct the names"
        )
    if problems:
        raise ParameterError(problems)
    present = tuple(name for name in columns if name not in absent)
    return OutsideSlices(present, absent, min_patients, assigned)


def describe_slices(report: Mapping[str, Any]) -> list[str]:
    """Write the figures of each slice of the images that get an answer.

    Args:
        report: content of a judgement's ``metrics.json``, with slices and without NaN.

    Returns:
        Paragraphs in Markdown: the worst slice, the table, and the slices that are too small.
    """
    fewest, unit = report[SLICES]["min_patients"], report["bootstrap"]["unit"]
    needs = (
        f"A figure needs {fewest} {unit}s of its class: with pneumonia for the sensitivity, normal ones for the "
        "specificity, both for the AUROC. The limits between numbers come from these images."
    )
    slices = (report[ANSWERED] or {}).get(SLICES)
    if slices is None:
        return [f"None: no image gets an answer. {needs}"]
    worst = slices["worst"]
    first = f"No slice has the {fewest} {unit}s with pneumonia that its sensitivity needs."
    if worst is not None:
        sensitivity = format_interval("sensitivity", worst["sensitivity"]).replace("<br>", " ")
        first = (
            f"Lowest sensitivity of a slice: {sensitivity}, {slice_title(worst)}. The lowest of several figures is low "
            "by chance, too: see its interval."
        )
    counts = [name for name in ("images", "patients") if any(name in entry for entry in slices["measured"])]
    rows = [
        [
            slice_title(entry),
            *(f"{entry[name]:,}" for name in counts),
            *(format_measure(m, entry) for m in SLICE_MEASURES),
        ]
        for entry in slices["measured"]
    ]
    headings = ["Slice", *(name.capitalize() for name in counts), *map(measure_heading, SLICE_MEASURES)]
    lines = [f"{first} {needs}"]
    lines += ["", markdown_table(headings, rows).rstrip()] if rows else []
    lines += ["", f"Too small for figures: {describe_too_small(slices['too_small'])}."] if slices["too_small"] else []
    return lines
