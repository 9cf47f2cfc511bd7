"""The REST service: in a thread of the test with a desk of its own, or as `cxr serve` with its workers."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.images.sandbox import LimitedReader
from cxr.serving.rest.application import application
from cxr.serving.rest.inference import Desk, Standing
from cxr.serving.rest.metrics import Measurements
from cxr.serving.rest.middleware import Standby
from cxr.serving.rest.server import HttpServer
from cxr.serving.rest.settings import Limits
from cxr.serving.rest.supervisor import bind
from cxr.serving.rest.webhook import News
from cxr.tracking.webhook_signature import SignatureCheck

if TYPE_CHECKING:
    from cxr.serving.prediction_log import PredictionLog

JPEG, PNG, JSON = ({"Content-Type": kind} for kind in ("image/jpeg", "image/png", "application/json"))


@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """Asks a service; each question has a connection of its own."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())

    def get(self, path: str) -> Any:
        return self.ask("GET", path).json

    def predict(self, image: bytes | Path, headers: Mapping[str, str] = JPEG) -> Reply:
        return self.ask("POST", "/v1/predictions", image if isinstance(image, bytes) else image.read_bytes(), headers)

    def predict_all(self, *images: bytes | Path) -> Reply:
        return self.ask("POST", "/v1/predictions", json.dumps({"images": [encoded(one) for one in images]}), JSON)

    def measured(self, name: str, **labels: str) -> float:
        """A value of /metrics, added up over the labels that are not named."""
        found = 0.0
        for line in self.ask("GET", "/metrics").body.decode().splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name:
                seen = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                found += float(match[3]) if labels.items() <= seen.items() else 0.0
        return found


def encoded(image: bytes | Path) -> str:
    return base64.b64encode(image if isinstance(image, bytes) else image.read_bytes()).decode()


@dataclass
class Running:
    """A service in a thread of this process."""

    client: Client
    standby: Standby
    server: HttpServer
    woken: list[None] = field(default_factory=list)


class Held:
    """A reader that holds images back until it is told to go on."""

    def __init__(self, reader: LimitedReader) -> None:
        self.going = threading.Event()
        self.going.set()
        self.reader = reader

    def read(self, data: bytes) -> Any:
        assert self.going.wait(30)
        return self.reader.read(data)


@contextlib.contextmanager
def running(
    standing: Standing,
    limits: Limits | None = None,
    *,
    secret: str | None = None,
    reader: Any = None,
    predictions: PredictionLog | None = None,
    woken: Callable[[], None] | None = None,
) -> Iterator[Running]:
    limits, counted, standby, shared = limits or Limits(), Measurements(), Standby(), bind("127.0.0.1", 0)
    calls: list[None] = []
    news = News(
        standing.registered_name, woken or (lambda: calls.append(None)), SignatureCheck(secret) if secret else None
    )
    with contextlib.ExitStack() as stack:
        if reader is None:
            reader = stack.enter_context(
                LimitedReader(seconds=limits.read_seconds, max_bytes=limits.bytes, max_pixels=limits.pixels)
            )
        threads = stack.enter_context(ThreadPoolExecutor(2))
        desk = Desk(standing, reader, limits, counted, predictions)
        port = shared.getsockname()[1]
        server = HttpServer(application(desk, limits, counted, news, threads, standby), shared)
        thread = threading.Thread(target=server.run_until_told)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Running(Client(port), standby, server, calls)
        finally:
            server.end()
            thread.join()


class Command:
    """`cxr serve` on a free port."""

    def __init__(self, log: Path, *words: str, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cxr.cli.main", "serve", "--port", "0", *words],
                stderr=out,
                env={**os.environ, **(environment or {})},
            )
        try:
            self.client = Client(self._port())
        except AssertionError:
            self.kill()
            raise

    def _port(self) -> int:
        deadline = time.monotonic() + 240
        while not (found := re.findall(r"answering on http://127.0.0.1:(\d+)", self.text)):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.1)
        return int(found[0])

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def workers(self) -> list[int]:
        """Ids of the processes that answer."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(one) for one in children if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]

    def end(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
