"""The service's description of itself: texts and examples for OpenAPI, and the page /docs, which loads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader
from starlette.responses import HTMLResponse

from cxr.serving.rest.problems import PROBLEM_TYPE, ProblemDetails
from cxr.serving.rest.request_body import IMAGE_COMMAND, IMAGE_TYPES, JSON_TYPE
from cxr.serving.rest.schemas import EXAMPLE_IMAGE, ImagesRequest, KServeRequest
from cxr.serving.rest.settings import RequestLimits

if TYPE_CHECKING:
    from fastapi import FastAPI

_PROBLEM_TEXTS = {
    401: "The message is not signed with the secret of this service, or it is old.",
    403: "The service accepts no messages: it has no secret, or its model comes from a folder.",
    404: "The model has another name.",
    408: "The request took too long to arrive.",
    413: "The request is too large, or has too many images.",
    415: "The body has another type, or is compressed.",
    422: "The image cannot be read (`problem` names the kind), or the JSON or the query does not match the schema.",
    503: "The service is overloaded (try again after `Retry-After` seconds) or about to stop.",
}


def service_description(limits: RequestLimits) -> str:
    """Describe the service in Markdown.

    Args:
        limits: limits of a request.

    Returns:
        Two paragraphs.
    """
    return (
        "Probability of pneumonia for chest radiographs. For research. Not for diagnosis.\n\n"
        f"Limits: {limits.megabytes:g} MiB and {limits.images} images a request, "
        f"{limits.max_pixels / 1e6:g} megapixels an image, {limits.read_seconds:g} s to read an image, "
        f"{limits.send_seconds:g} s to send a request. "
        "With `?regions=true` a detector, if there is one, also draws boxes around opacities. "
        "Errors have the form of RFC 9457. Nothing that is sent is stored, unless predictions are logged."
    )


def _json_body(schema: type[ImagesRequest | KServeRequest], example: dict[str, Any]) -> dict[str, Any]:
    document = schema.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, definition in document.pop("$defs", {}).items():
        field = next(iter(document["properties"].values()))
        if field["items"].get("$ref", "").endswith(f"/{name}"):
            field["items"] = definition
    return {"schema": document, "example": example}


_IMAGE_BODY = {"schema": {"type": "string", "format": "binary", "description": "The content of one image file."}}
PREDICTIONS_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        **dict.fromkeys(IMAGE_TYPES, _IMAGE_BODY),
        JSON_TYPE: _json_body(ImagesRequest, {"images": [EXAMPLE_IMAGE]}),
    },
}
"""Body of a request for predictions, in OpenAPI's form."""
KSERVE_BODY: dict[str, Any] = {
    "required": True,
    "content": {JSON_TYPE: _json_body(KServeRequest, {"instances": [{"b64": EXAMPLE_IMAGE}]})},
}
"""Body of a request in KServe's V1 protocol, in OpenAPI's form."""


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error responses.

    Args:
        statuses: HTTP statuses.

    Returns:
        Status to description, as FastAPI's ``responses`` takes it.
    """
    return {status: {"model": ProblemDetails, "description": _PROBLEM_TEXTS[status]} for status in statuses}


def use_problem_schema(application: FastAPI) -> None:
    """Correct an application's OpenAPI document: errors have the type of problem details, not FastAPI's own schema.

    Args:
        application: the application.
    """
    original_openapi = application.openapi

    def openapi() -> dict[str, Any]:
        document = original_openapi()
        for operations in document["paths"].values():
            for operation in operations.values():
                for status, description in list(operation["responses"].items()):
                    content = description.get("content", {})
                    if "HTTPValidationError" in str(content):
                        del operation["responses"][status]
                    elif int(status) >= 400 and JSON_TYPE in content:
                        content[PROBLEM_TYPE] = content.pop(JSON_TYPE)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document

    application.openapi = openapi  # type: ignore[method-assign]


def docs_page(document: dict[str, Any]) -> HTMLResponse:
    """Render the page /docs: the limits, a command to copy, and a table of the paths.

    Args:
        document: the OpenAPI document.

    Returns:
        The page. It loads nothing from other sites.
    """
    template = Environment(loader=PackageLoader("cxr.serving.rest"), autoescape=True).get_template("docs.html")
    page = template.render(description=document["info"]["description"], command=IMAGE_COMMAND, paths=document["paths"])
    return HTMLResponse(page, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})
