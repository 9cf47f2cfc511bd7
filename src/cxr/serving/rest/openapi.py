"""What the service says about itself: OpenAPI's texts and examples, and a page that needs no other site."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from cxr.serving.rest.problems import MEDIA_TYPE, ProblemDetails
from cxr.serving.rest.request_body import IMAGE_TYPES, JSON
from cxr.serving.rest.schemas import EXAMPLE, Images, Instances
from cxr.serving.rest.settings import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import HTMLResponse

_TEXTS = {
    401: "The message is not signed with the secret of this service, or is not of now.",
    403: "No message is taken here: no secret is set, or a model of a folder answers.",
    404: "The model has another name.",
    408: "The request took too long to come.",
    413: "The request is too large, or holds too many images.",
    415: "The body is of another type, or compressed.",
    422: "The image cannot be read (`problem` names the kind), or the JSON is not as described.",
    503: "The service is overloaded (come again after `Retry-After` seconds) or about to end.",
}
_IMAGE = {"schema": {"type": "string", "format": "binary", "description": "One image as it is."}}


def description(limits: Limits) -> str:
    """Describe the service.

    Args:
        limits: its bounds.

    Returns:
        Text in Markdown.
    """
    return (
        "Probability of pneumonia for chest radiographs. For research. Not for diagnosis.\n\n"
        f"Bounds: {limits.megabytes:g} MiB and {limits.images} images a request, {limits.megapixels:g} megapixels an "
        f"image, {limits.read_seconds:g} s to read an image, {limits.send_seconds:g} s to send a request. "
        "Problems are told as RFC 9457 says. Nothing that is sent is kept, unless predictions are logged."
    )


def _json(model: type[Images] | type[Instances], example: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, inner in schema.pop("$defs", {}).items():
        field = next(iter(schema["properties"].values()))
        if field["items"].get("$ref", "").endswith(f"/{name}"):
            field["items"] = inner
    return {"schema": schema, "example": example}


PREDICTIONS: dict[str, Any] = {
    "required": True,
    "content": {**dict.fromkeys(IMAGE_TYPES, _IMAGE), JSON: _json(Images, {"images": [EXAMPLE]})},
}
"""Body of a request for predictions."""


def kserve_body() -> dict[str, Any]:
    """Body of a request in KServe's first protocol.

    Returns:
        Its description in OpenAPI.
    """
    return {"required": True, "content": {JSON: _json(Instances, {"instances": [{"b64": EXAMPLE}]})}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe answers that tell a problem.

    Args:
        statuses: HTTP statuses.

    Returns:
        Status to description, as FastAPI takes it.
    """
    return {status: {"model": ProblemDetails, "description": _TEXTS[status]} for status in statuses}


def tidy(application: FastAPI) -> None:
    """Have an application describe problems by their own type, and leave out what it never answers.

    Args:
        application: the application.
    """
    plain = application.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        for operations in document["paths"].values():
            for operation in operations.values():
                for status, answer in list(operation["responses"].items()):
                    content = answer.get("content", {})
                    if "HTTPValidationError" in str(content):
                        del operation["responses"][status]
                    elif int(status) >= 400 and JSON in content:
                        content[MEDIA_TYPE] = content.pop(JSON)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document

    application.openapi = openapi  # type: ignore[method-assign]


def page(document: dict[str, Any]) -> HTMLResponse:
    """Write the service's page: a table of its paths, and a command to copy.

    Args:
        document: the description in OpenAPI.

    Returns:
        The page.
    """
    from starlette.responses import HTMLResponse

    rows = "".join(
        f"<tr><td><code>{method.upper()} {escape(path)}</code></td><td>{escape(operation['summary'])}</td>"
        f"<td>{escape(operation.get('description', ''))}</td><td>{', '.join(operation['responses'])}</td></tr>"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in document["info"]["description"].split("\n\n"))
    text = _PAGE.format(paragraphs=paragraphs, rows=rows)
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return HTMLResponse(text, headers=headers)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>cxr: predictions</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
td, th {{ text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0 }}
pre {{ overflow-x: auto; padding: .5rem; border: 1px solid }}
</style></head><body>
<h1>Predictions for chest radiographs</h1>
{paragraphs}
<pre>curl --data-binary @film.jpeg --header 'Content-Type: image/jpeg' http://HOST:PORT/v1/predictions</pre>
<p>The description for programs is at <a href="/openapi.json">/openapi.json</a>.</p>
<table><thead><tr><th>Path</th><th>What it does</th><th></th><th>Status</th></tr></thead><tbody>{rows}</tbody></table>
</body></html>
"""
