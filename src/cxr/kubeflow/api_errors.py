"""Failures of requests to Kubeflow Pipelines, in plain words: what was expected, what came, what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cxr.errors import ClusterError

PASSING = (429, 500, 502, 503, 504)
"""Statuses of failures that may pass."""
LONGEST = 300
"""Characters of a server's own words that are shown."""


class NoContactError(ClusterError):
    """The server did not answer, or is in trouble: it may do so later."""


class NameTakenError(ClusterError):
    """Something of this name is there already."""


@dataclass(frozen=True)
class Refusal:
    """Why a request failed.

    Attributes:
        error: the failure in words.
        passing: whether it may pass, and the request was not carried out.
        broken: whether the connection broke after the request was sent, which may have been carried out.
    """

    error: ClusterError
    passing: bool = False
    broken: bool = False


@dataclass(frozen=True)
class Asked:
    """What was asked of whom, for the words of a failure.

    Attributes:
        host: address of the server.
        doing: what it was to do, to continue "expected Kubeflow Pipelines to ...".
        seconds: how long it had for the answer.
        token: where the token came from, e.g. ``"KFP_TOKEN"``.
        sent_token: whether there was one.
        ca_file: certificates of the authorities that are trusted; None for the usual ones.
        order: whether it changes something, so that sending it twice would do harm.
    """

    host: str
    doing: str
    seconds: int
    token: str
    sent_token: bool
    ca_file: Path | None
    order: bool


def not_kubeflow(asked: Asked) -> ClusterError:
    """Make the error about an answer that is not of Kubeflow Pipelines.

    Args:
        asked: what was asked of whom.

    Returns:
        The error.
    """
    return ClusterError(
        _sentence(asked, f"the answer is a page, not the API's: a login page, perhaps; {_login(asked)}")
    )


def refusal(error: Exception, asked: Asked) -> Refusal | None:
    """Tell why a request failed.

    Args:
        error: what the client raised.
        asked: what was asked of whom.

    Returns:
        The failure in words; None if the error is none of the connection or the server.
    """
    from kfp_server_api.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    if isinstance(error, AttributeError | UnicodeDecodeError) and isinstance(error.__context__, ApiException):
        error = error.__context__  # the client stumbles over bodies that are not text, or not there (TLS)
    if isinstance(error, ApiException):
        if error.status:
            return _status(int(error.status), _own_words(error.body, error.reason), asked)
        return Refusal(ClusterError(_sentence(asked, _certificate(str(error.reason), asked))))
    if isinstance(error, HTTPError | OSError):
        return _silence(error, asked)
    return None


def _status(status: int, told: str, asked: Asked) -> Refusal:
    """Words for an answer with a status of failure."""
    if 300 <= status < 400:
        return Refusal(ClusterError(_sentence(asked, f"it sends elsewhere ({status}), to log in; {_login(asked)}")))
    if status == 401:
        why = "does not accept the token" if asked.sent_token else "wants a token and received none"
        return Refusal(ClusterError(_sentence(asked, f"it {why} ({status}: {told}); {_login(asked)}")))
    if status == 403:
        why = f"this token has no leave for it ({status}: {told}); ask for the right in this namespace"
        return Refusal(ClusterError(_sentence(asked, why if asked.sent_token else f"{why}, or {_login(asked)}")))
    if status == 404:
        what = f"it is not there ({status}: {told})" if told else f"there is a server, but no such path ({status})"
        return Refusal(ClusterError(_sentence(asked, f"{what}; check kubeflow.host and what was asked for")))
    if status == 409:
        return Refusal(NameTakenError(_sentence(asked, f"the name is taken ({status}: {told}); choose another one")))
    if status in PASSING:
        why = f"the server is in trouble ({status}: {told}); look at the log of the deployment ml-pipeline, try later"
        return Refusal(NoContactError(_sentence(asked, why)), passing=True)
    return Refusal(ClusterError(_sentence(asked, f"it refuses ({status}: {told})")))


def _silence(error: Exception, asked: Asked) -> Refusal:
    """Words for no answer at all."""
    from urllib3 import exceptions

    name = urlsplit(asked.host).hostname
    check = "check kubeflow.host (or KFP_HOST), the network and whether the port is forwarded"
    if isinstance(error, exceptions.NameResolutionError):
        return Refusal(NoContactError(_sentence(asked, f"no machine is known by the name {name!r}; {check}")))
    if isinstance(error, exceptions.NewConnectionError):
        return Refusal(NoContactError(_sentence(asked, f"nothing listens there; {check}")))
    if isinstance(error, exceptions.ConnectTimeoutError):
        return Refusal(NoContactError(_sentence(asked, f"{name} cannot be reached (no contact in time); {check}")))
    if isinstance(error, exceptions.ReadTimeoutError):
        why = f"no answer within timeout={asked.seconds} s; {_unsure(asked, 'raise kubeflow.timeout, or try later')}"
        return Refusal(NoContactError(_sentence(asked, why)))
    why = f"the connection broke ({_first_line(str(error)) or type(error).__name__}); {_unsure(asked, 'try again')}"
    return Refusal(NoContactError(_sentence(asked, why)), broken=True)


def _unsure(asked: Asked, otherwise: str) -> str:
    """What to do when nobody knows whether a request was carried out."""
    look = "it may have been done all the same: look with `cxr kubeflow status` before you run the command again"
    return look if asked.order else otherwise


def _certificate(reason: str, asked: Asked) -> str:
    """Words for a failure of TLS."""
    words = _first_line(reason.partition("\n")[2]) or reason
    if "WRONG_VERSION_NUMBER" in reason or "record layer" in reason:
        return f"the server does not speak TLS ({words}); write http:// in kubeflow.host if that is meant"
    trusted = f"ca_file={asked.ca_file}" if asked.ca_file else "the usual authorities"
    return f"its certificate is not accepted by {trusted} ({words}); name your authority's file in kubeflow.ca_file"


def _login(asked: Asked) -> str:
    return f"set a valid token in {asked.token}"


def _sentence(asked: Asked, why: str) -> str:
    return f"expected Kubeflow Pipelines to {asked.doing}, received host={asked.host}: {why}"


def _own_words(body: object, reason: object) -> str:
    """What a server says itself: of JSON the message, of a page nothing."""
    text = body if isinstance(body, str) else ""
    try:
        values = json.loads(text)
    except ValueError:
        return "" if text.lstrip().startswith("<") else _first_line(text or str(reason or ""))
    if not isinstance(values, dict):
        return _first_line(text)
    return _first_line(str(values.get("message") or values.get("error_message") or values.get("error") or ""))


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
