"""Requests as clients write them are answered, or the error names the header or the text and says what to do."""

from __future__ import annotations

import base64
import codecs
import contextlib
import gzip
import http.client
import json
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from cxr.serving.rest.request_body import IMAGE_COMMAND
from support.model_folders import ModelFolders
from support.rest_service import JPEG_HEADERS, JSON_HEADERS, RunningService

GET_PATHS = (
    "/health",
    "/ready",
    "/version",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/v1/models",
    "/v1/models/three_block",
)


@pytest.mark.parametrize("path", [*GET_PATHS, "/v1/models/other", "/elsewhere"])
def test_head_is_answered_with_the_headers_of_get_and_no_body(service: RunningService, path: str) -> None:
    plain, head = (service.client.request(method, path) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (plain.status, b"")
    assert head.headers["content-type"] == plain.headers["content-type"]
    assert len(plain.body) == int(plain.headers["content-length"])
    if path != "/metrics":  # the count of requests has changed
        assert head.headers["content-length"] == plain.headers["content-length"]
    assert set(head.headers) == set(plain.headers)


def test_a_connection_goes_on_after_head(service: RunningService) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.client.port, timeout=60)
    with contextlib.closing(connection):
        for method in ("HEAD", "GET"):
            connection.request(method, "/health")
            response = connection.getresponse()
            assert response.status == 200
            assert bool(response.read()) == (method == "GET")


def test_other_methods_are_refused_with_those_that_are_allowed(service: RunningService) -> None:
    for path, method, allowed in (
        ("/v1/predictions", "HEAD", {"POST"}),
        ("/webhook", "HEAD", {"POST"}),
        *((path, "POST", {"GET", "HEAD"}) for path in GET_PATHS),
    ):
        response = service.client.request(method, path)
        assert (response.status, set(response.headers["allow"].split(", "))) == (405, allowed), path
    assert service.client.metric("cxr_requests_total", method="HEAD", path="/webhook", status="405") == 1


def test_base64_is_read_as_clients_write_it(service: RunningService, folders: ModelFolders) -> None:
    image = folders.images[0].read_bytes()
    plain = base64.b64encode(image).decode()
    texts = [
        plain,
        base64.encodebytes(image).decode(),
        base64.encodebytes(image).decode().replace("\n", "\r\n"),
        f"data:image/png;base64,{plain}",
        base64.urlsafe_b64encode(image).decode().rstrip("="),
        f"data:image/png,{plain}",
        f"{plain}!",
    ]
    for path, body, location in (
        ("/v1/predictions", {"images": texts}, "images.{}: "),
        ("/v1/models/three_block:predict", {"instances": [{"b64": text} for text in texts]}, "instances.{}.b64: "),
    ):
        response = service.client.request("POST", path, json.dumps(body), JSON_HEADERS)
        *readable, without_mark, damaged = response.json["predictions"]
        assert len({result["probability"] for result in readable}) == 1 and readable[0]["probability"] is not None
        for number, result, part in ((5, without_mark, ";base64,"), (6, damaged, "does not have")):
            assert result["error"]["problem"] == "not_base64"
            assert result["error"]["detail"].startswith(location.format(number)) and part in result["error"]["detail"]


def test_json_in_the_encodings_of_windows_is_read_and_a_raw_line_break_explained(
    service: RunningService, folders: ModelFolders
) -> None:
    text = json.dumps({"images": [base64.b64encode(folders.images[0].read_bytes()).decode()]})
    for body in (codecs.BOM_UTF8 + text.encode(), text.encode("utf-16"), text.encode("utf-16-le")):
        headers = {"content-TYPE": "application/json; charset=utf-8"}
        response = service.client.request("POST", "/v1/predictions", body, headers)
        assert response.status == 200 and response.json["predictions"][0]["probability"] is not None
    for body, part in ((b'{"images": ["AA\nAA"]}', "write each text in one line"), (b"\xff\xfe{", "JSON in UTF-8")):
        response = service.client.request("POST", "/v1/predictions", body, JSON_HEADERS)
        assert (response.status, response.json["problem"]) == (422, "malformed")
        assert part in response.json["detail"]


@pytest.mark.parametrize("content_type", ["image/jpg", "Image/PJPEG", "image/x-png", "binary/octet-stream"])
def test_unregistered_names_of_types_are_accepted(
    service: RunningService, folders: ModelFolders, content_type: str
) -> None:
    response = service.client.predict(folders.images[0], {"CONTENT-type": content_type})
    assert response.status == 200 and response.json["predictions"][0]["probability"] is not None


@pytest.mark.parametrize(
    ("headers", "parts"),
    [
        ({}, ["received no Content-Type (name the type of the body)"]),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            ["received Content-Type='multipart/form-data' (forms", "send one image, or several as JSON"],
        ),
        (
            {"Content-Type": "application/x-www-form-urlencoded"},
            ["received Content-Type='application/x-www-form-urlencoded' (curl"],
        ),
        ({**JPEG_HEADERS, "Content-Encoding": "gzip"}, ["received Content-Encoding='gzip'; send it uncompressed"]),
        (
            {"Content-Type": "text/html", "Content-Encoding": "br"},
            [
                "received Content-Type='text/html'; expected a body without Content-Encoding, received",
                "Content-Encoding='br'",
            ],
        ),
    ],
)
def test_an_error_names_the_wrong_header_and_an_example(
    service: RunningService, headers: dict[str, str], parts: list[str]
) -> None:
    response = service.client.request("POST", "/v1/predictions", gzip.compress(b"x"), headers)
    assert (response.status, response.json["problem"]) == (415, "wrong_type")
    detail = response.json["detail"]
    assert all(part in detail for part in parts), detail
    assert ("Content-Encoding" in detail) == ("Content-Encoding" in headers)
    assert ("expected Content-Type" in detail) == (headers.get("Content-Type") != "image/jpeg")
    assert detail.endswith(f"for example: {IMAGE_COMMAND}")
    assert response.headers["accept-encoding"] == "identity"


def test_the_example_command_works(service: RunningService, folders: ModelFolders, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    shutil.copy(folders.images[0], tmp_path / "image.jpeg")
    command = shlex.split(IMAGE_COMMAND.replace("HOST:PORT", f"127.0.0.1:{service.client.port}"))
    result = subprocess.run(
        [*command, "--noproxy", "*", "--silent"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(result.stdout)["predictions"][0]["probability"] is not None


def test_a_client_that_waits_for_100_continue_is_asked_to_send(service: RunningService, folders: ModelFolders) -> None:
    image = folders.images[0].read_bytes()
    with socket.create_connection(("127.0.0.1", service.client.port), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/predictions HTTP/1.1\r\nhost: x\r\nCONTENT-TYPE:image/png\r\nexpect: 100-Continue\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(image)
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(image)
        with connection.makefile("rb") as answer:
            assert answer.readline().startswith(b"HTTP/1.1 200 ")
