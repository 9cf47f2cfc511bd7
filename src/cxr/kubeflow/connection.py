"""Requests to Kubeflow Pipelines with token, certificates, time limits and retries, and search by name.

This package uses the generated client ``kfp_server_api`` directly. ``kfp.Client`` has no time limits, waits 25 s for
a server that does not exist, prints, keeps a file in the home folder, and takes seconds to import.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.errors import ClusterError
from cxr.kubeflow.api_errors import RequestContext, explain_failure, unexpected_response

log = logging.getLogger(__name__)

RETRY_PAUSES = (0.5, 2.0, 5.0)
"""Seconds before each retry after a temporary failure."""
CONNECT_TIMEOUT = 5
"""Longest time for opening a connection, in seconds."""
PAGE_SIZE = 100
"""Objects that a listing returns at once."""
LOG_TIMEOUT = 10.0
"""Longest time for reading a log, in seconds."""
LOG_BYTES = 500_000
"""Bytes at the end of a log that are returned."""


@dataclass(frozen=True)
class ConnectionSettings:
    """How Kubeflow Pipelines is reached.

    Attributes:
        host: address without a slash at its end, e.g. ``https://kubeflow.example.org/pipeline``.
        token_variable: environment variable with a token; if it is not set, no token is sent.
        token_file: file with a token, which takes precedence over the variable. It is read for each request because
            Kubernetes renews it.
        verify: whether the server's certificate is checked.
        ca_file: certificates of the authorities to trust; None for the usual ones.
        timeout: longest time for a response, in seconds.
    """

    host: str
    token_variable: str
    token_file: Path | None
    verify: bool
    ca_file: Path | None
    timeout: int

    @property
    def token_source(self) -> str:
        """Where the token comes from, for messages."""
        return f"token_file={self.token_file}" if self.token_file else f"the environment variable {self.token_variable}"

    def token(self) -> str:
        """Read the token.

        Returns:
            The token without white space around it; empty if there is none.

        Raises:
            ClusterError: if the file cannot be read or is empty, or its content cannot be a token.
        """
        if self.token_file is None:
            token = os.environ.get(self.token_variable, "").strip()
        else:
            try:
                token = self.token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not text"
                raise ClusterError(
                    f"expected a file with a token, received {self.token_source} ({reason}); mount the service "
                    "account's token there, or set token_file to null"
                ) from None
            if not token:
                raise ClusterError(f"expected a token, received {self.token_source}, which is empty; put a token there")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ClusterError(f"expected one token without spaces, received other text in {self.token_source}")
        return token


class KubeflowConnection:
    """Requests to one server; temporary failures are retried, all others are raised."""

    def __init__(self, settings: ConnectionSettings) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            settings: address, token, certificates and time limits.
        """
        import kfp_server_api
        import urllib3

        self.settings = settings
        configuration = kfp_server_api.Configuration(host=settings.host)
        configuration.verify_ssl = settings.verify
        configuration.ssl_ca_cert = str(settings.ca_file) if settings.ca_file else None
        configuration.retries = False  # otherwise urllib3 follows redirects to login pages and retries silently
        if not settings.verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self.client = kfp_server_api.ApiClient(configuration)

    def send(
        self, method: Callable[..., Any], *arguments: Any, purpose: str, idempotent: bool = False, **named: Any
    ) -> Any:
        """Send one request.

        Args:
            method: method of a service of ``kfp_server_api`` made with :attr:`client`.
            *arguments: its arguments.
            purpose: what the request is for, to continue "expected Kubeflow Pipelines to ...".
            idempotent: whether sending the request twice does no harm; then it is also retried after the connection
                broke.
            **named: its named arguments.

        Returns:
            The response, as an object of the client's models.

        Raises:
            ClusterError: with an explanation; after some retries if the failure may be temporary.
        """
        timeouts = (min(CONNECT_TIMEOUT, self.settings.timeout), self.settings.timeout)
        pauses = iter(RETRY_PAUSES)
        while True:
            request = self._prepare(purpose, idempotent=idempotent)
            try:
                response = method(*arguments, _request_timeout=timeouts, **named)
            except Exception as error:
                failure = explain_failure(error, request)
                if failure is None:
                    raise
                pause = next(pauses, None)
                if pause is None or not (failure.temporary or (failure.connection_broke and idempotent)):
                    raise failure.error from error
                log.warning("%s; trying again in %g s", failure.error, pause)
                time.sleep(pause)
                continue
            if not str(self.client.last_response.data).lstrip().startswith("{"):
                raise unexpected_response(request)
            return response

    def read_log(self, path: str, query: Mapping[str, str]) -> str:
        """Read the end of a log, if that works within some seconds.

        Args:
            path: path of the log behind the server's address.
            query: parameters of the address.

        Returns:
            The text; empty if the server has no such path, or no log, or does not respond.
        """
        from urllib3.exceptions import HTTPError

        deadline = time.monotonic() + LOG_TIMEOUT
        self._prepare("read a log", idempotent=True)
        headers = dict(self.client.default_headers)
        self.client.update_params_for_auth(headers, [], ["Bearer"])
        content = b""
        try:
            response = self.client.rest_client.pool_manager.request(
                "GET",
                f"{self.settings.host}{path}",
                fields=dict(query),
                headers=headers,
                timeout=min(LOG_TIMEOUT / 2, self.settings.timeout),
                redirect=False,
                preload_content=False,
            )
            for part in response.stream(2**16):
                content = (content + part)[-LOG_BYTES:]
                if time.monotonic() > deadline:
                    break
            response.close()
        except (HTTPError, OSError):
            return ""
        is_page = "html" in response.headers.get("Content-Type", "")
        return "" if response.status != 200 or is_page else content.decode(errors="replace")

    def _prepare(self, purpose: str, *, idempotent: bool) -> RequestContext:
        """Put the current token into the client and describe the request."""
        settings = self.settings
        token = settings.token()
        if token:
            self.client.configuration.api_key["authorization"] = f"Bearer {token}"
        return RequestContext(
            settings.host, purpose, settings.timeout, settings.token_source, bool(token), settings.ca_file, idempotent
        )


class ResourceLookup:
    """Finds objects by name on one server, in one namespace; the API itself knows only ids."""

    def __init__(self, connection: KubeflowConnection, namespace: str | None) -> None:
        """Store the connection and the namespace.

        Args:
            connection: connection to the server.
            namespace: namespace to look in; None for an installation without namespaces of users.
        """
        self._connection = connection
        self._namespace = namespace

    def find_one(self, listing: Callable[..., Any], field: str, name: str, kind: str, *parent: str) -> Any:
        """Find the first object with a name; the arguments are those of :meth:`find_all`.

        Returns:
            An object of the client's models; None if no object has that name.

        Raises:
            ClusterError: if the server does not respond or refuses.
        """
        return next(iter(self.find_all(listing, field, name, kind, *parent)), None)

    def find_all(self, listing: Callable[..., Any], field: str, name: str, kind: str, *parent: str) -> list[Any]:
        """Find all objects with a name, page by page.

        Args:
            listing: method of a service that lists such objects.
            field: field of the response that holds them.
            name: the name.
            kind: kind of the objects for errors, e.g. ``"experiment"``.
            *parent: arguments of the listing before the filter, e.g. the pipeline of versions.

        Returns:
            Objects of the client's models.

        Raises:
            ClusterError: if the server does not respond or refuses.
        """
        conditions = self.filter_arguments({"display_name": name}, namespaced=not parent)
        objects: list[Any] = []
        page_token = ""
        while True:
            page = self._connection.send(
                listing,
                *parent,
                **conditions,
                page_token=page_token,
                page_size=PAGE_SIZE,
                purpose=f"find {kind}={name!r}",
                idempotent=True,
            )
            objects += getattr(page, field) or ()
            page_token = page.next_page_token
            if not page_token:
                # The server's filter ignores upper and lower case.
                return [candidate for candidate in objects if candidate.display_name == name]

    def filter_arguments(self, equal: Mapping[str, str], *, namespaced: bool = True) -> dict[str, str]:
        """Filter and namespace of a listing.

        Args:
            equal: field to the value that it must have.
            namespaced: whether the listing is limited to the namespace.

        Returns:
            Named arguments of the listing.
        """
        predicates = [{"operation": "EQUALS", "key": key, "string_value": value} for key, value in equal.items()]
        arguments = {"filter": json.dumps({"predicates": predicates})}
        return {**arguments, "namespace": self._namespace} if self._namespace and namespaced else arguments
