"""The threshold on the page: the model's own until the visitor moves the slider."""

from __future__ import annotations

import streamlit as st

from cxr.app.texts import format_percent
from cxr.serving.served_model import ServedModel

STEP = 0.1
"""Step of the slider, in per cent."""


def default_threshold(served: ServedModel) -> float:
    """Get the threshold that was chosen on validation.

    Args:
        served: the model that predicts.

    Returns:
        0 to 1.
    """
    threshold = served.metadata.threshold
    if threshold is None:  # a model without threshold is never served
        raise ValueError(f"expected a calibrated model, received threshold=None for model={served.metadata.model}")
    return threshold


def current_threshold(served: ServedModel) -> float:
    """Get the threshold that this visitor has set.

    Args:
        served: the model that predicts.

    Returns:
        0 to 1: the position of the slider; exactly the model's own threshold until the slider is moved.
    """
    default = default_threshold(served)
    position = st.session_state.get(_key(served), _position(default))
    return default if position == _position(default) else float(position) / 100


def show_slider(served: ServedModel) -> None:
    """Show the slider, a button that resets it, and what validation says about its position.

    Args:
        served: the model that predicts.
    """
    default = default_threshold(served)
    # Set in the session and not as the slider's default: Streamlit warns if a widget has both a default and a value
    # that was set in the session, as the button does.
    st.session_state.setdefault(_key(served), _position(default))
    st.slider(
        "Threshold, in per cent",
        0.0,
        100.0,
        step=STEP,
        format="%.1f",
        key=_key(served),
        help="At and above it a film is called PNEUMONIA. It holds for all films of this page."
        if served.metadata.prediction_sets is None
        else "The operating point of this version. Its labels come from prediction sets and do not follow it.",
    )
    threshold = current_threshold(served)
    st.button(
        f"Back to the model's own, {format_percent(default)}",
        on_click=_reset,
        args=(served,),
        disabled=threshold == default,
    )
    st.markdown(_describe_threshold(served, threshold))


def _describe_threshold(served: ServedModel, threshold: float) -> str:
    scores = served.validation
    if scores is None:
        return "What this threshold means is not known: this version carries no validation figures."
    total, positive = len(scores.pneumonia), int(scores.pneumonia.sum())
    return (
        f"At {format_percent(threshold)}, on {total:,} validation films:\n"
        f"- **sensitivity {format_percent(scores.sensitivity(threshold))}**: so many of the {positive:,} films with "
        "pneumonia are found;\n"
        f"- **specificity {format_percent(scores.specificity(threshold))}**: so many of the {total - positive:,} films "
        "without are called normal."
    )


def _key(served: ServedModel) -> str:
    """Each version has its own slider, which starts at the threshold of that version."""
    return f"threshold {served.version} {served.since.isoformat()}"


def _position(threshold: float) -> float:
    return round(round(100 * threshold / STEP) * STEP, 1)


def _reset(served: ServedModel) -> None:
    st.session_state[_key(served)] = _position(default_threshold(served))
