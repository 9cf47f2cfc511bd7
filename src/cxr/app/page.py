"""The two pages: answers for films, and the card of the version that answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import streamlit as st

from cxr.app import answer_table, image_view, page_frame, threshold
from cxr.app.examples import EXAMPLES, draw
from cxr.app.service import Service, opened
from cxr.app.settings import Settings
from cxr.app.uploads import Film, outcomes
from cxr.errors import CxrError

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Carry out one run of Streamlit's script for one visitor.

    Args:
        settings: what the page was started with.
    """
    st.set_page_config(page_title="Pneumonia on chest radiographs", page_icon=page_frame.icon(), layout="wide")
    pages = [
        st.Page(lambda: _with_service(settings, _films), title="Films", url_path="films", default=True),
        st.Page(lambda: _with_service(settings, _card), title="Model card", url_path=page_frame.CARD_PATH),
    ]
    st.navigation(pages, position="hidden").run()


def _with_service(settings: Settings, body: Callable[[Settings, Service], None]) -> None:
    try:
        service = opened(settings)
    except CxrError as error:
        log.warning("no model answers: %s", error)
        st.html(page_frame.STYLE)
        st.title("Pneumonia on chest radiographs", anchor=False)
        st.error(f"**No model can answer at the moment.** {error}", icon=":material/error:")
        st.button("Try again", icon=":material/refresh:")
        return
    try:
        body(settings, service)
    except CxrError as error:
        log.warning("a film could not be answered: %s", error)
        st.error(f"**This cannot be answered at the moment.** {error}", icon=":material/error:")


def _films(settings: Settings, service: Service) -> None:
    served = service.current
    page_frame.top(settings, service, served)
    films = _chosen(settings)
    if films:
        found = outcomes(service, served, films)
        one = answer_table.choose(found, served, threshold.current(served)) if len(found) > 1 else found[0]
        image_view.show(service, served, one)
    page_frame.follow(service, served)


def _chosen(settings: Settings) -> list[Film]:
    """Uploaded films, then drawn examples."""
    uploaded = st.file_uploader(
        f"Drop or choose frontal chest radiographs: JPEG, PNG or DICOM, up to {settings.max_files} at once",
        accept_multiple_files=True,
        help=_kept(settings),
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
        *(Film(file.file_id, file.name, file.getvalue) for file in uploaded),
        *(Film(one.name, one.name, partial(draw, one), drawn=True) for one in examples),
    ]


def _kept(settings: Settings) -> str:
    """What becomes of an uploaded film."""
    if settings.log_predictions is None:
        return "Files are read in memory and forgotten when you leave. Nothing is stored."
    if settings.log_pixels:
        return "Each picture and its answer are stored, without the file's name and without data of the patient."
    return "Files are forgotten when you leave. The answers and a few figures of each picture are stored, no picture."


def _card(settings: Settings, service: Service) -> None:
    served = service.current
    page_frame.top(settings, service, served)
    if served.about is None:
        st.info("This version has no model card.")
    else:
        st.markdown(served.about)
    page_frame.follow(service, served)
