"""Serve: answer for radiographs over HTTP with the champion, and follow the registry when another takes its place."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.model_fields import Answering

log = logging.getLogger(__name__)


class Serve(Answering):
    """Answer for radiographs over HTTP with the champion, following its alias without missing a request."""

    name: ClassVar[str] = "serve"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "serve")
    passed_over: ClassVar[frozenset[str]] = Answering.passed_over | {"webhook_name"}

    seconds: Annotated[float, Field(gt=0, le=3600, description="Seconds between two looks at the aliases.")] = 5.0
    keep_log: Annotated[
        bool,
        Field(description="Note moves that a person makes in the promotion log at once; needs leave to write there."),
    ] = True
    host: Annotated[str, Field(min_length=1, description="Address to listen on; 127.0.0.1 is this machine alone.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8765
    secret_variable: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="Environment variable with the secret of the webhook; while it is not set, none is taken.",
        ),
    ] = "CXR_WEBHOOK_SECRET"
    workers: Annotated[
        int, Field(ge=1, le=64, description="Processes that answer, each with a model of its own; one that dies is "
                   "replaced.")
    ] = 2  # fmt: skip
    waiting: Annotated[
        int,
        Field(ge=1, le=1024, description="Requests that a worker takes before it has answered; others get 503."),
    ] = 16
    max_megabytes: Annotated[float, Field(gt=0, le=1024, description="Largest request, MiB.")] = 64.0
    max_images: Annotated[int, Field(ge=1, le=1024, description="Most images a request.")] = 32
    max_megapixels: Annotated[float, Field(gt=0, le=500, description="Largest image, millions of pixels.")] = 50.0
    read_seconds: Annotated[float, Field(gt=0, le=600, description="Longest time to read an image.")] = 10.0
    send_seconds: Annotated[
        float, Field(gt=0, le=3600, description="Longest time that a client may take to send a request.")
    ] = 30.0
    notice_seconds: Annotated[
        float,
        Field(ge=0, le=600, description="Seconds between 503 on /ready and the end, after SIGTERM; then running "
              "requests end."),
    ] = 0.0  # fmt: skip
    end_seconds: Annotated[float, Field(gt=0, le=600, description="Seconds that running requests have to end.")] = 20.0
    log_predictions: Annotated[
        Path | None, Field(description="Folder to log predictions into, for `cxr drift`; null logs none.")
    ] = None
    log_pixels: Annotated[bool, Field(description="Whether that log keeps pictures, too: they are patients'.")] = False

    def run(self) -> None:
        """Answer until interrupted."""
        from cxr.serving.rest.settings import Limits, Settings
        from cxr.serving.rest.supervisor import Supervisor, bind
        from cxr.tracking.webhook_signature import secret_of

        if not secret_of(self.secret_variable):
            log.info("%s is not set: webhooks are not taken, polling goes on", self.secret_variable)
        limits = Limits(
            megabytes=self.max_megabytes,
            images=self.max_images,
            megapixels=self.max_megapixels,
            read_seconds=self.read_seconds,
            send_seconds=self.send_seconds,
            waiting=self.waiting,
        )
        settings = Settings(
            tracking_uri=self.tracking_uri,
            registered_name=self.registered_name,
            alias=self.alias,
            fallback=self.fallback,
            model=self.model,
            evaluation=self.evaluation,
            reference=self.reference,
            seconds=self.seconds,
            keep_log=self.keep_log,
            secret_variable=self.secret_variable,
            limits=limits,
            workers=self.workers,
            notice_seconds=self.notice_seconds,
            end_seconds=self.end_seconds,
            predictions=self.log_predictions,
            pixels=self.log_pixels,
        )
        Supervisor(settings, bind(self.host, self.port)).run()
