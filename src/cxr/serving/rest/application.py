"""The service's application: which path answers what, and how OpenAPI describes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Annotated

from fastapi import FastAPI, Path, Request
from fastapi.responses import HTMLResponse, Response

from cxr import __version__
from cxr.errors import ImageError
from cxr.serving.model_provider import Served
from cxr.serving.rest.inference import Desk
from cxr.serving.rest.metrics import MEDIA_TYPE, Measurements
from cxr.serving.rest.middleware import Passage, Standby
from cxr.serving.rest.openapi import PREDICTIONS, description, kserve_body, page, problems, tidy
from cxr.serving.rest.problems import Problem, describe, request_id
from cxr.serving.rest.request_body import IMAGE_TYPES, JSON, Places, content_type, images_of, instances_of, take_in
from cxr.serving.rest.schemas import Health, ImageAnswer, Models, ModelState, Predictions, Ready, Told, Version
from cxr.serving.rest.settings import Limits
from cxr.serving.rest.webhook import LARGEST, SLOWEST, News

Images = list[bytes | ImageError]


def application(
    desk: Desk, limits: Limits, counted: Measurements, news: News, threads: Executor, standby: Standby
) -> FastAPI:
    """Put the application together.

    Args:
        desk: answers for images.
        limits: bounds on requests.
        counted: where requests are counted.
        news: takes messages of the tracking server.
        threads: where images are answered.
        standby: says when the service is about to end.

    Returns:
        The application.
    """
    # Pages of Swagger and ReDoc load their programs from another site; /docs is a page of our own.
    made = FastAPI(
        title="cxr", version=__version__, description=description(limits),
        docs_url=None, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    describe(made)
    made.add_middleware(Passage, counted=counted, standby=standby)
    tidy(made)
    places = Places(limits.waiting)

    async def answers(request: Request, images: Callable[[bytes], Images]) -> tuple[Served, list[ImageAnswer]]:
        async with places.one():
            body = await take_in(request, limits.bytes, limits.send_seconds)
            return await asyncio.get_running_loop().run_in_executor(threads, lambda: desk.answer(images(body)))

    def names() -> list[str]:
        current = desk.standing.current
        found = (desk.standing.registered_name, current.alias, current.card.model)
        return list(dict.fromkeys(name for name in found if name))

    def known(name: str) -> str:
        if name not in names():
            raise Problem(404, "unknown_model", f"expected one of the models: {', '.join(names())}")
        return name

    @made.post(
        "/v1/predictions",
        tags=["answers"],
        summary="Answer for one image or several",
        responses=problems(408, 413, 415, 422, 503),
        openapi_extra={"requestBody": PREDICTIONS},
    )
    async def predictions(request: Request) -> Predictions:
        """The body is one image as it is, or JSON with several in base64.

        An image that could be read but looks like no chest film is answered by a `refusal`, without a probability.
        One of several that cannot be read has an `error` beside the others' answers; one that came alone is 422.
        """
        kind = content_type(request, (*IMAGE_TYPES, JSON))
        served, given = await answers(request, lambda body: images_of(body, kind, limits))
        if kind != JSON and given[0].error is not None:
            raise Problem(422, given[0].error.problem, given[0].error.detail)
        return _predictions(served, given, request)

    @made.post(
        "/v1/models/{name}:predict",
        tags=["KServe"],
        summary="Answer in KServe's first protocol",
        responses=problems(404, 408, 413, 415, 422, 503),
        openapi_extra={"requestBody": kserve_body()},
    )
    async def predict(name: Annotated[str, Path(examples=["champion"])], request: Request) -> Predictions:
        """Each of `instances` is one image in base64; errors stand beside the others' answers."""
        known(name)
        content_type(request, (JSON,))
        served, given = await answers(request, lambda body: instances_of(body, limits))
        return _predictions(served, given, request)

    @made.get("/v1/models", tags=["KServe"], summary="Names of the model")
    async def models() -> Models:
        """Any of them may stand in the other paths."""
        return Models(models=names())

    @made.get(
        "/v1/models/{name}", tags=["KServe"], summary="Whether the model can answer", responses=problems(404, 503)
    )
    async def model(name: Annotated[str, Path(examples=["champion"])]) -> ModelState:
        """As `/ready`, in KServe's first protocol."""
        known(name)
        _expect_staying(standby)
        return ModelState(name=name, ready=True)

    @made.get("/health", tags=["state"], summary="Whether the service is alive")
    async def health() -> Health:
        """For liveness probes."""
        return Health(version=desk.standing.current.version or None, problem=desk.standing.problem)

    @made.get("/ready", tags=["state"], summary="Whether the service can answer", responses=problems(503))
    async def ready() -> Ready:
        """For readiness probes: nothing listens before a version is loaded, and 503 is said before the end."""
        _expect_staying(standby)
        return Ready(version=desk.standing.current.version or None)

    @made.get("/version", tags=["state"], summary="Which version answers")
    async def version() -> Version:
        """The version, since when it answers, and what is in the way of another one."""
        standing, current = desk.standing, desk.standing.current
        return Version(
            registered_name=standing.registered_name or None,
            version=current.version or None,
            alias=current.alias or None,
            model=current.card.model,
            threshold=current.card.threshold,
            since=current.since,
            banner=current.banner,
            problem=standing.problem,
        )

    @made.post(
        "/webhook",
        tags=["state"],
        summary="News of the tracking server",
        responses=problems(401, 403, 408, 413),
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}}}},
    )
    async def webhook(request: Request) -> Told:
        """A message that MLflow has signed; one about an alias of this model has the aliases looked at."""
        news.signatures()
        body = await take_in(request, LARGEST, SLOWEST)
        done = news.take(body, request.headers, request.client.host if request.client else "nowhere")
        return Told(done="looking at the aliases" if done else "nothing")

    @made.get(
        "/metrics",
        tags=["state"],
        summary="Measurements for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Counts and times of all workers."""
        text = await asyncio.get_running_loop().run_in_executor(None, counted.text)
        return Response(text, media_type=MEDIA_TYPE)

    @made.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page(made.openapi())

    return made


def _predictions(served: Served, given: list[ImageAnswer], request: Request) -> Predictions:
    return Predictions(
        predictions=given,
        version=served.version or None,
        alias=served.alias or None,
        model=served.card.model,
        banner=served.banner,
        request_id=request_id(request),
    )


def _expect_staying(standby: Standby) -> None:
    if standby.leaving:
        raise Problem(503, "leaving", "the service is about to end")
