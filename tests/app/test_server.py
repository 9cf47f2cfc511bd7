"""How the page is started: no data goes to other servers, no error details are shown, a used port is reported."""

from __future__ import annotations

import socket

import pytest

from cxr.app.server import serve, streamlit_options
from cxr.errors import ParameterError
from cxr.steps.app import App


def test_streamlit_is_started_with_safe_settings():
    from streamlit import config
    from streamlit.web import bootstrap

    bootstrap.load_config_options(streamlit_options(App.build({"max_megabytes": 7}).settings(), "127.0.0.1", 8501))
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


def test_a_used_port_is_reported():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ParameterError, match=f"received host=127.0.0.1, port={port} .*another port"):
            serve(App.build({}).settings(), "127.0.0.1", port)
