"""Whether a store can be reached: an answer within seconds, and in plain words why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cxr.errors import RegistryError

if TYPE_CHECKING:
    from requests import Response

SECONDS = 4
"""How long a server may take to answer the first request, which is sent twice at most."""
FILE_STORES = ("boto3", "botocore", "s3transfer", "azure", "google")
"""Libraries by which MLflow reaches stores of files directly; their errors have no base in common."""
ENDPOINT = "/api/2.0/mlflow/experiments/search"


def is_server(uri: str) -> bool:
    """Whether an address is that of a server, and not of a local store.

    Args:
        uri: address of the store.

    Returns:
        True for ``http://`` and ``https://``.
    """
    return uri.startswith(("http://", "https://"))


def reach(uri: str) -> None:
    """Ask a server for an answer; MLflow's own client would try for minutes.

    ``MLFLOW_HTTP_REQUEST_TIMEOUT`` and ``MLFLOW_HTTP_REQUEST_MAX_RETRIES`` are kept to where they are set.

    Args:
        uri: address of the store; a local one needs no answer.

    Raises:
        RegistryError: saying why it can't be used: refused, unknown, silent, password, host, no MLflow server.
    """
    if not is_server(uri):
        return
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    retries, timeout = MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
    seconds = timeout.get() if timeout.is_set() else SECONDS
    try:
        answer = http_request(
            get_default_host_creds(uri.rstrip("/")),
            ENDPOINT,
            "GET",
            params={"max_results": 1},
            timeout=seconds,
            max_retries=retries.get() if retries.is_set() else 1,
            raise_on_status=False,
        )
    except (MlflowException, OSError) as error:
        raise unreachable(uri, _silence(error, uri, seconds)) from error
    problem = _refusal(answer, uri)
    if problem is not None:
        raise unreachable(uri, problem)


def answers(uri: str) -> bool:
    """Whether a store answers now.

    Args:
        uri: address of the store.

    Returns:
        True also for a local store.
    """
    try:
        reach(uri)
    except RegistryError:
        return False
    return True


def unreachable(uri: str, why: str) -> RegistryError:
    """Make the error about a store that can't be used.

    Args:
        uri: address of the store; a password in it is not shown.
        why: what was found, and what to do.

    Returns:
        The error.
    """
    return RegistryError(f"expected an MLflow store that answers, received tracking uri={shown(uri)!r}: {why}")


@contextmanager
def plainly(uri: str, doing: str) -> Iterator[None]:
    """Tell a store's failure in the middle of work as an error of this project.

    Args:
        uri: address of the store.
        doing: what the store was to do, e.g. ``"take the evaluation of three_block"``.

    Raises:
        RegistryError: in place of MLflow's errors and those of the connection.
    """
    try:
        yield
    except Exception as error:
        if not _of_a_store(error):
            raise
        raise RegistryError(
            f"expected the MLflow store to {doing}, received tracking uri={shown(uri)!r}: {first_line(error)}; "
            "run the step again: what is there already is not logged twice"
        ) from error


def first_line(error: BaseException) -> str:
    """First line of an error's text, without passwords of addresses.

    Args:
        error: any error.

    Returns:
        The line, or the error's type if it has none.
    """
    return shown(str(error).partition("\n")[0]) or type(error).__name__


def shown(text: str) -> str:
    """Hide the password of each address in a text.

    Args:
        text: an address, or a sentence with some.

    Returns:
        The same with ``***`` in place of passwords.
    """
    return re.sub(r"(://[^/\s:@]*):[^/\s@]+@", r"\1:***@", text)


def _of_a_store(error: Exception) -> bool:
    """Whether an error is of MLflow, of what it keeps runs and files in, or of the way there."""
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or library in {"mlflow", "sqlalchemy", "requests", "urllib3", *FILE_STORES}


def _silence(error: BaseException, uri: str, seconds: float) -> str:
    """Why there was no answer at all."""
    kinds = _kinds(error)
    host = urlsplit(uri).hostname
    start = "start it, or correct tracking.tracking_uri; or train with tracking.offline: true and log later"
    if "NameResolutionError" in kinds or "gaierror" in kinds:
        return f"no machine is known by the name {host!r}; {start}"
    if any("Timeout" in kind for kind in kinds):
        return f"the server did not answer within {seconds} s; {start}"
    if any("SSLError" in kind for kind in kinds):
        return f"its certificate was not accepted ({first_line(error)}); set MLFLOW_TRACKING_SERVER_CERT_PATH"
    if "ConnectionRefusedError" in kinds:
        return f"nothing listens there (connection refused); {start}"
    if kinds & {"RemoteDisconnected", "ConnectionResetError", "ConnectionError"}:
        return f"it ends the connection without an answer; {start}"
    return f"{first_line(error)}; {start}"


def _kinds(error: BaseException) -> set[str]:
    """Names of the types of an error, of its causes, and of what is wrapped inside."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        found.add(type(one).__name__)
        waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return found


def _refusal(answer: Response, uri: str) -> str | None:
    """Why an answer is not that of a usable MLflow server; None if it is."""
    status, text = answer.status_code, shown(answer.text.strip().partition("\n")[0][:200])
    if status == 401:
        return (
            "it asks for a user and a password, or does not know these (401); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    if status == 403 and "host header" in text.lower():
        return (
            f"it does not want to be called {urlsplit(uri).netloc.rpartition('@')[2]!r} (403: {text}); "
            "start it with this name in --allowed-hosts"
        )
    if status == 403:
        return f"this user may not read experiments there (403: {text}); ask for the permission"
    if status == 404:
        return "there is a server, but no MLflow (404); correct tracking.tracking_uri"
    if status >= 400:
        return f"the server is in trouble ({status}: {text}); look at its log"
    try:
        plain = isinstance(answer.json(), dict)
    except ValueError:
        plain = False
    return None if plain else "there is a server, but its answer is not MLflow's; correct tracking.tracking_uri"
