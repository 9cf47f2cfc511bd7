"""What is sent is answered as the predictor answers for it, and what cannot be answered is told in plain words."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr.images.decoding import decode_picture
from cxr.images.sandbox import LimitedReader
from cxr.inference.reference.fitting import described, fit
from cxr.serving.rest.inference import StandingFolder
from cxr.serving.rest.problems import MEDIA_TYPE
from support.model_folders import Folders
from support.rest_service import JPEG, JSON, PNG, Running, encoded, running


def test_bytes_and_json_are_answered_as_the_predictor_does(
    service: Running, folder: StandingFolder, folders: Folders
) -> None:
    images = folders.images[:20]
    expected = folder.current.predictor.predict(images)
    together = service.client.predict_all(*images).json
    assert [one["label"] for one in together["predictions"]] == [one.label for one in expected]
    assert {one["label"] for one in together["predictions"]} == {"NORMAL", "PNEUMONIA"}
    for given, one in zip(together["predictions"], expected, strict=True):
        assert given["probability"] == pytest.approx(one.probability, abs=1e-6)
        assert (given["threshold"], given["refusal"], given["error"]) == (one.threshold, None, None)
    assert {key: together[key] for key in ("version", "alias", "model", "banner")} == {
        "version": None, "alias": None, "model": "three_block", "banner": None,
    }  # fmt: skip
    jpeg = next(image for image in images if image.suffix == ".jpeg")
    for headers in (JPEG, PNG, {"Content-Type": "application/octet-stream"}, {"Content-Type": "IMAGE/JPEG; a=b"}):
        alone = service.client.predict(jpeg, headers)
        assert alone.status == 200
        same = expected[images.index(jpeg)]
        assert alone.json["predictions"][0]["probability"] == pytest.approx(same.probability, abs=1e-6)


def test_a_client_that_keeps_its_connection_is_sent_each_answer_at_once(service: Running) -> None:
    """Else the system holds the last packet back for 40 ms, to fill it."""
    kept = http.client.HTTPConnection("127.0.0.1", service.client.port, timeout=60)
    with contextlib.closing(kept):
        for _ in range(2):
            kept.request("GET", "/health")
            assert kept.getresponse().read()
        lines = [one.transport.get_extra_info("socket") for one in service.server.server_state.connections]
        assert lines and all(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for line in lines)


def test_kserve_asks_in_its_own_words(service: Running, folders: Folders) -> None:
    ours = service.client.predict_all(*folders.images[:2]).json["predictions"]
    body = json.dumps({"instances": [{"b64": encoded(image)} for image in folders.images[:2]]})
    assert service.client.get("/v1/models") == {"models": ["three_block"]}
    assert service.client.get("/v1/models/three_block") == {"name": "three_block", "ready": True}
    answer = service.client.ask("POST", "/v1/models/three_block:predict", body, JSON)
    assert answer.status == 200
    for given, one in zip(answer.json["predictions"], ours, strict=True):
        assert given["probability"] == pytest.approx(one["probability"], abs=1e-6)
    for method, path in (("GET", "/v1/models/other"), ("POST", "/v1/models/other:predict")):
        answer = service.client.ask(method, path, body, JSON)
        assert (answer.status, answer.json["problem"]) == (404, "unknown_model")


def test_one_that_cannot_be_read_is_422_alone_and_an_error_among_others(service: Running, folders: Folders) -> None:
    good = folders.images[0]
    cut = good.read_bytes()[:200]
    answer = service.client.predict(cut, PNG)
    assert (answer.status, answer.headers["content-type"]) == (422, MEDIA_TYPE)
    assert (answer.json["problem"], answer.json["status"], answer.json["type"]) == ("truncated", 422, "about:blank")
    tiny = cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes()
    sent = [encoded(good), encoded(cut), "no base64!", encoded(b""), encoded(tiny), encoded(good)]
    given = service.client.ask("POST", "/v1/predictions", json.dumps({"images": sent}), JSON)
    assert given.status == 200
    first, *others, last = given.json["predictions"]
    assert first["probability"] == pytest.approx(last["probability"], abs=1e-6)
    assert [one["error"]["problem"] if one["error"] else None for one in others[:3]] == [
        "truncated", "not_base64", "empty",
    ]  # fmt: skip
    assert all(one["probability"] is None and one["label"] is None for one in others[:3])
    assert others[3]["error"] is not None or others[3]["probability"] is not None


def test_a_picture_that_is_no_chest_film_is_answered_by_a_refusal_and_logged_without_its_pixels(
    folder: StandingFolder, phantom_folder: Path, reader: LimitedReader, tmp_path: Path
) -> None:
    from cxr.serving.prediction_log import PredictionLog

    films = sorted(phantom_folder.rglob("*.jpeg"))[:40]
    seen = [described(decode_picture(film.read_bytes())) for film in films]
    known = fit(seen, [film.name for film in films], dataset_kind="phantom")
    standing = replace(folder, current=replace(folder.current, reference=known))
    colours = np.zeros((200, 200, 3), np.uint8)
    colours[:, :100, 2] = 200
    with running(standing, reader=reader, predictions=PredictionLog(tmp_path / "log")) as own:
        answer = own.client.predict(cv2.imencode(".png", colours)[1].tobytes(), PNG)
        assert answer.status == 200
        refused = answer.json["predictions"][0]
        assert (refused["label"], refused["probability"], refused["error"]) == (None, None, None)
        assert refused["refusal"]["kind"] == "coloured" and "coloured" in refused["refusal"]["detail"]
        answers = own.client.predict_all(*films[:4]).json["predictions"]
        taken = [one for one in answers if one["refusal"] is None]
        assert taken and all(one["probability"] is not None for one in taken)
        assert own.client.measured("cxr_refusals_total", kind="coloured") == 1
    rows = "".join(path.read_text() for path in (tmp_path / "log").glob("*.jsonl")).splitlines()
    assert len(rows) == 5 and json.loads(rows[0])["refusal"] == "coloured"
    assert {path.suffix for path in (tmp_path / "log").rglob("*") if path.is_file()} == {".jsonl"}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ("{", "body"),
        ("[]", "body"),
        ("{}", "images"),
        ('{"images": []}', "images"),
        ('{"images": [1]}', "images.0"),
        ('{"images": ["AA=="], "name": "patient-17.dcm"}', "name"),
    ],
)
def test_json_that_is_not_as_described_is_told_where(service: Running, body: str, place: str) -> None:
    answer = service.client.ask("POST", "/v1/predictions", body, JSON)
    assert (answer.status, answer.json["problem"]) == (422, "malformed")
    assert answer.json["detail"].startswith(f"{place}: ")
    assert "patient-17" not in answer.body.decode()


def test_other_types_compressed_bodies_paths_and_methods_are_refused(service: Running) -> None:
    ask = service.client.ask
    for headers in ({}, {"Content-Type": "multipart/form-data"}, {**JPEG, "Content-Encoding": "gzip"}):
        answer = ask("POST", "/v1/predictions", b"x", headers)
        assert (answer.status, answer.json["problem"]) == (415, "wrong_type")
        assert "image/jpeg" in answer.headers["accept"]
    assert (ask("GET", "/elsewhere").status, ask("GET", "/elsewhere").json["problem"]) == (404, "not_found")
    wrong = ask("PUT", "/v1/predictions", b"")
    assert (wrong.status, wrong.headers["allow"], wrong.headers["content-type"]) == (405, "POST", MEDIA_TYPE)


def test_requests_have_names_and_a_client_may_choose_a_plain_one(service: Running, folders: Folders) -> None:
    image = folders.images[0].read_bytes()
    mine = service.client.ask("POST", "/v1/predictions", image, {**PNG, "X-Request-ID": "visit-7"})
    assert mine.json["request_id"] == mine.headers["x-request-id"] == "visit-7"
    odd = service.client.ask("POST", "/v1/predictions", b"x", {**PNG, "X-Request-ID": "a b<script>"})
    assert odd.json["request_id"] == odd.headers["x-request-id"] != "a b<script>"
    assert len(odd.json["request_id"]) == 32


def test_what_happens_is_counted(folder: StandingFolder, folders: Folders, reader: LimitedReader) -> None:
    with running(folder, reader=reader) as own:
        client = own.client
        labels = [one["label"] for one in client.predict_all(*folders.images[:6]).json["predictions"]]
        client.predict(b"x", PNG)
        client.ask("BREW", "/nowhere/patient-17.jpeg")
        text = client.ask("GET", "/metrics").body.decode()
        for label in set(labels):
            assert client.measured("cxr_predictions_total", label=label) == labels.count(label)
        assert client.measured("cxr_probability_count") == 6
        assert client.measured("cxr_image_errors_total", problem="not_an_image") == 1
        assert client.measured("cxr_requests_total", path="/v1/predictions", status="200") == 1
        assert client.measured("cxr_requests_total", path="/v1/predictions", status="422") == 1
        assert client.measured("cxr_requests_total", path="other", method="other", status="404") == 1
        assert client.measured("cxr_image_seconds_count", phase="reading") == 7
        assert client.measured("cxr_images_in_flight") == 0
        assert "patient-17" not in text


def test_the_page_needs_no_other_site(service: Running) -> None:
    answer = service.client.ask("GET", "/docs")
    text = answer.body.decode()
    assert answer.status == 200 and "http-equiv" not in text
    assert "src=" not in text and "POST /v1/predictions" in text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert service.client.ask("GET", "/redoc").status == 404
