"""An address that cannot be listened on is named, with the advice that helps."""

from __future__ import annotations

import socket

import pytest

from cxr.errors import ParameterError
from cxr.serving.rest.supervisor import bind_socket


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid", "a..b"])
def test_an_address_of_no_network_of_this_machine_is_named(host: str) -> None:
    with pytest.raises(ParameterError, match=f"received host={host}, port=0 .*choose an address of this machine"):
        bind_socket(host, 0)


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ParameterError, match=f"port={port} .*choose another port"):
            bind_socket("127.0.0.1", port)
