"""What stands around every page: who answers, what must be known about it, and what it is not for."""

from __future__ import annotations

from functools import cache
from urllib.parse import quote, urlsplit, urlunsplit

import cv2
import numpy as np
import streamlit as st
from PIL.Image import Image, fromarray

from cxr.app.service import Service
from cxr.app.settings import Settings
from cxr.app.texts import RESEARCH
from cxr.promotion.log import CHAMPION
from cxr.serving.model_provider import Served

CARD_PATH = "card"
_SEEN = "version seen"

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


def banners(served: Served) -> list[str]:
    """Collect what must be known about the version before its answers are read.

    Args:
        served: the version that answers.

    Returns:
        Sentences; empty for a champion that was trained on radiographs.
    """
    found = [served.banner] if served.banner else []
    if not served.version:
        found.append("This model comes from a folder: it is no registered version.")
    elif served.alias != CHAMPION and served.alias not in (served.banner or ""):
        found.append(f"Version {served.version} answers as {served.alias}: it is not the champion.")
    return found


@cache
def icon() -> Image:
    """Draw the page's sign: two lungs. Streamlit would have the browser fetch one from another server.

    Returns:
        A picture of 64 × 64 pixels.
    """
    drawn = np.full((64, 64, 3), (0, 114, 178), np.uint8)
    for middle in (20, 44):
        cv2.ellipse(drawn, (middle, 36), (9, 20), 0, 0, 360, (255, 255, 255), -1, cv2.LINE_AA)
    cv2.line(drawn, (32, 8), (32, 30), (255, 255, 255), 4, cv2.LINE_AA)
    return fromarray(drawn)


def top(settings: Settings, service: Service, served: Served) -> None:
    """Show title, version and banners.

    Args:
        settings: what the page was started with.
        service: what answers.
        served: the version that answers.
    """
    st.html(STYLE)
    st.title("Pneumonia on chest radiographs", anchor=False)
    if sentences := banners(served):
        st.warning(f"**{' '.join(sentences)}**", icon=":material/warning:")
    st.markdown(" · ".join(facts(settings, served)))
    if service.problem:
        st.info(service.problem, icon=":material/sync_problem:")
    _announce(served)


def name(served: Served) -> str:
    """Name the version.

    Args:
        served: the version that answers.

    Returns:
        For example ``"version 3 (champion), ensemble"``.
    """
    if not served.version:
        return served.card.model
    return f"version {served.version} ({served.alias}), {served.card.model}"


def facts(settings: Settings, served: Served) -> list[str]:
    """Write the version's name with links.

    Args:
        settings: what the page was started with.
        served: the version that answers.

    Returns:
        Markdown.
    """
    found = [f"Answers: **{name(served)}**", f"[model card]({CARD_PATH})"]
    address = registry_page(settings, served)
    return [*found, f"[in MLflow]({address})"] if address else found


def registry_page(settings: Settings, served: Served) -> str | None:
    """Find the version's page in MLflow.

    Args:
        settings: what the page was started with.
        served: the version that answers.

    Returns:
        Its address, without user and password; None if the store is a file, or the model comes from a folder.
    """
    parts = urlsplit(settings.tracking_uri)
    if parts.scheme not in ("http", "https") or not served.version:
        return None
    host = parts.netloc.rpartition("@")[2]
    root = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    return f"{root}/#/models/{quote(settings.registered_name, safe='')}/versions/{served.version}"


def _announce(served: Served) -> None:
    """Tell a visitor whose page is open that another version has taken over."""
    now = (served.version, served.alias)
    before = st.session_state.get(_SEEN, now)
    if before != now:
        st.toast(f"Version {served.version} ({served.alias}) answers now; all films were answered again.")
    st.session_state[_SEEN] = now


def follow(service: Service, served: Served) -> None:
    """Look now and then whether another version answers, and show the page anew if so.

    Args:
        service: what answers.
        served: the version on this page.
    """

    @st.fragment(run_every=service.settings.seconds)
    def look() -> None:
        if service.current.since != served.since:
            st.rerun()

    look()
