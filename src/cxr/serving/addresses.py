"""Addresses that a service listens on, and why one of them cannot be used."""

from __future__ import annotations

import errno

from cxr.errors import ParameterError


def address_error(host: str, port: int, error: OSError | UnicodeError) -> ParameterError:
    """Explain why an address cannot be used.

    Args:
        host: the address or name.
        port: the port.
        error: what looking it up or binding it has raised.

    Returns:
        The error, with what to do.
    """
    number = error.errno if isinstance(error, OSError) else None
    reason = error.strerror if isinstance(error, OSError) else "no name of a machine"
    if number == errno.EADDRINUSE:
        advice = "end the program that listens there, or choose another port"
    elif number == errno.EACCES:
        advice = "choose a port from 1024 on"
    else:
        advice = "choose an address of this machine: 127.0.0.1 for this machine alone, 0.0.0.0 for all its networks"
    return ParameterError(
        [f"expected a free address of this machine, received host={host}, port={port} ({reason}); {advice}"]
    )
