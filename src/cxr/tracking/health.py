"""Whether an MLflow store can be used: an answer of a server within seconds, and a clear reason if not."""

from __future__ import annotations

import os
import re
import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cxr.errors import RegistryError
from cxr.files import is_disk_full

if TYPE_CHECKING:
    from requests import Response

SECONDS = 4
"""Time limit of the check's request, which is sent twice at most."""
SHORT_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""With MLflow's own values, one request to an absent server lasts for minutes."""
STORE_LIBRARIES = ("mlflow", "sqlalchemy", "sqlite3", "alembic", "requests", "urllib3")
STORAGE_LIBRARIES = ("boto3", "botocore", "s3transfer", "azure", "google")
"""Libraries by which MLflow reaches object stores; their errors have no common base class."""
ENDPOINT = "/api/2.0/mlflow/experiments/search"
START_SERVER = "start it, or correct tracking.tracking_uri; or train with tracking.offline: true and log later"
SET_CERTIFICATE = "set MLFLOW_TRACKING_SERVER_CERT_PATH"
CORRECT_PROXY = "correct HTTP_PROXY and HTTPS_PROXY, or name the server in NO_PROXY"
MAKE_WRITABLE = (
    "make the file and its folder writable (their owner, permissions, `chattr -i`, or the mount), or name another "
    "store in tracking.tracking_uri"
)
MAKE_ROOM = "make room on the disk, and run the same command again: what is there already is not written twice"
FILE_REMEDIES = {
    "is locked": "another process (a step, an MLflow server) is writing to it; wait until it has ended, and try again",
    "disk is full": MAKE_ROOM,
    "malformed": "the file is damaged; restore it from a backup, or name another store in tracking.tracking_uri",
    "not a database": "the file is damaged or another kind of file; restore it from a backup, or correct "
    "tracking.tracking_uri",
    "unable to open": "look whether the address names a file, not a folder, and whether this user may read it and may "
    "read and write its folder",
    "readonly": MAKE_WRITABLE,
    "disk i/o error": "the disk or the network share of the file fails, or has no space; look at it, and try again",
}
"""Part of SQLite's text about an error to what to do about the file of a local store."""


def use_short_timeouts() -> None:
    """Let requests to an absent server fail within seconds, for processes that repeat them anyway.

    Variables that the environment sets already stay.
    """
    for name, value in SHORT_LIMITS.items():
        os.environ.setdefault(name, value)


def check_server(uri: str) -> None:
    """Send one request to a server; MLflow's own client would retry for minutes.

    ``MLFLOW_HTTP_REQUEST_TIMEOUT`` and ``MLFLOW_HTTP_REQUEST_MAX_RETRIES`` are respected where they are set.

    Args:
        uri: ``http(s)://`` address of the server.

    Raises:
        RegistryError: with the reason: connection refused, unknown host, no answer, password, host name, no MLflow.
    """
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    retries, timeout = MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
    seconds = timeout.get() if timeout.is_set() else SECONDS
    try:
        response = http_request(
            get_default_host_creds(uri.rstrip("/")),
            ENDPOINT,
            "GET",
            params={"max_results": 1},
            timeout=seconds,
            max_retries=retries.get() if retries.is_set() else 1,
            raise_on_status=False,
        )
    except (MlflowException, OSError) as error:
        raise unreachable(uri, f"{connection_problem(error, uri, seconds)}; {_remedy(error)}") from error
    problem = _response_problem(response, uri)
    if problem is not None:
        raise unreachable(uri, problem)


def unreachable(uri: str, reason: str) -> RegistryError:
    """Make the error about a store that cannot be used.

    Args:
        uri: address of the store; a password in it is not shown.
        reason: what is wrong, and what to do.

    Returns:
        The error.
    """
    return RegistryError(
        f"expected an MLflow store that answers, received tracking uri={hide_passwords(uri)!r}: {reason}"
    )


def is_store_error(error: Exception) -> bool:
    """Whether an error comes from MLflow, from the storage behind it, or from the connection."""
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or library in {*STORE_LIBRARIES, *STORAGE_LIBRARIES}


def file_remedy(error: BaseException) -> str | None:
    """Say what to do about a local store's file, or about the disk of the store.

    Args:
        error: an error of SQLite or of a disk without room, as it is or inside an error of MLflow.

    Returns:
        A clause; None if the error is of another kind.
    """
    if is_disk_full(error) or is_disk_full(error.__cause__ or error):
        return MAKE_ROOM
    texts = [str(error).lower(), str(error.__cause__ or "").lower()]
    if not any("sqlite3." in text for text in texts) and not isinstance(error, sqlite3.Error):
        return None
    return next((remedy for part, remedy in FILE_REMEDIES.items() if any(part in text for text in texts)), None)


def explain(error: BaseException) -> str:
    """First line of an error's text, and what to do where the file or the disk of a local store is at fault."""
    remedy = file_remedy(error)
    return first_line(error) if remedy is None else f"{first_line(error)}; {remedy}"


def first_line(error: BaseException) -> str:
    """First line of an error's text, without passwords of addresses; the error's type if it has no text."""
    return hide_passwords(str(error).partition("\n")[0]) or type(error).__name__


def hide_passwords(text: str) -> str:
    """Replace the password of each address in a text by ``***``."""
    return re.sub(r"(://[^/\s:@]*):[^/\s@]+@", r"\1:***@", text)


def connection_problem(error: BaseException, uri: str, seconds: float) -> str:
    """Say why a request had no response at all.

    Args:
        error: what the request raised.
        uri: the address that was asked.
        seconds: time limit of the request.

    Returns:
        The reason, without what to do.
    """
    types = _error_types(error)
    if "ProxyError" in types:
        return "the proxy that the environment names does not connect to it"
    if "NameResolutionError" in types or "gaierror" in types:
        return f"no machine is known by the name {urlsplit(uri).hostname!r}"
    if any("Timeout" in name for name in types):
        return f"the server did not answer within {seconds} s"
    if _is_certificate_error(error):
        return f"its certificate was not accepted ({first_line(error)})"
    if "ConnectionRefusedError" in types:
        return "nothing listens there (connection refused)"
    if types & {"RemoteDisconnected", "ConnectionResetError", "ConnectionError"}:
        return "it ends the connection without an answer"
    return first_line(error)


def _remedy(error: BaseException) -> str:
    if "ProxyError" in _error_types(error):
        return CORRECT_PROXY
    return SET_CERTIFICATE if _is_certificate_error(error) else START_SERVER


def _is_certificate_error(error: BaseException) -> bool:
    return any("SSLError" in name for name in _error_types(error))


def _error_types(error: BaseException) -> set[str]:
    """Names of the types of an error, of its causes, and of the errors wrapped inside."""
    names: set[str] = set()
    visited: set[int] = set()
    queue: list[object] = [error]
    while queue:
        current = queue.pop()
        if not isinstance(current, BaseException) or id(current) in visited:
            continue
        visited.add(id(current))
        names.add(type(current).__name__)
        queue += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
    return names


def _response_problem(response: Response, uri: str) -> str | None:
    """Why a response is not that of a usable MLflow server; None if it is."""
    status, text = response.status_code, hide_passwords(response.text.strip().partition("\n")[0][:200])
    if status == 401:
        return (
            "it asks for a user and a password, or does not know these (401); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    if status == 403 and "host header" in text.lower():
        return (
            f"it does not accept the host name {urlsplit(uri).netloc.rpartition('@')[2]!r} (403: {text}); "
            "start it with this name in --allowed-hosts"
        )
    if status == 403:
        return f"this user may not read experiments there (403: {text}); ask for the permission"
    if status == 404:
        return "there is a server, but no MLflow (404); correct tracking.tracking_uri"
    if status >= 400:
        return f"the server is in trouble ({status}: {text}); look at its log"
    try:
        is_mlflow = isinstance(response.json(), dict)
    except ValueError:
        is_mlflow = False
    return None if is_mlflow else "there is a server, but its answer is not MLflow's; correct tracking.tracking_uri"
