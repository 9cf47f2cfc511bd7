"""Starts the page: Streamlit's server in this process, with safe settings that override those of the machine."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from pathlib import Path

from cxr.app.settings import AppSettings
from cxr.errors import CxrError
from cxr.serving.addresses import address_error

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).parent / "script" / "main.py"
BLUE = "#0072B2"
LIGHT_BLUE = "#56B4E9"
"""Sky blue of Okabe and Ito, which is visible on a dark page."""


def streamlit_options(settings: AppSettings, host: str, port: int) -> dict[str, object]:
    """Get the settings for Streamlit.

    Args:
        settings: limits of files.
        host: address to listen on.
        port: port to listen on.

    Returns:
        Names as on Streamlit's command line to values; they override its files and environment variables.
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


def serve(settings: AppSettings, host: str, port: int) -> None:
    """Serve the page until interrupted.

    Args:
        settings: settings of the page.
        host: address to listen on; 127.0.0.1 is this machine alone.
        port: port to listen on.

    Raises:
        ParameterError: if the address is in use or not allowed.
    """
    _expect_free(host, port)
    from streamlit.web import bootstrap

    options = streamlit_options(settings, host, port)
    bootstrap.load_config_options(options)
    logging.getLogger("uvicorn.error").addFilter(_is_not_disconnect)
    # Streamlit warns when its cache is used before the first visit, as the warm-up does.
    logging.getLogger("streamlit.runtime.scriptrunner_utils.script_run_context").setLevel(logging.ERROR)
    threading.Thread(target=_warm_up, args=(settings,), name="warm-up", daemon=True).start()
    sys.stdout.write(f"The page is on http://{_url_host(host)}:{port} (Ctrl+C ends it)\n")
    sys.stdout.flush()
    bootstrap.run(str(SCRIPT), False, [settings.to_text()], options)


def _warm_up(settings: AppSettings) -> None:
    """Load the model before the first visit. The page shows the same error if that fails."""
    from cxr.app.service import shared_service

    try:
        shared_service(settings)
    except CxrError as error:
        log.warning("no model can predict yet: %s", error)
    except Exception:  # the page runs into the same error and shows it
        log.exception("the model cannot be loaded")


def _is_not_disconnect(record: logging.LogRecord) -> bool:
    """Filter of log records: Streamlit logs an error when a visitor leaves while the page is sent; it is none."""
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ not in ("WebSocketDisconnected", "WebSocketDisconnect")


def _expect_free(host: str, port: int) -> None:
    """Raise an error that says what to do; Streamlit would only end the process."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        raise address_error(host, port, error) from error


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
