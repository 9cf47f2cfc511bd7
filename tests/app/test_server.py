"""How the page is started: nothing is told to others, nothing of an error is shown, a taken port is said."""

from __future__ import annotations

import socket

import pytest

from cxr.app.server import options, serve
from cxr.app.settings import Settings
from cxr.errors import ParameterError


def test_streamlit_is_started_quietly_and_safely():
    from streamlit import config
    from streamlit.web import bootstrap

    bootstrap.load_config_options(options(Settings(max_megabytes=7), "127.0.0.1", 8501))
    try:
        expected = {
            "browser.gatherUsageStats": False,
            "server.headless": True,
            "server.enableXsrfProtection": True,
            "server.enableCORS": True,
            "server.maxUploadSize": 7,
            "server.address": "127.0.0.1",
            "server.enableAgentApi": False,
            "client.showErrorDetails": "none",
        }
        assert {key: config.get_option(key) for key in expected} == expected
    finally:
        bootstrap.load_config_options({})


def test_a_taken_port_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ParameterError, match=f"expected a free address, received host=127.0.0.1, port={port}"):
            serve(Settings(), "127.0.0.1", port)
