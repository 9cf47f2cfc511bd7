"""One image: its prediction on the left, its views on the right; on a phone one below the other."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import cv2
import numpy as np
import streamlit as st
from numpy.typing import NDArray

from cxr.app import probability_scale, threshold_slider
from cxr.app.box_view import describe_boxes, describe_detector
from cxr.app.network_view import NetworkView, network_views
from cxr.app.service import PageService
from cxr.app.texts import WARNING_TEXTS, describe_prediction_set, format_label
from cxr.app.uploads import PREVIEW_SIDE, ImageOutcome
from cxr.data.dataset import PNEUMONIA
from cxr.images.pixels import shrink
from cxr.images.strict_decoding import DecodedImage
from cxr.inference.explanation import overlay
from cxr.plots.box_overlay import draw_boxes
from cxr.serving.served_model import ServedModel

if TYPE_CHECKING:
    from cxr.regions.scoring import ScoredBox
    from cxr.serving.detector_source import ServedDetector

_VIEWS = "views of the shown image"
"""Key of the computed views in the session."""


def show_image(service: PageService, served: ServedModel, outcome: ImageOutcome) -> None:
    """Show an image with its prediction.

    Args:
        service: decodes the image again for its views.
        served: the model that predicted.
        outcome: what is known about the image.
    """
    drawn = ' <span class="cxr-drawn">drawn example, not a patient</span>' if outcome.image.drawn else ""
    st.html(f'<h2 class="cxr-name">{escape(outcome.image.name)}{drawn}</h2>')
    if not outcome.preview:
        st.error(outcome.reason, icon=":material/error:")
        return
    prediction_column, views_column = st.columns([5, 7], gap="large")
    with prediction_column:
        _show_prediction(served, outcome)
    with views_column:
        _show_views(service, served, outcome)


def _show_prediction(served: ServedModel, outcome: ImageOutcome) -> None:
    threshold = threshold_slider.current_threshold(served)
    label, probability = outcome.label(threshold), outcome.probability
    st.html(probability_scale.STYLE + probability_scale.verdict_html(label, probability))
    for problem, _ in outcome.warnings:
        st.warning(WARNING_TEXTS[problem], icon=":material/warning:")
    if outcome.image.drawn and served.metadata.dataset_kind != "phantom":
        st.info(
            "This model has learned from radiographs of people. What it says of a drawing means nothing, and it may "
            "refuse one.",
            icon=":material/info:",
        )
    if label is None or probability is None:
        st.error(outcome.reason, icon=":material/block:")
        return
    sets = served.metadata.prediction_sets
    st.html(probability_scale.STYLE + probability_scale.scale_html(probability, threshold, sets))
    if threshold != threshold_slider.default_threshold(served):
        followers = "the label follows it, the probability does not" if sets is None else "the label does not follow it"
        st.caption(f"The threshold was moved by hand: {followers}.")
    threshold_slider.show_slider(served)
    meaning = f"“{format_label(PNEUMONIA)}” means: at or above the threshold. It is no finding."
    if sets is not None and outcome.classes is not None:
        meaning = describe_prediction_set(outcome.classes, sets)
    st.caption(f"The probability is calibrated on films like those the model was trained on. {meaning}")


@st.fragment
def _show_views(service: PageService, served: ServedModel, outcome: ImageOutcome) -> None:
    original_tab, network_tab = st.tabs(
        ["As it came", "As the network sees it"], key="tabs of the shown image", on_change="rerun"
    )
    with original_tab:
        _show_original(service, served, outcome)
    if network_tab.open:  # the image is decoded again only if somebody opens the tab
        with network_tab:
            _show_network_views(service, served, outcome)


def _show_original(service: PageService, served: ServedModel, outcome: ImageOutcome) -> None:
    heat_requested = outcome.probability is not None and st.toggle(
        "Show what counted for the network (Grad-CAM)",
        key="heat requested",
        help="The network's own account of where it looked. It helps to spot a wrong reason; it does not show disease.",
    )
    detector = _requested_detector(service, served, outcome)
    size = f"{outcome.width} × {outcome.height} pixels"
    if not heat_requested and detector is None:
        st.image(outcome.preview, alt=f"The film as it came, {size}", width="stretch")
        st.caption(f"{size}; grey as the file says it.")
        return
    description = "The film"
    if heat_requested:
        opacity = st.slider("Opacity of the overlay, in per cent", 0, 100, 60, 5, key="opacity")
        image = overlay(*_heat(service, served, outcome), opacity / 100)
        description += " with Grad-CAM laid over it: the line goes round the regions that counted most"
    else:
        image = _preview_pixels(outcome)
    if detector is not None:
        boxes = _boxes(service, served, detector, outcome)
        summary = describe_boxes(boxes, detector.metadata.threshold or 0.0)
        image = draw_boxes(
            image,
            outcome.width or 1,
            boxes,
            side=PREVIEW_SIDE,
            phantom=detector.metadata.dataset_kind == "phantom",
        )
        description += (
            f", and the detector's boxes. {summary}" if heat_requested else f" with the detector's boxes. {summary}"
        )
        if detector.banner:
            st.warning(f"**{detector.banner}**", icon=":material/warning:")
        st.markdown(f"**{summary}**")
    st.image(_encode(".jpeg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR)), alt=description, width="stretch")
    if heat_requested:
        st.caption(
            "Yellow, inside the line: what raised the probability most. Uncovered: what counted little. "
            "The map is relative: a healthy film has a strongest place too."
        )
    if detector is not None:
        st.caption(f"{size}. {describe_detector(detector, service.detector_name)}")


def _requested_detector(service: PageService, served: ServedModel, outcome: ImageOutcome) -> ServedDetector | None:
    """The detector whose boxes the visitor wants; None without a detector, or for an image without a prediction.

    Boxes are shown at first, unless the detector was trained on phantoms and the classifier on patients.
    """
    detector = service.detector
    if detector is None or outcome.probability is None:
        return None
    trusted = detector.matches(served.metadata)
    is_requested = st.toggle(
        "Show the detector's boxes",
        value=trusted,
        key=f"boxes requested, {trusted}",
        help="A second network draws boxes around what looks like an opacity. It misses some, and some are none.",
    )
    return detector if is_requested else None


def _show_network_views(service: PageService, served: ServedModel, outcome: ImageOutcome) -> None:
    views = _network_views(service, served, outcome)
    containers = st.tabs([view.title for view in views]) if len(views) > 1 else [st.container()]
    for container, view in zip(containers, views, strict=True):
        with container:
            for plane in view.planes:
                st.image(_encode(".png", plane), alt=f"The film as the network sees it: {view.title}")
            st.caption(view.description if len(views) > 1 else f"{view.title}. {view.description}")


@dataclass
class _ComputedViews:
    """What was computed for the shown image."""

    key: tuple[str, str, str]
    network_views: list[NetworkView] | None = None
    heat: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = None
    boxes: tuple[str, tuple[ScoredBox, ...]] | None = None


def _computed_views(served: ServedModel, outcome: ImageOutcome) -> _ComputedViews:
    """What was computed for the shown image; the views of the image before it are dropped."""
    key = (served.version, served.since.isoformat(), outcome.image.key)
    computed: _ComputedViews | None = st.session_state.get(_VIEWS)
    if computed is None or computed.key != key:
        computed = st.session_state[_VIEWS] = _ComputedViews(key)
    return computed


def _network_views(service: PageService, served: ServedModel, outcome: ImageOutcome) -> list[NetworkView]:
    computed = _computed_views(served, outcome)
    if computed.network_views is None:
        computed.network_views = network_views(served.predictor, _decode_again(service, outcome).grey)
    return computed.network_views


def _heat(
    service: PageService, served: ServedModel, outcome: ImageOutcome
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The image and its heat map, both of the size on the page."""
    computed = _computed_views(served, outcome)
    if computed.heat is None:
        with st.spinner("Finding out what counted"):
            decoded = _decode_again(service, outcome)
            grey = shrink(decoded.grey, PREVIEW_SIDE)
            size = grey.shape[::-1]
            heat = cv2.resize(service.heat_map(served, decoded), size, interpolation=cv2.INTER_AREA)
            computed.heat = grey, np.asarray(heat, dtype=np.float32)
    return computed.heat


def _boxes(
    service: PageService, served: ServedModel, detector: ServedDetector, outcome: ImageOutcome
) -> tuple[ScoredBox, ...]:
    """The boxes of the image, drawn once per detector."""
    computed, key = _computed_views(served, outcome), f"{detector.version} {detector.since.isoformat()}"
    if computed.boxes is None or computed.boxes[0] != key:
        with st.spinner("Looking for opacities"):
            computed.boxes = key, service.draw_boxes(detector, _decode_again(service, outcome))
    return computed.boxes[1]


def _preview_pixels(outcome: ImageOutcome) -> NDArray[np.uint8]:
    """The image in the size of the page, ``(height, width)`` uint8."""
    return np.asarray(cv2.imdecode(np.frombuffer(outcome.preview, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


def _decode_again(service: PageService, outcome: ImageOutcome) -> DecodedImage:
    """Decode the image again: the page keeps no image in full size."""
    return service.decode(outcome.image.read())


def _encode(suffix: str, pixels: NDArray[np.uint8]) -> bytes:
    parameters = [cv2.IMWRITE_JPEG_QUALITY, 90] if suffix == ".jpeg" else []
    _, data = cv2.imencode(suffix, pixels, parameters)
    return bytes(data.tobytes())
