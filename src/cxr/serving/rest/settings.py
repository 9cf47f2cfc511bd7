"""What the service is started with: the model that answers, the limits of a request, and its processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxr.images.reading_options import ReadingOptions
from cxr.serving.model_choice import ModelChoice
from cxr.tracking.signatures import TrustedKeys

MEBIBYTE = 1 << 20
METRICS_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder of the workers' metrics; set before ``prometheus_client`` is imported."""


@dataclass(frozen=True)
class RequestLimits:
    """Limits of a request.

    Attributes:
        megabytes: largest body, MiB; counted while it is received.
        images: most images of a request.
        options: what is accepted when an image is read.
        read_seconds: longest time to decode an image.
        send_seconds: longest time that a client may take to send its request.
        waiting: most requests that a worker has accepted and not yet answered; further ones get 503.
    """

    megabytes: float
    images: int
    options: ReadingOptions
    read_seconds: float
    send_seconds: float
    waiting: int

    @property
    def max_bytes(self) -> int:
        """Largest body in bytes."""
        return int(self.megabytes * MEBIBYTE)

    @property
    def max_pixels(self) -> int:
        """Most pixels of an image."""
        return self.options.max_pixels


@dataclass(frozen=True)
class ServiceSettings:
    """Everything that a worker must know. It is pickled and sent to the worker's process.

    Attributes:
        tracking_uri: address of the store.
        choice: the classifier that answers and the detector that draws boxes.
        trusted_keys: keys that a version must be signed by before it is loaded; None asks for no signature.
        shadow: the alias of a second version, which answers unseen; None for none.
        runtime: what computes the classifier's networks, ``"keras"`` or ``"onnx"``.
        poll_seconds: time between two polls of the aliases.
        keep_log: whether to note a person's changes of the alias in the promotion log.
        secret_variable: environment variable with the secret of the webhook.
        limits: limits of a request.
        workers: number of processes that answer.
        notice_seconds: time after SIGTERM in which the service still answers, but says that it is not ready.
        end_seconds: time that running requests have to finish.
        prediction_log: folder of the prediction log; None for none.
        log_images: whether the prediction log keeps the images.
    """

    tracking_uri: str
    choice: ModelChoice
    trusted_keys: TrustedKeys | None
    shadow: str | None
    runtime: str
    poll_seconds: float
    keep_log: bool
    secret_variable: str
    limits: RequestLimits
    workers: int
    notice_seconds: float
    end_seconds: float
    prediction_log: Path | None
    log_images: bool
