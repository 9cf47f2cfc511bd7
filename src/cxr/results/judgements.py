"""Judgements on other data, written by `cxr judge`, as a table of the results page and of model cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.evaluation.slices import slice_title
from cxr.files import SUMMARY_FILE, read_json
from cxr.models.stored_files import check_digest
from cxr.results.formatting import UNKNOWN, format_measure, format_share, markdown_table, measure_heading
from cxr.results.model_result import DIGEST_LETTERS

JUDGEMENTS_ENTRY = "outside"
"""Entry of a model's metrics or stored result with the summary of each judgement; absent where there is none."""
ANSWERED, ALL = "without_refused", "with_refused"
"""Entries of a judgement: images that the model answers for, and all that can be read, as if it refused none."""
JUDGED_MODEL_FIELDS = ("model", "data_digest", "split_digest", "temperature", "threshold")
"""Facts of a judgement that tell the judged model from others, and from other trainings of it."""
WORST_SLICE = "worst_slice"
"""Entry of a judgement's summary: the slice with the lowest sensitivity, or None; absent where none were wanted."""
MEASURES = ("auroc", "sensitivity", "specificity", "brier", "calibration_error")


def read_judgements(folder: Path) -> list[dict[str, Any]]:
    """Read the summaries of all judgements.

    Args:
        folder: folder with one folder per judgement; may be missing.

    Returns:
        Content of each ``summary.json``, by name of the folder.

    Raises:
        DataError: if a file is damaged.
    """
    paths = sorted(folder.glob(f"[!.]*/{SUMMARY_FILE}"))
    for path in paths:
        check_digest(path)
    return [read_json(path) for path in paths]


def describe_source(data: Mapping[str, Any]) -> str:
    """Say where a judged data set comes from, and which content it had.

    Args:
        data: its ``source`` and ``digest``, as in the summary of a judgement.

    Returns:
        For example ``"ward.zip, content 5e884898da28"``.
    """
    return f"{data['source']}, content {data['digest'][:DIGEST_LETTERS]}"


def judgements_table(rows: Sequence[tuple[Mapping[str, Any], Sequence[str]]], headings: Sequence[str] = ()) -> str:
    """Write figures on other data.

    Args:
        rows: content of ``summary.json`` of each judgement, and cells to put first.
        headings: headings of these cells.

    Returns:
        A Markdown table.
    """
    has_slices = any(WORST_SLICE in summary for summary, _ in rows)
    lines = []
    for summary, first_cells in rows:
        refused, patients = summary["refusals"]["share"], summary["patients"]
        lines.append(
            [
                *first_cells,
                f"{summary['data']}{' (drawn phantoms)' if summary['kind'] == 'phantom' else ''}",
                f"{summary['images']:,}{'' if patients is None else f'<br>{patients:,} patients'}",
                UNKNOWN if refused is None else format_share(refused),
                *(format_measure(name, summary[ANSWERED] or {}) for name in MEASURES),
                format_measure("auroc", summary[ALL] or {}),
                *([_worst_slice(summary)] if has_slices else []),
                summary["distance"] or UNKNOWN,
            ]
        )
    measures = [*map(measure_heading, MEASURES), "AUROC with the refused ones"]
    measures += ["Lowest sensitivity of a slice"] if has_slices else []
    return markdown_table([*headings, "Data set", "Images", "Refused", *measures, "Distance from training"], lines)


def _worst_slice(summary: Mapping[str, Any]) -> str:
    worst = summary.get(WORST_SLICE)
    return UNKNOWN if worst is None else f"{format_measure('sensitivity', worst)}<br>{slice_title(worst)}"
