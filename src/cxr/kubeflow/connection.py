"""The way to Kubeflow Pipelines: address, token, certificates, patience, and further tries.

The generated client ``kfp_server_api`` is spoken to directly: ``kfp.Client`` has no time-outs, waits 25 s for a
server that is not there, prints, keeps a file in the home folder, and takes seconds to import.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.errors import ClusterError
from cxr.kubeflow.api_errors import Asked, not_kubeflow, refusal

log = logging.getLogger(__name__)

PAUSES = (0.5, 2.0, 5.0)
"""Seconds before each further try after a failure that may pass."""
CONTACT = 5
"""Seconds that the first contact may take at most."""


@dataclass(frozen=True)
class Access:
    """What is needed to speak to Kubeflow Pipelines.

    Attributes:
        host: address without a slash at its end, e.g. ``https://kubeflow.example.org/pipeline``.
        token_variable: environment variable with a token; where it is not set, none is sent.
        token_file: file with a token, read for each request, since Kubernetes renews it; beats the variable.
        verify: whether the server's certificate is checked.
        ca_file: certificates of the authorities to trust; None for the usual ones.
        seconds: how long an answer may take.
    """

    host: str
    token_variable: str = "KFP_TOKEN"
    token_file: Path | None = None
    verify: bool = True
    ca_file: Path | None = None
    seconds: int = 30

    @property
    def token_source(self) -> str:
        """Where the token comes from, as a person would look for it."""
        return f"token_file={self.token_file}" if self.token_file else f"the environment variable {self.token_variable}"

    def token(self) -> str:
        """Read the token.

        Returns:
            The token without white space around it; empty if there is none.

        Raises:
            ClusterError: if the file cannot be read or is empty, or what is there cannot be a token.
        """
        if self.token_file is None:
            found = os.environ.get(self.token_variable, "").strip()
        else:
            try:
                found = self.token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "no text"
                raise ClusterError(
                    f"expected a file with a token, received {self.token_source} ({why}); mount the service account's "
                    "token there, or set token_file to null"
                ) from None
            if not found:
                raise ClusterError(f"expected a token, received {self.token_source}, which is empty")
        if not (found.isascii() and found.isprintable()) or " " in found:
            raise ClusterError(f"expected one token without spaces, received other text in {self.token_source}")
        return found


class Connection:
    """Requests to one server; failures that may pass are tried again, the others told."""

    def __init__(self, access: Access) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            access: address, token, certificates and patience.
        """
        import kfp_server_api
        import urllib3

        self.access = access
        settings = kfp_server_api.Configuration(host=access.host)
        settings.verify_ssl = access.verify
        settings.ssl_ca_cert = str(access.ca_file) if access.ca_file else None
        settings.retries = False  # else urllib3 follows redirects to login pages, and tries again in silence
        if not access.verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self.client = kfp_server_api.ApiClient(settings)

    def ask(self, request: Callable[..., Any], *arguments: Any, doing: str, again: bool = False, **named: Any) -> Any:
        """Send one request.

        Args:
            request: method of a service of ``kfp_server_api`` made with :attr:`client`.
            *arguments: its arguments.
            doing: what it is for, to continue "expected Kubeflow Pipelines to ...".
            again: whether it does no harm twice, so that it is sent again after a broken connection.
            **named: its named arguments.

        Returns:
            The answer, as an object of the client's models.

        Raises:
            ClusterError: in plain words, after some tries if the failure may pass.
        """
        patience = (min(CONTACT, self.access.seconds), self.access.seconds)
        pauses = iter(PAUSES)
        while True:
            asked = self._prepared(doing, order=not again)
            try:
                answer = request(*arguments, _request_timeout=patience, **named)
            except Exception as error:
                found = refusal(error, asked)
                if found is None:
                    raise
                pause = next(pauses, None)
                if pause is None or not (found.passing or (found.broken and again)):
                    raise found.error from error
                log.warning("%s; trying again in %g s", found.error, pause)
                time.sleep(pause)
                continue
            if not str(self.client.last_response.data).lstrip().startswith("{"):
                raise not_kubeflow(asked)
            return answer

    def _prepared(self, doing: str, *, order: bool) -> Asked:
        """Put the present token into the client, and note what is asked."""
        access, keys = self.access, self.client.configuration.api_key
        token = access.token()
        if token:
            keys["authorization"] = f"Bearer {token}"
        return Asked(access.host, doing, access.seconds, access.token_source, bool(token), access.ca_file, order)
