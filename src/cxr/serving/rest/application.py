"""The web application: the paths of the service, and their description for OpenAPI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Annotated, Literal

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import HTMLResponse, Response

from cxr import __version__
from cxr.errors import ImageError
from cxr.serving.detector_source import ServedDetector
from cxr.serving.rest.inference import InferenceService, ServiceAnswer
from cxr.serving.rest.metrics import METRICS_TYPE, ServiceMetrics
from cxr.serving.rest.middleware import Readiness, RequestLimiter, RequestMiddleware
from cxr.serving.rest.openapi import (
    KSERVE_BODY,
    PREDICTIONS_BODY,
    docs_page,
    problem_responses,
    service_description,
    use_problem_schema,
)
from cxr.serving.rest.problems import ProblemError, add_problem_handlers, request_id
from cxr.serving.rest.request_body import (
    IMAGE_COMMAND,
    IMAGE_TYPES,
    JSON_TYPE,
    KSERVE_COMMAND,
    check_content_type,
    parse_images,
    parse_kserve_instances,
    read_body,
)
from cxr.serving.rest.schemas import (
    HealthResponse,
    ModelsResponse,
    ModelStateResponse,
    PredictionsResponse,
    ReadyResponse,
    RegionsModel,
    VersionResponse,
    WebhookResponse,
)
from cxr.serving.rest.settings import RequestLimits
from cxr.serving.rest.webhook import MAX_MESSAGE_BYTES, MAX_MESSAGE_SECONDS, WebhookReceiver

ImageParser = Callable[[bytes], list[bytes | ImageError]]
RegionsRequested = Annotated[
    Literal["true", "false"],
    Query(description="`true`: also draw boxes around opacities, if the service has a detector."),
]


def build_application(
    service: InferenceService,
    limits: RequestLimits,
    service_metrics: ServiceMetrics,
    webhooks: WebhookReceiver,
    threads: Executor,
    readiness: Readiness,
) -> FastAPI:
    """Build the application.

    Args:
        service: predicts images.
        limits: limits of a request.
        service_metrics: counts requests.
        webhooks: receives messages of the tracking server.
        threads: runs the predictions.
        readiness: says when the service is about to stop.

    Returns:
        The application.
    """
    # FastAPI's pages (Swagger, ReDoc) load scripts from another site, so /docs is a page of our own.
    application = FastAPI(
        title="cxr", version=__version__, description=service_description(limits),
        docs_url=None, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    add_problem_handlers(application)
    application.add_middleware(RequestMiddleware, metrics=service_metrics, readiness=readiness)
    use_problem_schema(application)
    limiter = RequestLimiter(limits.waiting)

    async def predict_body(request: Request, parse: ImageParser, regions: RegionsRequested) -> ServiceAnswer:
        async with limiter.slot():
            body = await read_body(request, limits.max_bytes, limits.send_seconds)
            return await asyncio.get_running_loop().run_in_executor(
                threads, lambda: service.predict(parse(body), regions=regions == "true")
            )

    def regions_model(detector: ServedDetector | None) -> RegionsModel | None:
        if detector is None or service.detectors is None:
            return None
        return RegionsModel(
            name=service.detectors.registered_name or None,
            version=detector.version or None,
            alias=detector.alias or None,
            model=detector.metadata.model,
            trained_on=detector.metadata.dataset_kind,
            threshold=detector.metadata.threshold,
            banner=detector.banner,
        )

    def predictions_response(answer: ServiceAnswer, request: Request, regions: RegionsRequested) -> PredictionsResponse:
        served = answer.served
        response = PredictionsResponse(
            predictions=answer.results,
            version=served.version or None,
            alias=served.alias or None,
            model=served.metadata.model,
            banner=served.banner,
            request_id=request_id(request),
        )
        if regions == "true":
            response.regions_model = regions_model(answer.detector)
        return response

    def model_names() -> list[str]:
        current = service.provider.current
        names = (service.provider.registered_name, current.alias, current.metadata.model)
        return list(dict.fromkeys(name for name in names if name))

    def check_model_name(name: str) -> None:
        names = model_names()
        if name not in names:
            raise ProblemError(404, "unknown_model", f"expected one of the models: {', '.join(names)}")

    @application.post(
        "/v1/predictions",
        tags=["answers"],
        summary="Predict one image or several",
        responses=problem_responses(408, 413, 415, 422, 503),
        openapi_extra={"requestBody": PREDICTIONS_BODY},
        response_model_exclude_unset=True,
    )
    async def predictions(request: Request, regions: RegionsRequested = "false") -> PredictionsResponse:
        """The body is one image file, or JSON with several images in base64.

        A readable image that does not look like a chest radiograph gets a `refusal` instead of a probability.
        If one of several images cannot be read, its result has an `error`; an image that was sent alone gets 422.
        With `regions=true` each image also has boxes around opacities, if the service has a detector.
        """
        content_type = check_content_type(request, (*IMAGE_TYPES, JSON_TYPE), IMAGE_COMMAND)
        answer = await predict_body(request, lambda body: parse_images(body, content_type, limits), regions)
        error = answer.results[0].error
        if content_type != JSON_TYPE and error is not None:
            raise ProblemError(422, error.problem, error.detail)
        return predictions_response(answer, request, regions)

    @application.post(
        "/v1/models/{name}:predict",
        tags=["KServe"],
        summary="Predict in KServe's V1 protocol",
        responses=problem_responses(404, 408, 413, 415, 422, 503),
        openapi_extra={"requestBody": KSERVE_BODY},
        response_model_exclude_unset=True,
    )
    async def predict(
        name: Annotated[str, Path(examples=["champion"])], request: Request, regions: RegionsRequested = "false"
    ) -> PredictionsResponse:
        """Each of `instances` is one image in base64. The result of an image that cannot be read has an `error`."""
        check_model_name(name)
        check_content_type(request, (JSON_TYPE,), KSERVE_COMMAND)
        answer = await predict_body(request, lambda body: parse_kserve_instances(body, limits), regions)
        return predictions_response(answer, request, regions)

    @application.get("/v1/models", tags=["KServe"], summary="Names of the model")
    async def models() -> ModelsResponse:
        """Each of them can be used in the other paths."""
        return ModelsResponse(models=model_names())

    @application.get(
        "/v1/models/{name}",
        tags=["KServe"],
        summary="Whether the model can answer",
        responses=problem_responses(404, 503),
    )
    async def model(name: Annotated[str, Path(examples=["champion"])]) -> ModelStateResponse:
        """The same as `/ready`, in KServe's V1 protocol."""
        check_model_name(name)
        _check_ready(readiness)
        return ModelStateResponse(name=name, ready=True)

    @application.get("/health", tags=["state"], summary="Whether the service is alive")
    async def health() -> HealthResponse:
        """For liveness probes."""
        return HealthResponse(version=service.provider.current.version or None, problem=service.provider.problem)

    @application.get(
        "/ready", tags=["state"], summary="Whether the service can answer", responses=problem_responses(503)
    )
    async def ready() -> ReadyResponse:
        """For readiness probes. Nothing listens before a version is loaded; 503 comes before the service stops."""
        _check_ready(readiness)
        return ReadyResponse(version=service.provider.current.version or None)

    @application.get("/version", tags=["state"], summary="The version that answers", response_model_exclude_unset=True)
    async def version() -> VersionResponse:
        """The version, since when it answers, and why another version does not; the same of the detector, if any."""
        provider, current = service.provider, service.provider.current
        response = VersionResponse(
            registered_name=provider.registered_name or None,
            version=current.version or None,
            alias=current.alias or None,
            model=current.metadata.model,
            threshold=current.metadata.threshold,
            since=current.since,
            banner=current.banner,
            problem=provider.problem,
        )
        if service.detectors is not None:
            if service.detectors.current is not None:
                response.regions_model = regions_model(service.detectors.current)
            if service.detectors.problem is not None:
                response.regions_problem = service.detectors.problem
        return response

    @application.post(
        "/webhook",
        tags=["state"],
        summary="Receive a message of the tracking server",
        responses=problem_responses(401, 403, 408, 413),
        openapi_extra={"requestBody": {"required": True, "content": {JSON_TYPE: {"schema": {"type": "object"}}}}},
    )
    async def webhook(request: Request) -> WebhookResponse:
        """MLflow must have signed the message. If an alias of this model has moved, the aliases are read at once."""
        webhooks.require_signatures()
        body = await read_body(request, MAX_MESSAGE_BYTES, MAX_MESSAGE_SECONDS)
        sender = request.client.host if request.client else "an unknown address"
        woken = webhooks.receive(body, request.headers, sender)
        return WebhookResponse(done="looking at the aliases" if woken else "nothing")

    @application.get(
        "/metrics",
        tags=["state"],
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Counts and times of all workers."""
        text = await asyncio.get_running_loop().run_in_executor(None, service_metrics.export)
        return Response(text, media_type=METRICS_TYPE)

    @application.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return docs_page(application.openapi())

    return application


def _check_ready(readiness: Readiness) -> None:
    if readiness.draining:
        raise ProblemError(503, "leaving", "the service is about to stop; send requests again when it has started")
