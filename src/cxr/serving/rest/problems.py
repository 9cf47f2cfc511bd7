"""Answers that say what was wrong with a request: problem details as RFC 9457 has them, never with what was sent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class ProblemDetails(BaseModel):
    """What was wrong with a request."""

    type: str = Field("about:blank", description="Always `about:blank`: `problem` names the kind.")
    title: str = Field(description="The status in words.", examples=["Unprocessable Content"])
    status: int = Field(description="HTTP status.", examples=[422])
    detail: str = Field(description="What was expected and what was received.")
    problem: str = Field(description="Kind of problem, for programs.", examples=["truncated"])
    request_id: str = Field(description="Name of this request, as in the header `X-Request-ID`.")


class Problem(Exception):  # noqa: N818  # the word of the RFC
    """A request that cannot be answered."""

    def __init__(self, status: int, problem: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Describe it.

        Args:
            status: HTTP status, 400 to 599.
            problem: short name of the kind.
            detail: what was expected and received; nothing of an image, and no file name.
            headers: headers of the answer.
        """
        super().__init__(detail)
        self.status, self.problem, self.detail, self.headers = status, problem, detail, dict(headers or {})


def describe(application: FastAPI) -> None:
    """Have an application answer with problem details whatever goes wrong.

    Args:
        application: the application.
    """
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.responses import Response

    def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return response(request, error)

    def on_status(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return response(request, Problem(error.status_code, kind, _ADVICE.get(error.status_code, kind), error.headers))

    def on_leaving(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    def on_fault(request: Request, error: Exception) -> Response:
        log.error("request %s failed", request_id(request), exc_info=error)
        return response(request, Problem(500, "internal", "the service failed; its log names the request"))

    application.add_exception_handler(Problem, on_problem)
    application.add_exception_handler(HTTPException, on_status)
    application.add_exception_handler(ClientDisconnect, on_leaving)
    application.add_exception_handler(Exception, on_fault)


_ADVICE = {
    404: "expected one of the paths of /openapi.json",
    405: "expected one of the methods that the header Allow names",
}


def response(request: Request, problem: Problem) -> Response:
    """Write a problem down.

    Args:
        request: the request.
        problem: what was wrong.

    Returns:
        The answer.
    """
    from starlette.responses import Response

    details = ProblemDetails(
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        problem=problem.problem,
        request_id=request_id(request),
    )
    return Response(details.model_dump_json(), problem.status, problem.headers, MEDIA_TYPE)


def request_id(request: Request) -> str:
    """Name of a request.

    Args:
        request: the request.

    Returns:
        What its client called it, or a name made here.
    """
    return str(request.scope.get("state", {}).get("request_id", ""))
