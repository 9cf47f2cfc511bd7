"""Requests that are too large, too slow or too many are turned away, and those that were taken are answered."""

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
from cxr.images.sandbox import LimitedReader
from cxr.serving.rest.inference import StandingFolder
from cxr.serving.rest.settings import Limits
from support.model_folders import Folders
from support.rest_service import JSON, PNG, Held, encoded, running
from support.tracking_server import wait_until

LIMITS = Limits(megabytes=0.25, images=3, megapixels=0.1, send_seconds=0.5)


def test_too_much_is_refused_before_it_is_taken_in(folder: StandingFolder, folders: Folders) -> None:
    with running(folder, LIMITS) as service:
        large = b"x" * (LIMITS.bytes + 1)
        for body in (large, iter([large[:100_000]] * 4)):  # announced, and in pieces of unknown number
            answer = service.client.ask("POST", "/v1/predictions", body, PNG)
            assert (answer.status, answer.json["problem"]) == (413, "too_large"), body
        many = json.dumps({"images": [encoded(folders.images[0])] * 4})
        answer = service.client.ask("POST", "/v1/predictions", many, JSON)
        assert (answer.status, answer.json["problem"]) == (413, "too_many")
        wide = cv2.imencode(".png", np.zeros((400, 400), np.uint8))[1].tobytes()
        answer = service.client.predict(wide, PNG)
        assert (answer.status, answer.json["problem"]) == (422, "too_large")
        given = service.client.predict_all(wide, *folders.images[:2]).json["predictions"]
        assert [one["error"] and one["error"]["problem"] for one in given] == ["too_large", None, None]


def test_a_client_that_waits_for_leave_gets_none_for_too_much(folder: StandingFolder) -> None:
    with running(folder, LIMITS) as service, socket.create_connection(("127.0.0.1", service.client.port)) as line:
        line.sendall(
            b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nExpect: 100-continue\r\n"
            b"Content-Length: 99999999999999\r\n\r\n"
        )
        assert line.recv(100).startswith(b"HTTP/1.1 413 ")


def test_slow_clients_are_given_up(folder: StandingFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.5)
    with running(folder, LIMITS) as service:
        with socket.create_connection(("127.0.0.1", service.client.port)) as line:
            line.sendall(b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
            line.sendall(b"Content-Length: 100\r\n\r\n...")
            line.settimeout(10)
            assert line.recv(100).startswith(b"HTTP/1.1 408 ")
        with socket.create_connection(("127.0.0.1", service.client.port)) as line:
            line.settimeout(10)
            started = time.monotonic()
            with pytest.raises(OSError, match=r"."):  # the head never ends, one byte at a time
                while time.monotonic() < started + 9:
                    line.sendall(b"G")
                    time.sleep(0.1)
            assert time.monotonic() - started < 5
        client_gone = socket.create_connection(("127.0.0.1", service.client.port))
        client_gone.sendall(b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
        client_gone.sendall(b"Content-Length: 100\r\n\r\n...")
        client_gone.close()
        assert service.client.ask("GET", "/health").status == 200


def test_more_requests_than_there_are_places_are_told_to_come_again(
    folder: StandingFolder, folders: Folders, reader: LimitedReader
) -> None:
    held, image = Held(reader), folders.images[0]
    with running(folder, Limits(waiting=2), reader=held) as service, ThreadPoolExecutor(2) as pool:
        held.going.clear()
        waiting = [pool.submit(service.client.predict, image, PNG) for _ in range(2)]
        wait_until(lambda: service.client.measured("cxr_images_in_flight") == 2)
        answer = service.client.predict(image, PNG)
        assert (answer.status, answer.json["problem"], answer.headers["retry-after"]) == (503, "overloaded", "1")
        assert service.client.ask("GET", "/ready").status == 200, "full is not ill"
        held.going.set()
        assert [one.result().status for one in waiting] == [200, 200]
        assert service.client.predict(image, PNG).status == 200


def test_running_requests_are_answered_at_the_end(
    folder: StandingFolder, folders: Folders, reader: LimitedReader
) -> None:
    held = Held(reader)
    with running(folder, reader=held) as service, ThreadPoolExecutor(1) as pool:
        held.going.clear()
        waiting = pool.submit(service.client.predict, folders.images[0], PNG)
        wait_until(lambda: service.client.measured("cxr_images_in_flight") == 1)
        service.server.end()
        threading.Timer(0.5, held.going.set).start()
        answer = waiting.result()
        assert answer.status == 200 and answer.json["predictions"][0]["probability"] is not None
