"""Slices: images that share a value of a column, such as their sex, scanner or subtype, and how a model does on them.

A mean over all images can hide a group of patients that a model misses. A column of text has one slice per value, a
column of numbers has slices of about equal size, and images without a value are the slice ``unknown``. The limits
between slices of numbers come from the validation images: test images have no part in what a slice is. Images from
elsewhere have no validation images: there the limits come from the judged ones.

The worst slice is the one with the lowest sensitivity, as measured. The lower end of its interval would name the
smallest slice instead, where least is known; of equal sensitivities, the lower end decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.dataset import CLASSES, NORMAL, PNEUMONIA
from cxr.data.split_table import VALIDATION
from cxr.errors import DataError, ParameterError
from cxr.evaluation.bootstrap import Interval, bootstrap
from cxr.evaluation.metrics import Floats, auroc, confusion, decision_metrics

SLICES = "slices"
"""Entry of the report, and of each split in it; absent where no slices are wanted."""
SLICE_MEASURES = ("auroc", "sensitivity", "specificity")
"""Measures of a slice."""
PREFIX = "slice."
"""Beginning of the columns of predictions that say which slice an image belongs to."""
UNKNOWN = "unknown"
"""Name of the slice of images without a value."""
GROUPS = 3
"""Number of slices of a column of numbers, about equal in their number of validation images."""
MAX_SEPARATE_NUMBERS = 10
"""A column of so few different numbers, such as years of children or numbers of sites, has one slice per number."""
MAX_SLICES = 50
"""A column with more values is refused: it names single images or patients."""

_MISSING = frozenset({"", "unknown", "na", "n/a", "nan", "null"})
"""Cells of a table that stand for no value, in lower case."""
_KEYS = ("path", "patient", "subtype")
"""Columns of ``patients.csv`` that `cxr validate` reads; the manifest has them."""


def assign_slices(
    rows: pd.DataFrame, manifest: pd.DataFrame, patients: pd.DataFrame | None, columns: Sequence[str]
) -> pd.DataFrame:
    """Say for each image which slice of each column it belongs to.

    Args:
        rows: validation and test images, with the columns path and split.
        manifest: facts about the image files, by path. ``size`` (width times height, in pixels) and ``brightness`` (the
            column ``mean``) can be named as well.
        patients: what ``patients.csv`` says about the images, by path, all text; None if there is no such file.
        columns: columns of either table.

    Returns:
        The rows with a column ``slice.NAME`` for each: ordered categories, in the order of a report. Only these names
        of slices are kept, such as "3 to 4.5", not the numbers behind them.

    Raises:
        ParameterError: if there is no such column, both tables have it, it has more than :data:`MAX_SLICES` values, or
            ``patients.csv`` is about other images (all problems are listed).
    """
    offered = _offered_columns(rows, manifest, patients)
    is_listed = rows["path"].isin([] if patients is None else patients["path"])
    problems, slices = [], {}
    for column in columns:
        sources = offered.get(column, [])
        if len(sources) != 1:
            problems.append(_wrong_column(column, len(sources), offered, patients is not None))
            continue
        if column not in manifest and patients is not None and column in patients and not is_listed.any():
            problems.append(
                f"expected rows of patients.csv for the images, received slices={column} and none for images such as "
                f"{rows['path'].iloc[0]!r}; correct the paths in the table"
            )
            continue
        assigned = name_slices(sources[0], (rows["split"] == VALIDATION).to_numpy())
        problems += problems_of_slices(column, assigned)
        slices[PREFIX + column] = assigned
    if problems:
        raise ParameterError(problems)
    return rows.assign(**slices)


def problems_of_slices(column: str, assigned: pd.Categorical) -> list[str]:
    """Say that a column has too many values.

    Args:
        column: its name.
        assigned: its slices.

    Returns:
        A sentence if there are more than :data:`MAX_SLICES`; else nothing.
    """
    count = len(assigned.categories)
    if count <= MAX_SLICES:
        return []
    return [
        f"expected a column with at most {MAX_SLICES} values, received slices={column} with {count:,}; name one that "
        "many patients share"
    ]


def check_slices(rows: pd.DataFrame, columns: Sequence[str]) -> None:
    """Check that predictions say which slices their images belong to.

    Args:
        rows: predictions.
        columns: wanted columns.

    Raises:
        DataError: if the predictions lack some of them, because they were made before these slices were wanted.
    """
    missing = [column for column in columns if PREFIX + column not in rows]
    if missing:
        raise DataError(
            f"expected predictions with the slices {', '.join(columns)}, received none of: {', '.join(missing)}; run "
            "`cxr evaluate` for each model again"
        )


def measure_slices(
    rows: pd.DataFrame, threshold: float, columns: Sequence[str], *, min_patients: int, resamples: int, seed: int
) -> dict[str, Any]:
    """Measure each slice of a split.

    A figure needs ``min_patients`` patients of its class: those with pneumonia for the sensitivity, normal ones for the
    specificity, and both for the AUROC. A slice without any figure is too small.

    Args:
        rows: the images of the split with the columns group (patients), label, probability and ``slice.NAME``.
        threshold: the model's threshold.
        columns: columns whose slices are measured.
        min_patients: fewest patients of a class.
        resamples: number of bootstrap replicates over the patients of a slice.
        seed: seed of the bootstrap.

    Returns:
        ``measured``: a list with ``column``, ``slice``, ``images``, ``patients``, ``normal``, ``pneumonia``, and value,
        low and high of each measure of :data:`SLICE_MEASURES` (NaN where its class is too small); ``too_small``: the
        same without figures; ``worst``: the measured slice with the lowest sensitivity, or None.
    """
    measured: list[dict[str, Any]] = []
    too_small: list[dict[str, Any]] = []
    for column in columns:
        assigned = rows[PREFIX + column]
        for name in assigned.cat.categories:
            part = rows[(assigned == name).to_numpy()]
            if part.empty:
                continue
            counts = {
                "column": column, "slice": str(name), "images": len(part), "patients": int(part["group"].nunique()),
                **{label.lower(): int((part["label"] == label).sum()) for label in CLASSES},
            }  # fmt: skip
            figures = _measure_slice(part, threshold, min_patients=min_patients, resamples=resamples, seed=seed)
            (measured if figures else too_small).append(counts | figures)
    known = [entry for entry in measured if np.isfinite(entry["sensitivity"]["value"])]
    worst = min(known, key=lambda entry: (entry["sensitivity"]["value"], entry["sensitivity"]["low"]), default=None)
    return {"measured": measured, "too_small": too_small, "worst": worst}


def slice_title(entry: Mapping[str, Any]) -> str:
    """Name a slice for a reader.

    Args:
        entry: a slice of :func:`measure_slices`.

    Returns:
        For example ``"sex: female"``.
    """
    return f"{entry['column']}: {entry['slice']}"


def describe_too_small(slices: Sequence[Mapping[str, Any]]) -> str:
    """Name slices that are too small for figures, with their numbers of images.

    Args:
        slices: ``too_small`` of :func:`measure_slices`.

    Returns:
        For example ``"sex: unknown (4), scanner: B (12)"``.
    """
    return ", ".join(f"{slice_title(entry)} ({entry['images']:,})" for entry in slices)


def _measure_slice(
    part: pd.DataFrame, threshold: float, *, min_patients: int, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """The figures of a slice; empty if it is too small."""
    patients = part.groupby("label")["group"].nunique()
    large_enough = [label for label in CLASSES if patients.get(label, 0) >= min_patients]
    if not large_enough:
        return {}
    images = part[part["label"].isin(large_enough)]
    labels: NDArray[np.int64] = (images["label"] == PNEUMONIA).to_numpy().astype(np.int64)
    probability = images["probability"].to_numpy()
    shown = {"auroc": len(large_enough) == len(CLASSES), "sensitivity": PNEUMONIA in large_enough,
             "specificity": NORMAL in large_enough}  # fmt: skip

    def statistic(weight: Floats) -> dict[str, Floats]:
        decision = decision_metrics(confusion(labels, probability, threshold, weight))
        values = {"auroc": auroc(labels, probability, weight), **decision}
        return {measure: values[measure] for measure in SLICE_MEASURES if shown[measure]}

    intervals = bootstrap(statistic, labels, images["group"], resamples=resamples, seed=seed).intervals
    undefined = Interval(np.nan, np.nan, np.nan)
    return {measure: intervals.get(measure, undefined).to_dict() for measure in SLICE_MEASURES}


def _offered_columns(
    rows: pd.DataFrame, manifest: pd.DataFrame, patients: pd.DataFrame | None
) -> dict[str, list[pd.Series]]:
    """Column to its values for the rows, one series per table that has it."""
    facts = manifest.set_index("path").reindex(rows["path"])
    offered = {str(name): [facts[name]] for name in facts.columns}
    if {"width", "height"} <= set(facts) and "size" not in facts:
        offered["size"] = [facts["width"] * facts["height"]]
    if "mean" in facts and "brightness" not in facts:
        offered["brightness"] = [facts["mean"]]
    if patients is not None:
        further = patients.set_index("path").reindex(rows["path"])
        for name in further.columns:
            if name not in _KEYS:
                offered.setdefault(str(name), []).append(further[name])
    return offered


def _wrong_column(column: str, tables: int, offered: dict[str, list[pd.Series]], has_patients: bool) -> str:
    if tables:
        return (
            f"expected a column of one table, received slices={column}, which the manifest and patients.csv have; "
            "rename that of patients.csv"
        )
    hint = "" if has_patients else "; further ones can stand in patients.csv beside the images, and there is none"
    return f"expected columns of {', '.join(offered)}{hint}, received slices={column}; correct the name"


def name_slices(values: pd.Series, sets_limits: NDArray[np.bool_]) -> pd.Categorical:
    """Name the slice of each value.

    Args:
        values: cells of a column, numbers or text.
        sets_limits: which of them the limits between slices of numbers come from.

    Returns:
        Names of slices; the categories stand in the order of a report.
    """
    texts = np.array([_as_text(value) for value in values.tolist()], dtype=object)
    known = np.array([text is not None for text in texts], dtype=bool)
    numbers = _as_numbers(texts)
    if numbers is None:
        order = sorted(set(texts[known]))
        names = texts
    elif len(distinct := np.unique(numbers[known])) <= MAX_SEPARATE_NUMBERS:
        order = [_format_number(number) for number in distinct]
        names = np.array([_format_number(number) for number in numbers], dtype=object)
    else:
        limits = _limits(numbers[known & sets_limits])
        order = _names_between(limits)
        names = np.array(order, dtype=object)[np.searchsorted(limits, numbers, side="left").clip(max=len(limits))]
    named = np.where(known, names, UNKNOWN)
    return pd.Categorical(named, [*dict.fromkeys(order), *([] if known.all() else [UNKNOWN])], ordered=True)


def _as_text(value: object) -> str | None:
    """A cell as text on one line; None if it stands for no value."""
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    text = " ".join(str(value).split())
    return None if text.lower() in _MISSING else text


def _as_numbers(texts: NDArray[np.object_]) -> Floats | None:
    """The cells as numbers, NaN where there is no value; None if one of them is no number, or all lack a value."""
    try:
        numbers = np.array([np.nan if text is None else float(text) for text in texts], dtype=np.float64)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).any() and not np.isinf(numbers).any() else None


def _limits(numbers: Floats) -> Floats:
    """Upper limits of all groups but the last, rounded as names show them; fewer where many numbers are equal."""
    if np.unique(numbers).size < 2:
        return np.empty(0)
    decimals = -math.floor(math.log10(np.ptp(numbers) / 100))  # rounding moves a limit by half a percent at most
    quantiles = np.quantile(numbers, np.arange(1, GROUPS) / GROUPS)
    limits: Floats = np.unique(np.round(quantiles, decimals))
    has_numbers_beside: NDArray[np.bool_] = (limits >= numbers.min()) & (limits < numbers.max())
    return limits[has_numbers_beside]


def _names_between(limits: Floats) -> list[str]:
    if not limits.size:
        return ["known"]
    texts = [_format_number(limit) for limit in limits]
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    return [f"up to {texts[0]}", *between, f"above {texts[-1]}"]


def _format_number(number: float) -> str:
    return f"{number:,.12g}"
