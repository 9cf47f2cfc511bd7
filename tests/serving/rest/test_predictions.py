"""The service predicts as the predictor does, and says what is wrong with an image or a request."""

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

from cxr.images.decoding import decode_image
from cxr.images.sandbox import SandboxedDecoder
from cxr.inference.predictor import Predictor
from cxr.inference.reference.fitting import fit_reference
from cxr.inference.reference.poses import extract_posed_features
from cxr.models.prediction_sets import PredictionSets
from cxr.serving.model_provider import FolderModelProvider
from cxr.serving.prediction_log import PredictionLog
from cxr.serving.rest.problems import PROBLEM_TYPE
from support.dicom_files import dicom_file
from support.model_folders import ModelFolders
from support.reference_limits import LIMITS
from support.rest_service import JPEG_HEADERS, JSON_HEADERS, PNG_HEADERS, RunningService, run_service, to_base64


def test_image_files_and_json_are_predicted_as_the_predictor_does(
    service: RunningService, provider: FolderModelProvider, folders: ModelFolders
) -> None:
    images = folders.images[:20]
    expected = provider.current.predictor.predict(images)
    response = service.client.predict_all(*images).json
    assert [result["label"] for result in response["predictions"]] == [prediction.label for prediction in expected]
    assert {result["label"] for result in response["predictions"]} == {"NORMAL", "PNEUMONIA"}
    for result, prediction in zip(response["predictions"], expected, strict=True):
        assert result["probability"] == pytest.approx(prediction.probability, abs=1e-6)
        assert (result["threshold"], result["refusal"], result["error"]) == (prediction.threshold, None, None)
    assert {key: response[key] for key in ("version", "alias", "model", "banner")} == {
        "version": None, "alias": None, "model": "three_block", "banner": None,
    }  # fmt: skip
    jpeg = next(image for image in images if image.suffix == ".jpeg")
    octet_stream, with_parameter = ({"Content-Type": name} for name in ("application/octet-stream", "IMAGE/JPEG; a=b"))
    for headers in (JPEG_HEADERS, PNG_HEADERS, octet_stream, with_parameter):
        single = service.client.predict(jpeg, headers)
        assert single.status == 200
        probability = expected[images.index(jpeg)].probability
        assert single.json["predictions"][0]["probability"] == pytest.approx(probability, abs=1e-6)


def test_a_version_with_prediction_sets_says_uncertain_and_counts_and_logs_it(
    provider: FolderModelProvider, folders: ModelFolders, decoder: SandboxedDecoder, tmp_path: Path
) -> None:
    images = folders.images[:16]
    plain = provider.current.predictor.predict(images)
    sets = PredictionSets(0.95, 0.165, 0.835, 24, 24)
    metadata = replace(provider.current.metadata, prediction_sets=sets)
    predictor = Predictor.load(folders.models / "three_block", metadata)
    with_sets = replace(provider, current=replace(provider.current, predictor=predictor))
    prediction_log = PredictionLog(tmp_path / "log", keep_images=False)
    with run_service(with_sets, decoder=decoder, prediction_log=prediction_log) as service:
        results = service.client.predict_all(*images).json["predictions"]
        labels = [result["label"] for result in results]
        expected = ["UNCERTAIN" if 0.165 < each.probability < 0.835 else each.label for each in plain]
        assert labels == expected and set(labels) == {"NORMAL", "PNEUMONIA", "UNCERTAIN"}
        for result, prediction in zip(results, plain, strict=True):
            assert result["probability"] == pytest.approx(prediction.probability, abs=1e-6)
            assert result["threshold"] == prediction.threshold
        counted = service.client.metric("cxr_predictions_total", label="UNCERTAIN")
        assert counted == labels.count("UNCERTAIN")
    rows = "".join(path.read_text() for path in (tmp_path / "log").glob("*.jsonl")).splitlines()
    assert [json.loads(row)["label"] for row in rows] == labels


def test_responses_on_a_kept_connection_are_sent_at_once(service: RunningService) -> None:
    """Without TCP_NODELAY the system holds the last packet back for 40 ms."""
    connection = http.client.HTTPConnection("127.0.0.1", service.client.port, timeout=60)
    with contextlib.closing(connection):
        for _ in range(2):
            connection.request("GET", "/health")
            assert connection.getresponse().read()
        open_connections = service.server.server_state.connections
        sockets = [protocol.transport.get_extra_info("socket") for protocol in open_connections]
        assert sockets and all(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for line in sockets)


def test_kserve_requests_are_predicted_the_same(service: RunningService, folders: ModelFolders) -> None:
    expected = service.client.predict_all(*folders.images[:2]).json["predictions"]
    body = json.dumps({"instances": [{"b64": to_base64(image)} for image in folders.images[:2]]})
    assert service.client.get("/v1/models") == {"models": ["three_block"]}
    assert service.client.get("/v1/models/three_block") == {"name": "three_block", "ready": True}
    response = service.client.request("POST", "/v1/models/three_block:predict", body, JSON_HEADERS)
    assert response.status == 200
    for result, expected_result in zip(response.json["predictions"], expected, strict=True):
        assert result["probability"] == pytest.approx(expected_result["probability"], abs=1e-6)
    for method, path in (("GET", "/v1/models/other"), ("POST", "/v1/models/other:predict")):
        response = service.client.request(method, path, body, JSON_HEADERS)
        assert (response.status, response.json["problem"]) == (404, "unknown_model")


def test_an_unreadable_image_is_422_alone_and_an_error_among_several(
    service: RunningService, folders: ModelFolders
) -> None:
    good = folders.images[0]
    truncated = good.read_bytes()[:200]
    response = service.client.predict(truncated, PNG_HEADERS)
    assert (response.status, response.headers["content-type"]) == (422, PROBLEM_TYPE)
    problem = response.json
    assert (problem["problem"], problem["status"], problem["type"]) == ("truncated", 422, "about:blank")
    tiny = cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes()
    images = [to_base64(good), to_base64(truncated), "no base64!", to_base64(b""), to_base64(tiny), to_base64(good)]
    response = service.client.request("POST", "/v1/predictions", json.dumps({"images": images}), JSON_HEADERS)
    assert response.status == 200
    first, *unreadable, tiny_result, last = response.json["predictions"]
    assert first["probability"] == pytest.approx(last["probability"], abs=1e-6)
    problems = [result["error"]["problem"] if result["error"] else None for result in unreadable]
    assert problems == ["truncated", "not_base64", "empty"]
    assert all(result["probability"] is None and result["label"] is None for result in unreadable)
    assert tiny_result["error"] is not None or tiny_result["probability"] is not None


def test_an_image_that_is_no_chest_radiograph_is_refused_and_logged_without_its_pixels(
    provider: FolderModelProvider, phantom_folder: Path, decoder: SandboxedDecoder, tmp_path: Path
) -> None:
    phantoms = sorted(phantom_folder.rglob("*.jpeg"))[:40]
    features = [extract_posed_features(decode_image(phantom.read_bytes())) for phantom in phantoms]
    reference = fit_reference(features, [phantom.name for phantom in phantoms], dataset_kind="phantom", **LIMITS)
    with_reference = replace(provider, current=replace(provider.current, reference=reference))
    coloured = np.zeros((200, 200, 3), np.uint8)
    coloured[:, :100, 2] = 200
    prediction_log = PredictionLog(tmp_path / "log", keep_images=False)
    with run_service(with_reference, decoder=decoder, prediction_log=prediction_log) as service:
        response = service.client.predict(cv2.imencode(".png", coloured)[1].tobytes(), PNG_HEADERS)
        assert response.status == 200
        refused = response.json["predictions"][0]
        assert (refused["label"], refused["probability"], refused["error"]) == (None, None, None)
        assert refused["refusal"]["kind"] == "coloured" and "coloured" in refused["refusal"]["detail"]
        results = service.client.predict_all(*phantoms[:4]).json["predictions"]
        accepted = [result for result in results if result["refusal"] is None]
        assert accepted and all(result["probability"] is not None for result in accepted)
        assert service.client.metric("cxr_refusals_total", kind="coloured") == 1
    rows = "".join(path.read_text() for path in (tmp_path / "log").glob("*.jsonl")).splitlines()
    assert len(rows) == 5 and json.loads(rows[0])["refusal"] == "coloured"
    assert {path.suffix for path in (tmp_path / "log").rglob("*") if path.is_file()} == {".jsonl"}


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ("{", "body"),
        ("[]", "body"),
        ("{}", "images"),
        ('{"images": []}', "images"),
        ('{"images": [1]}', "images.0"),
        ('{"images": ["AA=="], "name": "patient-17.dcm"}', "name"),
    ],
)
def test_wrong_json_is_rejected_with_the_location_of_the_error(
    service: RunningService, body: str, location: str
) -> None:
    response = service.client.request("POST", "/v1/predictions", body, JSON_HEADERS)
    assert (response.status, response.json["problem"]) == (422, "malformed")
    assert response.json["detail"].startswith(f"{location}: ")
    assert "patient-17" not in response.body.decode()


def test_other_types_compressed_bodies_paths_and_methods_are_rejected(service: RunningService) -> None:
    request = service.client.request
    for headers in ({}, {"Content-Type": "multipart/form-data"}, {**JPEG_HEADERS, "Content-Encoding": "gzip"}):
        response = request("POST", "/v1/predictions", b"x", headers)
        assert (response.status, response.json["problem"]) == (415, "wrong_type")
        assert "image/jpeg" in response.headers["accept"]
    response = request("GET", "/elsewhere")
    assert (response.status, response.json["problem"]) == (404, "not_found")
    response = request("PUT", "/v1/predictions", b"")
    assert (response.status, response.headers["allow"], response.headers["content-type"]) == (405, "POST", PROBLEM_TYPE)


def test_a_client_may_name_its_request_if_the_name_is_plain(service: RunningService, folders: ModelFolders) -> None:
    image = folders.images[0].read_bytes()
    named = service.client.request("POST", "/v1/predictions", image, {**PNG_HEADERS, "X-Request-ID": "visit-7"})
    assert named.json["request_id"] == named.headers["x-request-id"] == "visit-7"
    unsafe = service.client.request("POST", "/v1/predictions", b"x", {**PNG_HEADERS, "X-Request-ID": "a b<script>"})
    assert unsafe.json["request_id"] == unsafe.headers["x-request-id"] != "a b<script>"
    assert len(unsafe.json["request_id"]) == 32


def test_requests_and_results_are_counted(
    provider: FolderModelProvider, folders: ModelFolders, decoder: SandboxedDecoder
) -> None:
    with run_service(provider, decoder=decoder) as service:
        client = service.client
        labels = [result["label"] for result in client.predict_all(*folders.images[:6]).json["predictions"]]
        client.predict(b"x", PNG_HEADERS)
        client.request("BREW", "/nowhere/patient-17.jpeg")
        text = client.request("GET", "/metrics").body.decode()
        for label in set(labels):
            assert client.metric("cxr_predictions_total", label=label) == labels.count(label)
        assert client.metric("cxr_probability_count") == 6
        assert client.metric("cxr_image_errors_total", problem="not_an_image") == 1
        assert client.metric("cxr_requests_total", path="/v1/predictions", status="200") == 1
        assert client.metric("cxr_requests_total", path="/v1/predictions", status="422") == 1
        assert client.metric("cxr_requests_total", path="other", method="other", status="404") == 1
        assert client.metric("cxr_image_seconds_count", phase="reading") == 7
        assert client.metric("cxr_images_in_flight") == 0
        assert "patient-17" not in text


def test_the_docs_page_loads_nothing_from_other_sites(service: RunningService) -> None:
    response = service.client.request("GET", "/docs")
    text = response.body.decode()
    assert response.status == 200 and "http-equiv" not in text
    assert "src=" not in text and "POST /v1/predictions" in text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert service.client.request("GET", "/redoc").status == 404


def test_an_unusual_image_is_answered_with_a_warning(service: RunningService, folders: ModelFolders) -> None:
    grey = cv2.imread(str(folders.images[0]), cv2.IMREAD_GRAYSCALE)
    usual, unusual = (dicom_file(grey, Modality=modality) for modality in ("DX", "DR"))
    first, second = service.client.predict_all(usual, unusual).json["predictions"]
    # On some processors the place in a batch changes the last digits.
    assert second["probability"] == pytest.approx(first["probability"], rel=1e-6)
    assert "warnings" not in first
    assert [warning["problem"] for warning in second["warnings"]] == ["other_modality"]
