"""One film: the answer on the left, its pictures on the right; on a phone one under the other."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import cv2
import numpy as np
import streamlit as st
from numpy.typing import NDArray

from cxr.app import probability_scale, threshold
from cxr.app.network_view import NetworkView, network_views, overlay
from cxr.app.service import Service
from cxr.app.texts import verdict
from cxr.app.uploads import Outcome, shrunk
from cxr.data.dataset import PNEUMONIA
from cxr.images.decoding import Picture
from cxr.serving.model_provider import Served

_KEPT = "pictures"


def show(service: Service, served: Served, outcome: Outcome) -> None:
    """Show a film with its answer.

    Args:
        service: reads the film again for its pictures.
        served: the version that answered.
        outcome: what is known of the film.
    """
    drawn = ' <span class="cxr-drawn">drawn example, not a patient</span>' if outcome.film.drawn else ""
    st.html(f'<h2 class="cxr-name">{escape(outcome.film.name)}{drawn}</h2>')
    if not outcome.preview:
        st.error(outcome.why_not, icon=":material/error:")
        return
    answered, pictures = st.columns([5, 7], gap="large")
    with answered:
        _answer(served, outcome)
    with pictures:
        _pictures(service, served, outcome)


def _answer(served: Served, outcome: Outcome) -> None:
    cut = threshold.current(served)
    label, probability = outcome.label(cut), outcome.probability
    st.html(probability_scale.STYLE + probability_scale.answer_line(label, probability))
    if outcome.film.drawn and served.card.dataset_kind != "phantom":
        st.info(
            "This model has learned from radiographs of people. What it says of a drawing means nothing, and it may "
            "refuse one.",
            icon=":material/info:",
        )
    if label is None or probability is None:
        st.error(outcome.why_not, icon=":material/block:")
        return
    st.html(probability_scale.STYLE + probability_scale.scale(probability, cut))
    if cut != threshold.own(served):
        st.caption("The threshold was moved by hand: the label follows it, the probability does not.")
    threshold.slider(served)
    st.caption(
        "The probability is calibrated on films like those the model was trained on. "
        f"“{verdict(PNEUMONIA)}” means: at or above the threshold. It is no finding."
    )


@st.fragment
def _pictures(service: Service, served: Served, outcome: Outcome) -> None:
    came, seen = st.tabs(["As it came", "As the network sees it"], key="pictures of the film", on_change="rerun")
    with came:
        _as_it_came(service, served, outcome)
    if seen.open:  # decoded once more only if somebody looks
        with seen:
            _as_seen(service, served, outcome)


def _as_it_came(service: Service, served: Served, outcome: Outcome) -> None:
    wanted = outcome.probability is not None and st.toggle(
        "Show what counted for the network (Grad-CAM)",
        key="heat wanted",
        help="The network's own account of where it looked. It helps to spot a wrong reason; it does not show disease.",
    )
    size = f"{outcome.width} × {outcome.height} pixels"
    if not wanted:
        st.image(outcome.preview, alt=f"The film as it came, {size}", width="stretch")
        st.caption(f"{size}; grey as the file says it.")
        return
    opacity = st.slider("Opacity of the overlay, in per cent", 0, 100, 60, 5, key="opacity")
    blended = overlay(*_heat(service, served, outcome), opacity / 100)
    st.image(
        _jpeg(blended),
        alt="The film with Grad-CAM laid over it: the line goes round the regions that counted most",
        width="stretch",
    )
    st.caption(
        "Yellow, inside the line: what raised the probability most. Uncovered: what counted little. "
        "The map is relative: a healthy film has a strongest place too."
    )


def _as_seen(service: Service, served: Served, outcome: Outcome) -> None:
    views = _views(service, served, outcome)
    places = st.tabs([view.title for view in views]) if len(views) > 1 else [st.container()]
    for place, view in zip(places, views, strict=True):
        with place:
            for plane in view.planes:
                st.image(_png(plane), alt=f"The film as the network sees it: {view.title}")
            st.caption(view.treatment if len(views) > 1 else f"{view.title}. {view.treatment}")


def _views(service: Service, served: Served, outcome: Outcome) -> list[NetworkView]:
    kept = _kept(served, outcome)
    if kept.views is None:
        kept.views = network_views(served.predictor, _again(service, outcome).grey)
    return kept.views


def _heat(service: Service, served: Served, outcome: Outcome) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The film and its heat map, both of the page's size."""
    kept = _kept(served, outcome)
    if kept.heat is None:
        with st.spinner("Finding out what counted"):
            picture = _again(service, outcome)
            film = shrunk(picture.grey)
            size = film.shape[::-1]
            heat = cv2.resize(service.heat(served, picture), size, interpolation=cv2.INTER_AREA)
            kept.heat = film, np.asarray(heat, dtype=np.float32)
    return kept.heat


def _again(service: Service, outcome: Outcome) -> Picture:
    """Decode the film once more: the page keeps no picture in full size."""
    return service.read(outcome.film.read())


@dataclass
class _Pictures:
    """What was computed for the film on show."""

    key: tuple[str, str, str]
    views: list[NetworkView] | None = None
    heat: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = None


def _kept(served: Served, outcome: Outcome) -> _Pictures:
    """What was computed for the film on show; what belongs to the one before is forgotten."""
    key = (served.version, served.since.isoformat(), outcome.film.key)
    kept: _Pictures | None = st.session_state.get(_KEPT)
    if kept is None or kept.key != key:
        kept = st.session_state[_KEPT] = _Pictures(key)
    return kept


def _jpeg(colours: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".jpeg", cv2.cvtColor(colours, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return bytes(data.tobytes())


def _png(plane: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".png", plane)
    return bytes(data.tobytes())
