"""Several films: a table to choose from, and the same as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from cxr.app.texts import verdict
from cxr.app.uploads import Outcome
from cxr.inference.scoring.parts import SCHEMA
from cxr.serving.model_provider import Served

SHOWN = "film on show"
"""Key of the number of the film that is shown below the table."""
_TABLE = "table of films"


def choose(found: Sequence[Outcome], served: Served, threshold: float) -> Outcome:
    """Show all films and let the visitor choose one.

    Args:
        found: outcomes, at least two.
        served: the version that answered.
        threshold: where the threshold stands, 0 to 1.

    Returns:
        The film to show.
    """
    st.dataframe(
        frame(found, threshold),
        hide_index=True,
        key=_TABLE,
        on_select=_follow,
        selection_mode="single-cell",
        column_config={
            "Probability": st.column_config.NumberColumn("Probability (%)", format="%.1f", width=115),
            "Threshold": st.column_config.NumberColumn("Threshold (%)", format="%.1f", width=110),
            "File": st.column_config.TextColumn(width=160),
            "Label": st.column_config.TextColumn(width=125),
            "Problem": st.column_config.TextColumn(width="large"),
        },
        placeholder="",
        alt=f"Table of {len(found)} films with label, probability, threshold and problem",
    )
    st.download_button(
        "Download as CSV",
        to_csv(found, served, threshold),
        file_name="predictions.csv",
        mime="text/csv",
        on_click="ignore",
        icon=":material/download:",
    )
    if st.session_state.get(SHOWN, 0) >= len(found):
        st.session_state[SHOWN] = 0
    chosen = st.selectbox(
        "Film shown below (or click a row)",
        range(len(found)),
        format_func=lambda number: f"{number + 1}: {found[number].film.name}",
        key=SHOWN,
    )
    return found[chosen]


def frame(found: Sequence[Outcome], threshold: float) -> pd.DataFrame:
    """Make the table.

    Args:
        found: outcomes.
        threshold: 0 to 1.

    Returns:
        Columns File, Label, Probability and Threshold (both in per cent), Problem.
    """
    return pd.DataFrame(
        {
            "File": [one.film.name for one in found],
            "Label": [verdict(one.label(threshold)) for one in found],
            "Probability": [None if one.probability is None else 100 * one.probability for one in found],
            "Threshold": [None if one.probability is None else 100 * threshold for one in found],
            "Problem": [one.why_not for one in found],
        }
    ).astype({"Probability": "float64", "Threshold": "float64"})


def to_csv(found: Sequence[Outcome], served: Served, threshold: float) -> str:
    """Write the answers with the columns of ``cxr predict --output NAME.csv``.

    Args:
        found: outcomes.
        served: the version that answered.
        threshold: where the threshold stands, 0 to 1: labels follow it.

    Returns:
        CSV; what is unknown is empty. Texts that a spreadsheet would take for a formula begin with an apostrophe.
    """
    written = io.StringIO()
    lines = csv.DictWriter(written, SCHEMA.names, restval="", extrasaction="raise", lineterminator="\n")
    lines.writeheader()
    for one in found:
        lines.writerow({key: harmless(value) for key, value in _row(one, served, threshold).items()})
    return written.getvalue()


def harmless(value: Any) -> Any:
    """Keep a spreadsheet from taking a text for a formula.

    Args:
        value: a cell.

    Returns:
        The same; a text that begins with ``= + - @``, a tab or a line end has an apostrophe before it.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value


def _row(one: Outcome, served: Served, threshold: float) -> dict[str, Any]:
    refusal = one.answer.refusal if one.answer is not None else None
    return {
        "path": one.film.name,
        "label": one.label(threshold),
        "probability": one.probability,
        "threshold": None if one.probability is None else threshold,
        "version": served.version,
        "alias": served.alias,
        "model": served.card.model,
        "error": f"{refusal.kind}: {refusal.detail}" if refusal is not None else one.error,
        "sha256": one.sha256,
        "width": one.width,
        "height": one.height,
    }


def _follow() -> None:
    """Show the film of the row that was clicked."""
    for row, _ in st.session_state[_TABLE].selection.cells:
        st.session_state[SHOWN] = row
