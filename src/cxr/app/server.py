"""Starts the page: Streamlit's server in this process, with safe settings whatever the machine's own say."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from pathlib import Path

from cxr.app.settings import Settings
from cxr.errors import CxrError, ParameterError

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).parent / "script" / "main.py"
BLUE = "#0072B2"
LIGHT_BLUE = "#56B4E9"
"""Okabe and Ito's sky blue, which shows on a dark page."""


def options(settings: Settings, host: str, port: int) -> dict[str, object]:
    """Choose Streamlit's settings.

    Args:
        settings: limits of files.
        host: address to listen on.
        port: port to listen on.

    Returns:
        Names as on Streamlit's command line to values; they beat its files and environment variables.
    """
    return {
        "server_address": host,
        "server_port": port,
        "server_headless": True,
        "server_showEmailPrompt": False,
        "server_enableXsrfProtection": True,
        "server_enableCORS": True,
        "server_enableStaticServing": False,
        "server_enableAgentApi": False,
        "server_fileWatcherType": "none",
        "server_runOnSave": False,
        "server_allowRunOnSave": False,
        "server_maxUploadSize": settings.max_megabytes,
        "browser_gatherUsageStats": False,
        "client_showErrorDetails": "none",
        "client_showErrorLinks": False,
        "client_toolbarMode": "viewer",
        "client_disableDataExport": True,
        "global_developmentMode": False,
        "logger_hideWelcomeMessage": True,
        "logger_enableRich": False,
        "logger_level": "warning",
        "runner_magicEnabled": False,
        "theme_light_primaryColor": BLUE,
        "theme_dark_primaryColor": LIGHT_BLUE,
    }


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve the page until interrupted.

    Args:
        settings: which model answers, and the limits of files.
        host: address to listen on; 127.0.0.1 is this machine alone.
        port: port to listen on.

    Raises:
        ParameterError: if the address cannot be had.
    """
    _expect_free(host, port)
    from streamlit.web import bootstrap

    chosen = options(settings, host, port)
    bootstrap.load_config_options(chosen)
    logging.getLogger("uvicorn.error").addFilter(_no_farewell)
    # Streamlit wonders about its cache being used before a visitor came.
    logging.getLogger("streamlit.runtime.scriptrunner_utils.script_run_context").setLevel(logging.ERROR)
    threading.Thread(target=_warm_up, args=(settings,), name="warm-up", daemon=True).start()
    sys.stdout.write(f"The page is on http://{_shown(host)}:{port} (Ctrl+C ends it)\n")
    sys.stdout.flush()
    bootstrap.run(str(SCRIPT), False, [settings.to_text()], chosen)


def _warm_up(settings: Settings) -> None:
    """Load the model before the first visitor comes; what is wrong with it, the page says as well."""
    from cxr.app.service import opened

    try:
        opened(settings)
    except CxrError as error:
        log.warning("no model can answer yet: %s", error)
    except Exception:  # the page meets the same fault again, and shows it
        log.exception("the model cannot be loaded")


def _no_farewell(record: logging.LogRecord) -> bool:
    """A visitor who leaves while the page is being sent is no fault, though Streamlit reports one at length."""
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ not in ("WebSocketDisconnected", "WebSocketDisconnect")


def _expect_free(host: str, port: int) -> None:
    """Streamlit would end the process without a word on what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
    except OSError as error:
        raise ParameterError(
            [f"expected a free address, received host={host}, port={port} ({error.strerror}); choose another port"]
        ) from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
