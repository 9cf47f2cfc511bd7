"""What frames both pages: title, version, notices, and the sentence that the page is for research only."""

from __future__ import annotations

from functools import cache
from urllib.parse import quote, urlsplit, urlunsplit

import cv2
import numpy as np
import streamlit as st
from PIL.Image import Image, fromarray

from cxr.app.service import PageService
from cxr.app.settings import AppSettings
from cxr.app.texts import RESEARCH
from cxr.promotion.log import CHAMPION
from cxr.serving.served_model import ServedModel

CARD_PATH = "card"
_SHOWN_VERSION = "shown version"

STYLE = f"""<style>
.cxr-research {{ position: fixed; left: 0; right: 0; bottom: 0; z-index: 1000; padding: .35rem 1rem; text-align: center;
  background: #E69F00; color: #000; font-weight: 600; }}
.block-container {{ padding-top: 2.5rem; padding-bottom: 5rem; max-width: 80rem; }}
h1 {{ font-size: clamp(1.5rem, 4vw, 2.2rem) !important; }}
h2.cxr-name {{ font-size: 1.25rem; padding: 1rem 0 0; margin: .5rem 0 0; border-top: 1px solid #8886;
  overflow-wrap: anywhere; }}
.cxr-drawn {{ display: inline-block; font-size: .8rem; font-weight: 600; padding: .1em .5em;
  border: 1px solid currentColor; border-radius: .4em; vertical-align: middle; white-space: nowrap; }}
</style><div class="cxr-research" role="note">{RESEARCH}</div>"""


def banners(served: ServedModel) -> list[str]:
    """Collect the notices that a visitor must read before the predictions.

    Args:
        served: the model that predicts.

    Returns:
        Sentences; empty for a champion that was trained on radiographs of patients.
    """
    sentences = [served.banner] if served.banner else []
    if not served.version:
        sentences.append("This model comes from a folder: it is no registered version.")
    elif served.alias != CHAMPION and served.alias not in (served.banner or ""):
        sentences.append(f"Version {served.version} answers as {served.alias}: it is not the champion.")
    return sentences


@cache
def draw_icon() -> Image:
    """Draw the icon of the page: two lungs. For an emoji the browser would ask another server.

    Returns:
        An image of 64 × 64 pixels.
    """
    drawn = np.full((64, 64, 3), (0, 114, 178), np.uint8)
    for middle in (20, 44):
        cv2.ellipse(drawn, (middle, 36), (9, 20), 0, 0, 360, (255, 255, 255), -1, cv2.LINE_AA)
    cv2.line(drawn, (32, 8), (32, 30), (255, 255, 255), 4, cv2.LINE_AA)
    return fromarray(drawn)


def show_header(settings: AppSettings, service: PageService, served: ServedModel) -> None:
    """Show title, version and banners.

    Args:
        settings: settings of the page.
        service: gives the current model.
        served: the model that predicts.
    """
    st.html(STYLE)
    st.title("Pneumonia on chest radiographs", anchor=False)
    if sentences := banners(served):
        st.warning(f"**{' '.join(sentences)}**", icon=":material/warning:")
    st.markdown(" · ".join(version_links(settings, served)))
    if service.problem:
        st.info(service.problem, icon=":material/sync_problem:")
    _announce_new_version(served)


def version_name(served: ServedModel) -> str:
    """Write the name of the version.

    Args:
        served: the model that predicts.

    Returns:
        For example ``"version 3 (champion), ensemble"``.
    """
    if not served.version:
        return served.metadata.model
    return f"version {served.version} ({served.alias}), {served.metadata.model}"


def version_links(settings: AppSettings, served: ServedModel) -> list[str]:
    """Write the version's name with links.

    Args:
        settings: settings of the page.
        served: the model that predicts.

    Returns:
        Markdown.
    """
    links = [f"Answers: **{version_name(served)}**", f"[model card]({CARD_PATH})"]
    url = registry_page_url(settings, served)
    return [*links, f"[in MLflow]({url})"] if url else links


def registry_page_url(settings: AppSettings, served: ServedModel) -> str | None:
    """Build the address of the version's page in MLflow.

    Args:
        settings: settings of the page.
        served: the model that predicts.

    Returns:
        The address without user and password; None if the store is a file, or the model comes from a folder.
    """
    parts = urlsplit(settings.tracking_uri)
    if parts.scheme not in ("http", "https") or not served.version:
        return None
    host = parts.netloc.rpartition("@")[2]
    root = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    return f"{root}/#/models/{quote(settings.choice.registered_name, safe='')}/versions/{served.version}"


def _announce_new_version(served: ServedModel) -> None:
    """Tell a visitor with an open page that another version predicts now."""
    current = (served.version, served.alias)
    if st.session_state.get(_SHOWN_VERSION, current) != current:
        st.toast(f"Version {served.version} ({served.alias}) answers now; all films were answered again.")
    st.session_state[_SHOWN_VERSION] = current


def rerun_on_new_version(service: PageService, served: ServedModel) -> None:
    """Check at intervals whether another version predicts or draws boxes, and run the page again if so.

    Args:
        service: gives the current model.
        served: the model on this page.
    """

    detector = service.detector
    shown = (served.since, detector and detector.since)

    @st.fragment(run_every=service.settings.seconds)
    def check() -> None:
        current_detector = service.detector
        current = (service.current.since, current_detector and current_detector.since)
        if current != shown:
            st.rerun()

    check()
