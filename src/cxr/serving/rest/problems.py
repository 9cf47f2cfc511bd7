"""Error responses in the form of RFC 9457 (problem details). They never repeat what the client sent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
_ADVICE = {
    404: "expected one of the paths of /openapi.json",
}


class ProblemDetails(BaseModel):
    """What was wrong with a request."""

    type: str = Field("about:blank", description="Always `about:blank`: `problem` names the kind.")
    title: str = Field(description="The status in words.", examples=["Unprocessable Content"])
    status: int = Field(description="HTTP status.", examples=[422])
    detail: str = Field(description="What was expected and what was received.")
    problem: str = Field(description="Kind of problem, for programs.", examples=["truncated"])
    request_id: str = Field(description="Name of this request, as in the header `X-Request-ID`.")


class ProblemError(Exception):
    """A request that gets an error response."""

    def __init__(self, status: int, problem: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Describe the problem.

        Args:
            status: HTTP status, 400 to 599.
            problem: short name of the kind of problem.
            detail: what was expected and received; no content of an image, and no file name.
            headers: further headers of the response.
        """
        super().__init__(detail)
        self.status, self.problem, self.detail, self.headers = status, problem, detail, dict(headers or {})


def add_problem_handlers(application: FastAPI) -> None:
    """Make an application send problem details for every kind of error.

    Args:
        application: the application.
    """

    @application.exception_handler(ProblemError)
    def on_problem(request: Request, error: ProblemError) -> Response:
        return problem_response(request, error)

    @application.exception_handler(HTTPException)
    def on_http_exception(request: Request, error: HTTPException) -> Response:
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        advice = _ADVICE.get(error.status_code, kind)
        headers = dict(error.headers or {})
        if "Allow" in headers:
            methods = set(headers["Allow"].split(", "))
            # RequestMiddleware answers HEAD as GET.
            headers["Allow"] = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
            advice = f"expected one of the methods {headers['Allow']}"
        return problem_response(request, ProblemError(error.status_code, kind, advice, headers))

    @application.exception_handler(RequestValidationError)
    def on_wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"]))
        return problem_response(
            request, ProblemError(422, "malformed", f"{location}: {first['msg']}; see /openapi.json")
        )

    @application.exception_handler(ClientDisconnect)
    def on_disconnect(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it

    @application.exception_handler(Exception)
    def on_internal_error(request: Request, error: Exception) -> Response:
        log.error("request %s failed", request_id(request), exc_info=error)
        return problem_response(request, ProblemError(500, "internal", "the service failed; its log names the request"))


def problem_response(request: Request, error: ProblemError) -> Response:
    """Write the response for a problem.

    Args:
        request: the request.
        error: what was wrong with it.

    Returns:
        The response, of type :data:`PROBLEM_TYPE`.
    """
    details = ProblemDetails(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        problem=error.problem,
        request_id=request_id(request),
    )
    return Response(details.model_dump_json(), error.status, error.headers, PROBLEM_TYPE)


def request_id(request: Request) -> str:
    """Name of a request, given by its client or by :class:`cxr.serving.rest.middleware.RequestMiddleware`."""
    return str(request.scope.get("state", {}).get("request_id", ""))
