"""The two pages: predictions for images, and the model card of the version that predicts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import streamlit as st

from cxr.app import image_view, page_frame, prediction_table, threshold_slider
from cxr.app.examples import EXAMPLES, draw_example
from cxr.app.service import PageService, shared_service
from cxr.app.settings import AppSettings
from cxr.app.uploads import UploadedImage, predict_images
from cxr.errors import CxrError

log = logging.getLogger(__name__)


def run_page(settings: AppSettings) -> None:
    """Run Streamlit's script once for one visitor.

    Args:
        settings: settings of the page.
    """
    st.set_page_config(page_title="Pneumonia on chest radiographs", page_icon=page_frame.draw_icon(), layout="wide")
    pages = [
        st.Page(lambda: _with_service(settings, _show_predictions), title="Films", url_path="films", default=True),
        st.Page(lambda: _with_service(settings, _show_model_card), title="Model card", url_path=page_frame.CARD_PATH),
    ]
    st.navigation(pages, position="hidden").run()


def _with_service(settings: AppSettings, body: Callable[[AppSettings, PageService], None]) -> None:
    try:
        service = shared_service(settings)
    except CxrError as error:
        log.warning("no model can predict: %s", error)
        st.html(page_frame.STYLE)
        st.title("Pneumonia on chest radiographs", anchor=False)
        st.error(f"**No model can answer at the moment.** {error}", icon=":material/error:")
        st.button("Try again", icon=":material/refresh:")
        return
    try:
        body(settings, service)
    except CxrError as error:
        log.warning("there is no prediction for an image: %s", error)
        st.error(f"**This cannot be answered at the moment.** {error}", icon=":material/error:")


def _show_predictions(settings: AppSettings, service: PageService) -> None:
    served = service.current
    page_frame.show_header(settings, service, served)
    images = _choose_images(settings)
    if images:
        outcomes = predict_images(service, served, images)
        threshold = threshold_slider.current_threshold(served)
        several = len(outcomes) > 1
        shown = prediction_table.choose_image(outcomes, served, threshold) if several else outcomes[0]
        image_view.show_image(service, served, shown)
    page_frame.rerun_on_new_version(service, served)


def _choose_images(settings: AppSettings) -> list[UploadedImage]:
    """The uploaded images, then the chosen examples."""
    uploaded = st.file_uploader(
        f"Drop or choose frontal chest radiographs: JPEG, PNG or DICOM, up to {settings.max_files} at once",
        accept_multiple_files=True,
        help=_storage_notice(settings),
    )
    if len(uploaded) > settings.max_files:
        st.warning(
            f"{len(uploaded)} files are too many at once: the first {settings.max_files} are answered. "
            "`cxr predict` takes whole folders.",
            icon=":material/warning:",
        )
        uploaded = uploaded[: settings.max_files]
    examples = st.pills(
        "Or look at a drawn example",
        EXAMPLES,
        selection_mode="multi",
        format_func=lambda example: example.title,
        help="Drawn by this program. They show no patient.",
    )
    return [
        *(UploadedImage(file.file_id, file.name, file.getvalue) for file in uploaded),
        *(UploadedImage(each.name, each.name, partial(draw_example, each), drawn=True) for each in examples),
    ]


def _storage_notice(settings: AppSettings) -> str:
    """Says which data of an uploaded image is stored."""
    if settings.log_predictions is None:
        return "Files are read in memory and forgotten when you leave. Nothing is stored."
    if settings.log_pixels:
        return "Each picture and its answer are stored, without the file's name and without data of the patient."
    return "Files are forgotten when you leave. The answers and a few figures of each picture are stored, no picture."


def _show_model_card(settings: AppSettings, service: PageService) -> None:
    served = service.current
    page_frame.show_header(settings, service, served)
    if served.model_card is None:
        st.info("This version has no model card.")
    else:
        st.markdown(served.model_card)
    detector = service.detector
    if detector is not None and detector.model_card is not None:
        st.divider()
        st.markdown(detector.model_card)
    page_frame.rerun_on_new_version(service, served)
