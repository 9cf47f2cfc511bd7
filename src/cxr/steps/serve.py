"""Serve: predict radiographs over HTTP with the champion, and follow the registry when another version replaces it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cxr.steps.model_fields import RegionsStep
from cxr.steps.reading_fields import ReadingStep

if TYPE_CHECKING:
    from cxr.serving.rest.settings import RequestLimits

log = logging.getLogger(__name__)


class Serve(RegionsStep, ReadingStep):
    """Predict radiographs over HTTP with the champion. Another champion replaces it without a failed request."""

    name: ClassVar[str] = "serve"
    follows: ClassVar[str] = "app"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "reading", "serve")
    ignored_keys: ClassVar[frozenset[str]] = RegionsStep.ignored_keys | {"webhook_name"}

    shadow: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Alias of a second version, e.g. challenger, that answers too, unseen; null for none.",
        ),
    ] = None
    runtime: Annotated[
        Literal["keras", "onnx"],
        Field(description="What computes the classifier: Keras, or ONNX Runtime after a comparison with Keras."),
    ] = "keras"
    seconds: Annotated[float, Field(gt=0, le=3600, description="Seconds between two polls of the aliases.")] = 5.0
    keep_log: Annotated[
        bool,
        Field(description="Record a person's change of an alias in the promotion log at once; needs write access."),
    ] = True
    host: Annotated[
        str, Field(min_length=1, description="Address to listen on; 127.0.0.1 allows this machine only.")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8765
    secret_variable: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="Environment variable with the secret of the webhook; without it, webhooks are rejected.",
        ),
    ] = "CXR_WEBHOOK_SECRET"
    workers: Annotated[
        int, Field(ge=1, le=64, description="Worker processes, each with its own model; one that ends is replaced.")
    ] = 2
    waiting: Annotated[
        int,
        Field(
            ge=1,
            le=1024,
            description="Most unanswered requests of a worker; further ones get 503.",
        ),
    ] = 16
    max_megabytes: Annotated[float, Field(gt=0, le=1024, description="Largest request, MiB.")] = 64.0
    max_images: Annotated[int, Field(ge=1, le=1024, description="Most images of a request.")] = 32
    max_megapixels: Annotated[float, Field(gt=0, le=500, description="Largest image, millions of pixels.")] = 50.0
    read_seconds: Annotated[float, Field(gt=0, le=600, description="Longest time to read an image.")] = 10.0
    send_seconds: Annotated[
        float, Field(gt=0, le=3600, description="Longest time that a client may take to send a request.")
    ] = 30.0
    notice_seconds: Annotated[
        float,
        Field(ge=0, le=600, description="Seconds after SIGTERM in which /ready gives 503 and requests are answered."),
    ] = 0.0
    end_seconds: Annotated[float, Field(gt=0, le=600, description="Seconds for running requests to finish.")] = 20.0
    log_predictions: Annotated[
        Path | None, Field(description="Folder of the prediction log, for `cxr drift`; null for none.")
    ] = None
    log_pixels: Annotated[bool, Field(description="Whether that log keeps the images, which are patient data.")] = False

    @model_validator(mode="after")
    def _shadow_is_another_version(self) -> Self:
        if self.shadow is not None and self.model is not None:
            raise ValueError(
                f"expected shadow=null with the model of a folder, received shadow={self.shadow}, model={self.model}; "
                "leave one of them out: a shadow is a version of the registered model"
            )
        if self.shadow is not None and self.shadow == self.alias:
            raise ValueError(
                f"expected a shadow other than the alias that answers, received shadow={self.shadow}, "
                f"alias={self.alias}; name another alias, for example challenger"
            )
        return self

    def request_limits(self) -> RequestLimits:
        """The limits of a request."""
        from cxr.serving.rest.settings import RequestLimits

        return RequestLimits(
            megabytes=self.max_megabytes,
            images=self.max_images,
            options=self.reading_options(int(self.max_megapixels * 1_000_000)),
            read_seconds=self.read_seconds,
            send_seconds=self.send_seconds,
            waiting=self.waiting,
        )

    def run(self) -> None:
        """Answer requests until interrupted."""
        from cxr.serving.rest.settings import ServiceSettings
        from cxr.serving.rest.supervisor import Supervisor, bind_socket
        from cxr.tracking.signatures import TrustedKeys
        from cxr.tracking.webhook_signature import read_secret

        if self.runtime == "onnx":
            from cxr.export.onnx_file import expect_packages

            expect_packages()
        if not read_secret(self.secret_variable):
            log.info("%s is not set: webhooks are rejected, and the aliases are polled", self.secret_variable)
        if self.shadow is not None and self.log_predictions is None:
            log.info("log_predictions is null: answers of the shadow are only counted, in /metrics")
        settings = ServiceSettings(
            tracking_uri=self.tracking_uri,
            choice=self.choice,
            trusted_keys=TrustedKeys.read(self.require_signature),
            shadow=self.shadow,
            runtime=self.runtime,
            poll_seconds=self.seconds,
            keep_log=self.keep_log,
            secret_variable=self.secret_variable,
            limits=self.request_limits(),
            workers=self.workers,
            notice_seconds=self.notice_seconds,
            end_seconds=self.end_seconds,
            prediction_log=self.log_predictions,
            log_images=self.log_pixels,
        )
        Supervisor(settings, bind_socket(self.host, self.port)).run()
