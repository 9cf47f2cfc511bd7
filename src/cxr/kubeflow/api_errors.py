"""Explains failed requests to Kubeflow Pipelines: what was expected, what was received, what to do."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cxr.errors import ClusterError

RETRYABLE_STATUSES = (429, 500, 502, 503, 504)
"""HTTP statuses of failures that may be temporary."""
CONTENT_PROBLEM = re.compile(
    r"proto:\s"  # protojson and structpb in Go; their authors write a space or a no-break space, by chance
    r"|invalid ?input ?error"  # util.NewInvalidInputError, wrapped in an internal error
    r"|unmarshal"
    r"|failed to (parse|validate|compile|fetch a template)"
    r"|invalid (pipeline|platform) spec",
    re.IGNORECASE,
)
"""Texts of the server about the content of a package, sent with status 500 when a run starts: template.go and
v2_template.go in backend/src/apiserver/template, resource_manager.go beside it. The same package fails in the same way
again."""
MAX_MESSAGE_LENGTH = 300
"""Characters of a server's own message that are shown."""


class ServerUnavailableError(ClusterError):
    """The server did not respond or reported a failure of its own; it may work again later."""


class NameTakenError(ClusterError):
    """Another object has this name."""


@dataclass(frozen=True)
class RequestFailure:
    """Why a request failed.

    Attributes:
        error: the error to raise.
        temporary: whether the failure may be temporary and the request was not carried out.
        connection_broke: whether the connection broke after the request was sent; it may have been carried out.
    """

    error: ClusterError
    temporary: bool = False
    connection_broke: bool = False


@dataclass(frozen=True)
class RequestContext:
    """What was requested of which server, for the message of an error.

    Attributes:
        host: address of the server.
        purpose: what the server should do, to continue "expected Kubeflow Pipelines to ...".
        timeout: seconds that the server had for the response.
        token_source: where the token came from, e.g. ``"KFP_TOKEN"``.
        has_token: whether a token was sent.
        ca_file: certificates of the trusted authorities; None for the usual ones.
        idempotent: whether sending the request twice does no harm.
    """

    host: str
    purpose: str
    timeout: int
    token_source: str
    has_token: bool
    ca_file: Path | None
    idempotent: bool


def unexpected_response(request: RequestContext) -> ClusterError:
    """Make the error for a response that does not come from Kubeflow Pipelines' API.

    Args:
        request: what was requested of which server.

    Returns:
        The error.
    """
    return ClusterError(
        _message(request, f"the response is a page, not the API's: a login page, perhaps; {_login_hint(request)}")
    )


def explain_failure(error: Exception, request: RequestContext) -> RequestFailure | None:
    """Explain why a request failed.

    Args:
        error: what the client raised.
        request: what was requested of which server.

    Returns:
        The failure; None if the error comes neither from the connection nor from the server.
    """
    from kfp_server_api.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    if isinstance(error, AttributeError | UnicodeDecodeError) and isinstance(error.__context__, ApiException):
        error = error.__context__  # the client cannot handle bodies that are no text or missing (TLS)
    if isinstance(error, ApiException):
        if error.status:
            return _explain_status(int(error.status), _server_message(error.body, error.reason), request)
        return RequestFailure(ClusterError(_message(request, _explain_tls(str(error.reason), request))))
    if isinstance(error, HTTPError | OSError):
        return _explain_no_response(error, request)
    return None


def _explain_status(status: int, server_message: str, request: RequestContext) -> RequestFailure:
    """Explain a response with a status of failure."""
    detail = f"({status}: {_shorten(server_message)})"
    if 300 <= status < 400:
        reason = f"it redirects ({status}) to a login page; {_login_hint(request)}"
        return RequestFailure(ClusterError(_message(request, reason)))
    if status == 401:
        reason = "does not accept the token" if request.has_token else "requires a token and received none"
        return RequestFailure(ClusterError(_message(request, f"it {reason} {detail}; {_login_hint(request)}")))
    if status == 403:
        reason = f"this token has no permission for it {detail}; ask for the permission in this namespace"
        reason = reason if request.has_token else f"{reason}, or {_login_hint(request)}"
        return RequestFailure(ClusterError(_message(request, reason)))
    if status == 404:
        reason = (
            f"it does not exist {detail}" if server_message else f"the server responds, but has no such path ({status})"
        )
        return RequestFailure(ClusterError(_message(request, f"{reason}; check kubeflow.host and the name or id")))
    if status == 409:
        return RequestFailure(NameTakenError(_message(request, f"the name is taken {detail}; choose another one")))
    if status == 500 and not request.idempotent and CONTENT_PROBLEM.search(server_message):
        # The server puts its reasons one behind the other; the innermost one, at the end, names the value.
        reason = (
            f"the server refuses the package ({status}: {server_message[-MAX_MESSAGE_LENGTH:]}); correct what the "
            "message names, in params.yaml or in the component, and compile the pipeline again"
        )
        return RequestFailure(ClusterError(_message(request, reason)))
    if status in RETRYABLE_STATUSES:
        reason = f"the server has a problem {detail}; look at the log of the deployment ml-pipeline, try again later"
        return RequestFailure(ServerUnavailableError(_message(request, reason)), temporary=True)
    return RequestFailure(ClusterError(_message(request, f"it refuses {detail}")))


def _explain_no_response(error: Exception, request: RequestContext) -> RequestFailure:
    """Explain that there was no response at all."""
    from urllib3 import exceptions

    name = urlsplit(request.host).hostname
    check = "check kubeflow.host (or KFP_HOST), the network and whether the port is forwarded"
    connection_broke = False
    if isinstance(error, exceptions.NameResolutionError):
        reason = f"the host name {name!r} is unknown; {check}"
    elif isinstance(error, exceptions.NewConnectionError):
        reason = f"nothing listens there; {check}"
    elif isinstance(error, exceptions.ConnectTimeoutError):
        reason = f"{name} cannot be reached (no connection in time); {check}"
    elif isinstance(error, exceptions.ReadTimeoutError):
        advice = _advice(request, "raise kubeflow.timeout, or try again later")
        reason = f"no response within timeout={request.timeout} s; {advice}"
    else:
        connection_broke = True
        problem = _shorten(_first_line(str(error))) or type(error).__name__
        reason = f"the connection broke ({problem}); {_advice(request, 'try again')}"
    return RequestFailure(ServerUnavailableError(_message(request, reason)), connection_broke=connection_broke)


def _advice(request: RequestContext, retry: str) -> str:
    """What to do when it is not known whether a request was carried out."""
    check = "it may have been done all the same: look with `cxr kubeflow status` before you run the command again"
    return retry if request.idempotent else check


def _explain_tls(reason: str, request: RequestContext) -> str:
    """Explain a failure of TLS."""
    detail = _shorten(_first_line(reason.partition("\n")[2]) or reason)
    if "WRONG_VERSION_NUMBER" in reason or "record layer" in reason:
        return f"the server does not speak TLS ({detail}); write http:// in kubeflow.host if that is intended"
    trusted = f"ca_file={request.ca_file}" if request.ca_file else "the usual authorities"
    return f"its certificate is not accepted by {trusted} ({detail}); name your authority's file in kubeflow.ca_file"


def _login_hint(request: RequestContext) -> str:
    return f"set a valid token in {request.token_source}"


def _message(request: RequestContext, reason: str) -> str:
    return f"expected Kubeflow Pipelines to {request.purpose}, received host={request.host}: {reason}"


def _server_message(body: object, reason: object) -> str:
    """First line of the server's own message; empty for an HTML page."""
    text = body if isinstance(body, str) else ""
    try:
        values = json.loads(text)
    except ValueError:
        return "" if text.lstrip().startswith("<") else _first_line(text or str(reason or ""))
    if not isinstance(values, dict):
        return _first_line(text)
    return _first_line(str(values.get("message") or values.get("error_message") or values.get("error") or ""))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_LENGTH else f"{text[:MAX_MESSAGE_LENGTH]}..."
