"""How values are written on the page of results, and Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cxr.evaluation.metrics import METRICS
from cxr.results.model_result import DIGEST_LETTERS

UNKNOWN = "–"

SHARE = "sensitivity"
"""A measure that is written as every share is."""

PREDICTION_SET_HEADINGS = {
    "normal_coverage": "Normal images that NORMAL fits",
    "pneumonia_coverage": "Images with pneumonia that PNEUMONIA fits",
    "uncertain": "Uncertain",
    "normal_uncertain": "Uncertain, of normal images",
    "pneumonia_uncertain": "Uncertain, of images with pneumonia",
    "sensitivity": "Sensitivity, certain answers",
    "specificity": "Specificity, certain answers",
}
"""Figures of prediction sets, see :func:`cxr.evaluation.conformal.prediction_set_metrics`, for a reader."""


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table. Columns of numbers are aligned to the right, others to the left.

    Args:
        headings: cells of the first line.
        rows: cells of the other lines; a vertical bar inside a cell is escaped.

    Returns:
        The table, ending with a line break.
    """
    rule = ["--:" if _is_numeric([row[column] for row in rows]) else "---" for column in range(len(headings))]
    lines = [headings, rule, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _is_numeric(cells: Sequence[str]) -> bool:
    known = [cell.lstrip("*+-") for cell in cells if cell not in ("", UNKNOWN)]
    return bool(known) and all(cell[:1].isdigit() for cell in known)


def measure_heading(measure: str) -> str:
    """Return the name of a measure for a reader.

    Args:
        measure: its key in :data:`cxr.evaluation.metrics.METRICS`, for example ``"auroc"``.

    Returns:
        For example ``"AUROC"``.
    """
    return METRICS[measure].title


def format_measure(measure: str, entries: Mapping[str, Any]) -> str:
    """Format one measure of a report.

    Args:
        measure: its name.
        entries: measure to value, low and high.

    Returns:
        Value with interval, or a dash if the report lacks it.
    """
    return format_interval(measure, entries[measure]) if measure in entries else UNKNOWN


def format_interval(measure: str, entry: Mapping[str, float | None], digits: int = 1) -> str:
    """Format a value with its interval.

    Args:
        measure: name of the measure.
        entry: value, low and high; None if unknown.
        digits: decimals of percentages.

    Returns:
        For example ``"95.1 %<br>[93.0–96.8]"``.
    """
    value, low, high = (entry[key] for key in ("value", "low", "high"))
    if value is None:
        return UNKNOWN
    if low is None or high is None:
        return format_value(measure, value, digits)
    ends = "–".join(format_value(measure, end, digits).removesuffix(" %") for end in (low, high))
    return f"{format_value(measure, value, digits)}<br>[{ends}]"


def format_value(measure: str, value: float, digits: int = 1) -> str:
    """Format a value that was measured here.

    Args:
        measure: name of the measure.
        value: the value; shares in 0..1.
        digits: decimals of percentages.

    Returns:
        For example ``"95.1 %"`` or ``"0.9912"``.
    """
    metric = METRICS[measure]
    return f"{100 * value:.{digits}f} %" if metric.is_share else f"{value:.{metric.decimals}f}"


def format_reported(measure: str, value: float) -> str:
    """Format a value that others report, with the digits that they give, for example ``"97.03 %"``."""
    return f"{100 * value:.6g} %" if METRICS[measure].is_share else f"{value:.6g}"


def format_share(value: float) -> str:
    """Format a share in 0..1, for example ``"1.2 %"``."""
    return f"{100 * value:.1f} %"


def format_difference(measure: str, difference: float) -> str:
    """Format a difference with its sign, for example ``"+1.20 points"``."""
    return f"{100 * difference:+.2f} points" if METRICS[measure].is_share else f"{difference:+.4f}"


def format_number(value: float | None, digits: int) -> str:
    """Format a plain number.

    Args:
        value: the number; None or NaN if unknown.
        digits: decimals.

    Returns:
        The number, or a dash.
    """
    return UNKNOWN if value is None or math.isnan(value) else f"{value:.{digits}f}"


def format_commit(commit: str | None) -> str:
    """Format the short name of a commit.

    Args:
        commit: full name, with ``-dirty`` if files differed; None if unknown.

    Returns:
        The short name, or a dash.
    """
    if not commit:
        return UNKNOWN
    return f"`{commit[:DIGEST_LETTERS]}{'-dirty' if commit.endswith('-dirty') else ''}`"


def format_known(value: Any, form: Callable[[Any], str] = str) -> str:
    """Format a value that may be unknown.

    Args:
        value: anything; None if unknown.
        form: how to format it.

    Returns:
        The formatted value, or a dash.
    """
    return UNKNOWN if value is None else form(value)
