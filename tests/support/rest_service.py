"""The REST service: in a thread of the test, or as `cxr serve` with its workers."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.images.sandbox import SandboxedDecoder
from cxr.promotion.log import CHAMPION
from cxr.serving.alias_watcher import AliasWatcher
from cxr.serving.model_provider import AliasModelProvider, DetectorProvider, ModelProvider
from cxr.serving.rest.application import build_application
from cxr.serving.rest.inference import InferenceService
from cxr.serving.rest.metrics import ServiceMetrics
from cxr.serving.rest.middleware import Readiness
from cxr.serving.rest.server import HttpServer
from cxr.serving.rest.settings import RequestLimits
from cxr.serving.rest.shadow import ShadowPredictor
from cxr.serving.rest.shadow_metrics import ShadowMetrics
from cxr.serving.rest.supervisor import bind_socket
from cxr.serving.rest.webhook import WebhookReceiver
from cxr.steps.serve import Serve
from cxr.tracking.store import Store
from cxr.tracking.webhook_signature import SignatureCheck

if TYPE_CHECKING:
    from cxr.serving.prediction_log import PredictionLog
    from cxr.serving.shadow_provider import AliasShadowProvider

JPEG_HEADERS, PNG_HEADERS, JSON_HEADERS = (
    {"Content-Type": content_type} for content_type in ("image/jpeg", "image/png", "application/json")
)


def champion_provider(uri: str, registered_name: str, **options: Any) -> AliasModelProvider:
    return AliasModelProvider(Store(uri), registered_name, CHAMPION, **{"fallback": None, **options})


@dataclass(frozen=True)
class Response:
    """A response of the service."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class ServiceClient:
    """Sends requests to a service; each has a connection of its own."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Response(response.status, names, response.read())

    def get(self, path: str) -> Any:
        return self.request("GET", path).json

    def predict(self, image: bytes | Path, headers: Mapping[str, str] = JPEG_HEADERS) -> Response:
        content = image if isinstance(image, bytes) else image.read_bytes()
        return self.request("POST", "/v1/predictions", content, headers)

    def predict_all(self, *images: bytes | Path) -> Response:
        body = json.dumps({"images": [to_base64(image) for image in images]})
        return self.request("POST", "/v1/predictions", body, JSON_HEADERS)

    def metric(self, name: str, **labels: str) -> float:
        """A value of /metrics, added up over the labels that are not named."""
        total = 0.0
        for line in self.request("GET", "/metrics").body.decode().splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name:
                line_labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                total += float(match[3]) if labels.items() <= line_labels.items() else 0.0
        return total


def to_base64(image: bytes | Path) -> str:
    return base64.b64encode(image if isinstance(image, bytes) else image.read_bytes()).decode()


@dataclass
class RunningService:
    """A service in a thread of this process."""

    client: ServiceClient
    readiness: Readiness
    server: HttpServer
    wake_calls: list[None] = field(default_factory=list)


class HeldDecoder:
    """A decoder that waits while ``released`` is cleared."""

    def __init__(self, decoder: SandboxedDecoder) -> None:
        self.released = threading.Event()
        self.released.set()
        self.decoder = decoder

    def decode(self, data: bytes) -> Any:
        assert self.released.wait(30)
        return self.decoder.decode(data)


@contextlib.contextmanager
def run_service(
    provider: ModelProvider,
    limits: RequestLimits | None = None,
    *,
    detectors: DetectorProvider | None = None,
    secret: str | None = None,
    decoder: Any = None,
    prediction_log: PredictionLog | None = None,
    shadows: AliasShadowProvider | None = None,
    wake: Callable[[], None] | None = None,
) -> Iterator[RunningService]:
    limits = limits or Serve().request_limits()
    metrics, readiness, shared_socket = ServiceMetrics(), Readiness(), bind_socket("127.0.0.1", 0)
    wake_calls: list[None] = []
    names = [provider.registered_name, detectors.registered_name if detectors is not None else ""]
    webhooks = WebhookReceiver(
        [name for name in names if name],
        wake or (lambda: wake_calls.append(None)),
        SignatureCheck(secret) if secret else None,
    )
    with contextlib.ExitStack() as stack:
        if decoder is None:
            decoder = stack.enter_context(
                SandboxedDecoder(seconds=limits.read_seconds, max_bytes=limits.max_bytes, options=limits.options)
            )
        threads = stack.enter_context(ThreadPoolExecutor(2))
        shadow = None
        if shadows is not None:
            shadow_metrics = ShadowMetrics(metrics.registry)
            watcher = AliasWatcher(shadows, 3600.0)
            shadow = ShadowPredictor(shadows, watcher, shadow_metrics, prediction_log, limits.max_pixels)
            shadow.start(stack)
        service = InferenceService(provider, detectors, decoder, limits, metrics, prediction_log, shadow)

        def set_gauges() -> None:
            metrics.set_model(provider.current, provider.problem)
            if detectors is not None:
                metrics.set_detector(detectors.current, detectors.problem)
            if shadow is not None:
                shadow.set_gauges()

        port = shared_socket.getsockname()[1]
        server = HttpServer(
            build_application(service, limits, metrics, webhooks, threads, readiness),
            shared_socket,
            end_seconds=20.0,
            every_second=set_gauges,
        )
        thread = threading.Thread(target=server.serve_until_stopped)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield RunningService(ServiceClient(port), readiness, server, wake_calls)
        finally:
            server.stop()
            thread.join()


def worker_processes(service: int) -> list[int]:
    """Ids of the workers of a service, those that still load the model included."""
    children = Path(f"/proc/{service}/task/{service}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


class ServeCommand:
    """`cxr serve` on a free port."""

    def __init__(self, log: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cxr.cli.main", "serve", "--port", "0", *arguments],
                stderr=stderr,
                env={**os.environ, **(environment or {})},
            )
        try:
            self.client = ServiceClient(self._wait_for_port())
        except AssertionError:
            self.kill()
            raise

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + 240
        while not (ports := re.findall(r"answering on http://127.0.0.1:(\d+)", self.text)):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.1)
        return int(ports[0])

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def workers(self) -> list[int]:
        """Ids of the processes that answer."""
        return worker_processes(self.process.pid)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
