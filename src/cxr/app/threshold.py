"""The operating threshold: the model's own, or where the visitor has moved it."""

from __future__ import annotations

import streamlit as st

from cxr.app.texts import percent
from cxr.serving.model_provider import Served

STEP = 0.1
"""Per cent."""


def own(served: Served) -> float:
    """The threshold that was chosen on validation.

    Args:
        served: the version that answers.

    Returns:
        0 to 1.
    """
    threshold = served.card.threshold
    if threshold is None:  # nothing is served without it
        raise ValueError(f"expected a calibrated card, received threshold=None for model={served.card.model}")
    return threshold


def current(served: Served) -> float:
    """The threshold that holds for this visitor.

    Args:
        served: the version that answers.

    Returns:
        0 to 1: where the slider stands; the model's own exactly while it has not been moved.
    """
    mine = own(served)
    position = st.session_state.get(_key(served), _position(mine))
    return mine if position == _position(mine) else float(position) / 100


def slider(served: Served) -> None:
    """Show the slider, the way back, and what validation says about where it stands.

    Args:
        served: the version that answers.
    """
    mine = own(served)
    # Not as its default: Streamlit complains about a default beside a position that the way back has set.
    st.session_state.setdefault(_key(served), _position(mine))
    st.slider(
        "Threshold, in per cent",
        0.0,
        100.0,
        step=STEP,
        format="%.1f",
        key=_key(served),
        help="At and above it a film is called PNEUMONIA. It holds for all films of this page.",
    )
    threshold = current(served)
    st.button(
        f"Back to the model's own, {percent(mine)}",
        on_click=_back,
        args=(served,),
        disabled=threshold == mine,
    )
    st.markdown(_consequences(served, threshold))


def _consequences(served: Served, threshold: float) -> str:
    scores = served.validation
    if scores is None:
        return "What this threshold means is not known: this version carries no validation figures."
    films, ill = len(scores.pneumonia), int(scores.pneumonia.sum())
    return (
        f"At {percent(threshold)}, on {films:,} validation films:\n"
        f"- **sensitivity {percent(scores.sensitivity(threshold))}**: so many of the {ill:,} films with pneumonia "
        "are found;\n"
        f"- **specificity {percent(scores.specificity(threshold))}**: so many of the {films - ill:,} films without "
        "are called normal."
    )


def _key(served: Served) -> str:
    """Another version has another threshold: its slider begins at its own."""
    return f"threshold {served.version} {served.since.isoformat()}"


def _position(threshold: float) -> float:
    return round(round(100 * threshold / STEP) * STEP, 1)


def _back(served: Served) -> None:
    st.session_state[_key(served)] = _position(own(served))
