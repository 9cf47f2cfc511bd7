"""How figures are written on the page of results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cxr.results.result import DIGEST_LETTERS

UNKNOWN = "–"
SHARES = frozenset({"accuracy", "sensitivity", "specificity", "precision", "f1"})
NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "f1": "F1",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
    "log_loss": "Log loss",
}


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table, numbers aligned to the right, words to the left.

    Args:
        headings: cells of the first line.
        rows: cells of the others; a bar inside a cell is escaped.

    Returns:
        The table, ending with a line break.
    """
    rule = ["--:" if _is_numeric([row[column] for row in rows]) else "---" for column in range(len(headings))]
    lines = [headings, rule, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _is_numeric(cells: Sequence[str]) -> bool:
    known = [cell.lstrip("*+-") for cell in cells if cell not in ("", UNKNOWN)]
    return bool(known) and all(cell[:1].isdigit() for cell in known)


def heading(measure: str) -> str:
    """Name a measure for a reader.

    Args:
        measure: its name in reports.

    Returns:
        For example ``"AUROC"``.
    """
    return NAMES.get(measure, measure.replace("_", " ").capitalize())


def entry_of(measure: str, figures: Mapping[str, Any]) -> str:
    """Format one measure of several.

    Args:
        measure: its name.
        figures: measure to value, low and high.

    Returns:
        Value with interval, or a dash if it is not there.
    """
    return interval(measure, figures[measure]) if measure in figures else UNKNOWN


def interval(measure: str, entry: Mapping[str, float | None], digits: int = 1) -> str:
    """Format a value with its interval.

    Args:
        measure: its name.
        entry: value, low and high, None where unknown.
        digits: decimals of shares.

    Returns:
        For example ``"95.1 %<br>[93.0–96.8]"``.
    """
    value, low, high = (entry[key] for key in ("value", "low", "high"))
    if value is None:
        return UNKNOWN
    if low is None or high is None:
        return value_of(measure, value, digits)
    ends = "–".join(value_of(measure, end, digits).removesuffix(" %") for end in (low, high))
    return f"{value_of(measure, value, digits)}<br>[{ends}]"


def value_of(measure: str, value: float, digits: int = 1) -> str:
    """Format a value as measured here.

    Args:
        measure: its name.
        value: a share, or a figure such as AUROC.
        digits: decimals of shares.

    Returns:
        For example ``"95.1 %"`` or ``"0.9912"``.
    """
    return f"{100 * value:.{digits}f} %" if measure in SHARES else f"{value:.{4 if measure == 'auroc' else 3}f}"


def stated(measure: str, value: float) -> str:
    """Format somebody else's figure with the digits that they gave.

    Args:
        measure: its name.
        value: the figure.

    Returns:
        For example ``"97.03 %"``.
    """
    return f"{100 * value:.6g} %" if measure in SHARES else f"{value:.6g}"


def share(value: float) -> str:
    """Write a share.

    Args:
        value: 0 to 1.

    Returns:
        For example ``"1.2 %"``.
    """
    return f"{100 * value:.1f} %"


def difference(measure: str, gap: float) -> str:
    """Format a difference, with its sign.

    Args:
        measure: its name.
        gap: ours less theirs.

    Returns:
        For example ``"+1.20 points"``.
    """
    return f"{100 * gap:+.2f} points" if measure in SHARES else f"{gap:+.4f}"


def number(value: float | None, digits: int) -> str:
    """Format a plain number.

    Args:
        value: the number, None or NaN where unknown.
        digits: decimals.

    Returns:
        The number, or a dash.
    """
    return UNKNOWN if value is None or math.isnan(value) else f"{value:.{digits}f}"


def commit_of(commit: str | None) -> str:
    """Shorten a commit.

    Args:
        commit: full name, with ``-dirty`` when files differed; None if unknown.

    Returns:
        The short name, or a dash.
    """
    if not commit:
        return UNKNOWN
    return f"`{commit[:DIGEST_LETTERS]}{'-dirty' if commit.endswith('-dirty') else ''}`"


def or_unknown(value: Any, words: Callable[[Any], str] = str) -> str:
    """Format something that may be unknown.

    Args:
        value: anything, None if unknown.
        words: how to write it.

    Returns:
        The words, or a dash.
    """
    return UNKNOWN if value is None else words(value)
