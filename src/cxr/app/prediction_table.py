"""Several images: a table to choose from, and the same table as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from cxr.app.texts import format_label
from cxr.app.uploads import ImageOutcome
from cxr.images.strict_decoding import describe_warnings
from cxr.inference.scoring.table import SCHEMA
from cxr.serving.served_model import ServedModel

SHOWN_NUMBER = "number of the shown image"
"""Session key of the number of the image below the table."""
_TABLE = "table of images"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def choose_image(outcomes: Sequence[ImageOutcome], served: ServedModel, threshold: float) -> ImageOutcome:
    """Show the table and let the visitor choose an image.

    Args:
        outcomes: outcomes of at least two images.
        served: the model that predicted.
        threshold: threshold of the visitor, 0 to 1.

    Returns:
        Outcome of the chosen image.
    """
    st.dataframe(
        to_frame(outcomes, threshold),
        hide_index=True,
        key=_TABLE,
        on_select=_show_clicked_row,
        selection_mode="single-cell",
        column_config={
            "Probability": st.column_config.NumberColumn("Probability (%)", format="%.1f", width=115),
            "Threshold": st.column_config.NumberColumn("Threshold (%)", format="%.1f", width=110),
            "File": st.column_config.TextColumn(width=160),
            "Label": st.column_config.TextColumn(width=125),
            "Problem": st.column_config.TextColumn(width="large"),
        },
        placeholder="",
        alt=f"Table of {len(outcomes)} films with label, probability, threshold and problem",
    )
    st.download_button(
        "Download as CSV",
        to_csv(outcomes, served, threshold),
        file_name="predictions.csv",
        mime="text/csv",
        on_click="ignore",
        icon=":material/download:",
    )
    if st.session_state.get(SHOWN_NUMBER, 0) >= len(outcomes):
        st.session_state[SHOWN_NUMBER] = 0
    chosen = st.selectbox(
        "Film shown below (or click a row)",
        range(len(outcomes)),
        format_func=lambda number: f"{number + 1}: {outcomes[number].image.name}",
        key=SHOWN_NUMBER,
    )
    return outcomes[chosen]


def to_frame(outcomes: Sequence[ImageOutcome], threshold: float) -> pd.DataFrame:
    """Make the table of the page.

    Args:
        outcomes: one per row.
        threshold: 0 to 1.

    Returns:
        Columns File, Label, Probability and Threshold (both in per cent), Problem.
    """
    return pd.DataFrame(
        {
            "File": [outcome.image.name for outcome in outcomes],
            "Label": [format_label(outcome.label(threshold)) for outcome in outcomes],
            "Probability": [None if outcome.probability is None else 100 * outcome.probability for outcome in outcomes],
            "Threshold": [None if outcome.probability is None else 100 * threshold for outcome in outcomes],
            "Problem": [outcome.reason for outcome in outcomes],
        }
    ).astype({"Probability": "float64", "Threshold": "float64"})


def to_csv(outcomes: Sequence[ImageOutcome], served: ServedModel, threshold: float) -> str:
    """Write the predictions with the columns of ``cxr predict --output NAME.csv``.

    Args:
        outcomes: one per row.
        served: the model that predicted.
        threshold: threshold of the visitor, 0 to 1: it decides the labels, unless the model has prediction sets.

    Returns:
        CSV; an unknown value is empty. A text that a spreadsheet would read as a formula starts with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, SCHEMA.names, restval="", extrasaction="raise", lineterminator="\n")
    writer.writeheader()
    for outcome in outcomes:
        row = _row(outcome, served, threshold)
        writer.writerow({column: escape_formula(value) for column, value in row.items()})
    return text.getvalue()


def escape_formula(value: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would execute as a formula.

    Args:
        value: value of a cell.

    Returns:
        The same value, or the text with an apostrophe if it starts with ``= + - @``, a tab or a line end.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def _row(outcome: ImageOutcome, served: ServedModel, threshold: float) -> dict[str, Any]:
    refusal = outcome.result.refusal if outcome.result is not None else None
    return {
        "path": outcome.image.name,
        "label": outcome.label(threshold),
        "probability": outcome.probability,
        "threshold": None if outcome.probability is None else threshold,
        "version": served.version,
        "alias": served.alias,
        "model": served.metadata.model,
        "error": outcome.error if refusal is None else str(refusal),
        "warning": describe_warnings(outcome.warnings),
        "sha256": outcome.sha256,
        "width": outcome.width,
        "height": outcome.height,
    }


def _show_clicked_row() -> None:
    for row, _ in st.session_state[_TABLE].selection.cells:
        st.session_state[SHOWN_NUMBER] = row
