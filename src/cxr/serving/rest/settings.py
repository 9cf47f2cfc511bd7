"""What a service is told at its start: the model that answers, the bounds of a request, and who else is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cxr.promotion.log import CHAMPION

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds on what a request may ask for.

    Attributes:
        megabytes: largest body, MiB; counted while it comes in.
        images: most images of a request.
        megapixels: most pixels of an image, millions.
        read_seconds: longest time to read an image.
        send_seconds: longest time that a client may take to send its request.
        waiting: most requests that a worker has taken and not yet answered; further ones are told to come again.
    """

    megabytes: float = 64.0
    images: int = 32
    megapixels: float = 50.0
    read_seconds: float = 10.0
    send_seconds: float = 30.0
    waiting: int = 16

    @property
    def bytes(self) -> int:
        """Largest body in bytes."""
        return int(self.megabytes * MEBIBYTE)

    @property
    def pixels(self) -> int:
        """Most pixels of an image."""
        return int(self.megapixels * 1_000_000)


@dataclass(frozen=True)
class Settings:
    """All that a worker needs to know; handed to its process.

    Attributes:
        tracking_uri: address of the store.
        registered_name: name of the registered model.
        alias: alias whose version answers.
        fallback: alias to take while nobody has had the other one; None for none.
        model: folder of a model that answers in place of a registered version, None for none.
        evaluation: folder of its evaluation, None to find it.
        reference: folder with what its training films look like, None to find it.
        seconds: time between two looks at the aliases.
        keep_log: whether moves of a person are noted in the promotion log.
        secret_variable: environment variable with the secret of the webhook.
        limits: bounds on requests.
        workers: number of processes that answer.
        notice_seconds: time between saying that it isn't ready any more and taking no more requests.
        end_seconds: time that running requests have to end.
        predictions: folder of the prediction log, None for none.
        pixels: whether that log keeps pictures.
    """

    tracking_uri: str = "sqlite:///mlflow.db"
    registered_name: str = "pneumonia-classifier"
    alias: str = CHAMPION
    fallback: str | None = None
    model: Path | None = None
    evaluation: Path | None = None
    reference: Path | None = None
    seconds: float = 5.0
    keep_log: bool = True
    secret_variable: str = "CXR_WEBHOOK_SECRET"
    limits: Limits = field(default_factory=Limits)
    workers: int = 2
    notice_seconds: float = 0.0
    end_seconds: float = 20.0
    predictions: Path | None = None
    pixels: bool = False
