"""Requests that are too large, too slow or too many are rejected, and accepted requests are answered."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

import cxr.serving.rest.server as server_module
from cxr.images.sandbox import SandboxedDecoder
from cxr.serving.model_provider import FolderModelProvider
from cxr.steps.serve import Serve
from support.model_folders import ModelFolders
from support.rest_service import JSON_HEADERS, PNG_HEADERS, HeldDecoder, RunningService, run_service, to_base64
from support.tracking_server import wait_until

LIMITS = Serve(max_megabytes=0.25, max_images=3, max_megapixels=0.1, send_seconds=0.5).request_limits()


def test_too_much_is_rejected_before_it_is_received(provider: FolderModelProvider, folders: ModelFolders) -> None:
    with run_service(provider, LIMITS) as service:
        large = b"x" * (LIMITS.max_bytes + 1)
        bodies = (large, iter([large[:100_000]] * 4), iter([large]))
        for body in bodies:  # with Content-Length, and in chunks of unknown number
            response = service.client.request("POST", "/v1/predictions", body, PNG_HEADERS)
            assert (response.status, response.json["problem"]) == (413, "too_large"), body
        many = json.dumps({"images": [to_base64(folders.images[0])] * 4})
        response = service.client.request("POST", "/v1/predictions", many, JSON_HEADERS)
        assert (response.status, response.json["problem"]) == (413, "too_many")
        wide = cv2.imencode(".png", np.zeros((400, 400), np.uint8))[1].tobytes()
        response = service.client.predict(wide, PNG_HEADERS)
        assert (response.status, response.json["problem"]) == (422, "too_large")
        results = service.client.predict_all(wide, *folders.images[:2]).json["predictions"]
        assert [result["error"] and result["error"]["problem"] for result in results] == ["too_large", None, None]


def test_a_client_that_waits_for_100_continue_gets_413_for_too_much(provider: FolderModelProvider) -> None:
    with run_service(provider, LIMITS) as service, _connect(service) as connection:
        connection.sendall(
            b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nExpect: 100-continue\r\n"
            b"Content-Length: 99999999999999\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_slow_clients_are_disconnected(provider: FolderModelProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_HEAD_SECONDS", 0.5)
    with run_service(provider, LIMITS) as service:
        with _connect(service) as connection:
            connection.sendall(b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
            connection.sendall(b"Content-Length: 100\r\n\r\n...")
            connection.settimeout(10)
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        with _connect(service) as connection:
            connection.settimeout(10)
            started = time.monotonic()
            with pytest.raises(OSError, match=r"."):  # the head never ends, one byte at a time
                while time.monotonic() < started + 9:
                    connection.sendall(b"G")
                    time.sleep(0.1)
            assert time.monotonic() - started < 5
        closed_early = _connect(service)
        closed_early.sendall(b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
        closed_early.sendall(b"Content-Length: 100\r\n\r\n...")
        closed_early.close()
        assert service.client.request("GET", "/health").status == 200


def test_requests_beyond_the_limit_get_503_and_may_try_again(
    provider: FolderModelProvider, folders: ModelFolders, decoder: SandboxedDecoder
) -> None:
    held_decoder, image = HeldDecoder(decoder), folders.images[0]
    limits = Serve(waiting=2).request_limits()
    with run_service(provider, limits, decoder=held_decoder) as service, ThreadPoolExecutor(2) as pool:
        held_decoder.released.clear()
        waiting = [pool.submit(service.client.predict, image, PNG_HEADERS) for _ in range(2)]
        wait_until(lambda: service.client.metric("cxr_images_in_flight") == 2)
        response = service.client.predict(image, PNG_HEADERS)
        assert (response.status, response.json["problem"]) == (503, "overloaded")
        assert response.headers["retry-after"] == "1"
        assert service.client.request("GET", "/ready").status == 200, "an overloaded service is still ready"
        held_decoder.released.set()
        assert [future.result().status for future in waiting] == [200, 200]
        assert service.client.predict(image, PNG_HEADERS).status == 200


def test_running_requests_are_answered_when_the_server_stops(
    provider: FolderModelProvider, folders: ModelFolders, decoder: SandboxedDecoder
) -> None:
    held_decoder = HeldDecoder(decoder)
    with run_service(provider, decoder=held_decoder) as service, ThreadPoolExecutor(1) as pool:
        held_decoder.released.clear()
        waiting = pool.submit(service.client.predict, folders.images[0], PNG_HEADERS)
        wait_until(lambda: service.client.metric("cxr_images_in_flight") == 1)
        service.server.stop()
        threading.Timer(0.5, held_decoder.released.set).start()
        response = waiting.result()
        assert response.status == 200 and response.json["predictions"][0]["probability"] is not None


def _connect(service: RunningService) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.client.port))
