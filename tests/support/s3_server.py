"""A real S3 server on loopback (moto), whose responses can be damaged, cut, held back or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from cxr.storage.object_store import ObjectStoreContents

DAMAGED, OVERLOADED, BROKEN = "damaged", "overloaded", "broken"
HALF = 1 << 19
"""Bytes after which a response that is held back stops."""


class SilentHandler(WSGIRequestHandler):
    def log(self, *args: Any, **kwargs: Any) -> None:
        pass


class S3Server:
    """A server that can disturb its responses.

    Attributes:
        cut: keys whose next response ends after half; one entry for each response.
        paused: keys whose responses stop after half until :meth:`release`.
        altered: keys whose responses have a changed first byte.
        disturbances: of each key, what happens to its next responses: :data:`DAMAGED`, :data:`OVERLOADED`, or
            :data:`BROKEN`; anything else leaves the response as it is.
        refusal: S3 error code with which every request is refused.
        answers_left: number of further requests that are answered before all are refused; None for no limit.
        public: whether requests without a signature are allowed.
        ranges: requested ranges of each key.
    """

    def __init__(self) -> None:
        self._app: Any = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._respond, threaded=True, request_handler=SilentHandler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()
        keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
        self.client = boto3.client("s3", endpoint_url=self.url, **keys)
        self.reset()

    def reset(self) -> None:
        """Start with a new empty bucket and undisturbed responses."""
        self.cut: list[str] = []
        self.paused: set[str] = set()
        self.altered: set[str] = set()
        self.disturbances: dict[str, list[str]] = {}
        self.refusal = ""
        self.answers_left: int | None = None
        self.public = True
        self.ranges: dict[str, list[str]] = {}
        self.pages = 0
        self._release = Event()
        self.bucket = f"radiographs-{uuid4().hex}"
        self.client.create_bucket(Bucket=self.bucket)

    def put(self, key: str, body: bytes = b"image") -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def open(self, prefix: str, folder: Path) -> ObjectStoreContents:
        return ObjectStoreContents(f"s3://{self.bucket}/{prefix}", folder, endpoint_url=self.url)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def release(self) -> None:
        self._release.set()

    def _respond(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        refusal = self.refusal or ("" if self._is_allowed(environ) else "AccessDenied")
        if refusal:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{refusal}</Code><Message>no</Message></Error>".encode()]
        key = environ["PATH_INFO"].removeprefix(f"/{self.bucket}").removeprefix("/")
        if environ["REQUEST_METHOD"] != "GET" or not key:
            self.pages += environ["REQUEST_METHOD"] == "GET"
            return self._app(environ, start_response)
        self.ranges.setdefault(key, []).append(environ.get("HTTP_RANGE", "all"))
        disturbance = self.disturbances[key].pop(0) if self.disturbances.get(key) else ""
        if disturbance == OVERLOADED:
            body = [b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"]
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return body
        body = self._app(environ, start_response)
        if disturbance == BROKEN:
            self.cut.append(key)
        if key in self.cut:
            self.cut.remove(key)
            content = b"".join(body)
            return [content[: len(content) // 2]]
        if key in self.altered or disturbance == DAMAGED:
            return [b"!" + b"".join(body)[1:]]
        return self._held_back(body) if key in self.paused else body

    def _is_allowed(self, environ: dict[str, Any]) -> bool:
        if self.answers_left is not None:
            self.answers_left -= 1
        has_answers_left = self.answers_left is None or self.answers_left >= 0
        return has_answers_left and (self.public or "HTTP_AUTHORIZATION" in environ)

    def _held_back(self, body: Iterable[bytes]) -> Iterator[bytes]:
        yield b"".join(body)[:HALF]
        self._release.wait()


def set_keys(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Give the client keys, and no setting of this machine."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(folder / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
