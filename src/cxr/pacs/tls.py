"""Mutual TLS: the node shows its certificate, and accepts peers whose certificate one of its authorities has signed."""

from __future__ import annotations

import ssl

from cxr.errors import ParameterError
from cxr.pacs.settings import TlsFiles


def make_context(files: TlsFiles, *, server: bool) -> ssl.SSLContext:
    """Read the files for one side of a connection.

    Args:
        files: certificate, key and authorities.
        server: whether the node accepts the connections; otherwise it opens them.

    Returns:
        A context that demands a valid certificate of the peer, and TLS 1.2 or later (PS3.15, B.12).

    Raises:
        ParameterError: if a file is missing or does not hold what it should.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.authorities)
    except (OSError, ssl.SSLError) as error:
        raise ParameterError(
            [
                "expected PEM files of a certificate, its key and the authorities to trust, received "
                f"certificate={files.certificate}, key={files.key}, authorities={files.authorities} "
                f"({error.strerror or error}); correct the paths or the files"
            ]
        ) from error
    return context
