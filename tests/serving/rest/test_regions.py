"""Boxes over HTTP: only when they are asked for, in pixels of each image, with the name of the detector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr.images.sandbox import SandboxedDecoder
from cxr.serving.detector_source import detector_folder_source
from cxr.serving.model_provider import AliasDetectorProvider, FolderDetectorProvider, FolderModelProvider
from cxr.tracking.store import Store
from support.chest_models import chest_reference
from support.dicom_files import dicom_file
from support.rest_service import JSON_HEADERS, PNG_HEADERS, RunningService, ServeCommand, run_service, to_base64
from support.small_detector import (
    MODEL,
    NAME,
    add_version,
    bright_rectangle,
    overlap,
    png,
    set_detector_alias,
    write_detector,
)
from support.tracking_server import NAME as CLASSIFIER
from support.tracking_server import wait_until, write_registry

SIZES = [(300, 260), (2500, 2048), (400, 900)]
PATH = "/v1/predictions?regions=true"


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> FolderDetectorProvider:
    folders = write_detector(tmp_path_factory.mktemp("detector"))
    return FolderDetectorProvider(detector_folder_source(folders.trained, None, None).load())


@pytest.fixture(scope="module")
def service(
    provider: FolderModelProvider, detectors: FolderDetectorProvider, decoder: SandboxedDecoder
) -> Iterator[RunningService]:
    with run_service(provider, detectors=detectors, decoder=decoder) as service:
        yield service


def box_values(region: dict[str, float]) -> list[float]:
    return [region[name] for name in ("x", "y", "width", "height")]


def test_boxes_are_in_pixels_of_each_image(service: RunningService) -> None:
    dark = png(np.full((300, 260), 40, np.uint8))
    inverted = dicom_file(255 - bright_rectangle(600, 500)[0], PhotometricInterpretation="MONOCHROME1")
    images = [*(png(bright_rectangle(*size)[0]) for size in SIZES), inverted, dark, dark[:-40]]
    body = json.dumps({"images": [to_base64(image) for image in images]})
    response = service.client.request("POST", PATH, body, JSON_HEADERS)
    assert response.status == 200
    *with_box, without_box, broken = response.json["predictions"]
    for result, size in zip(with_box, [*SIZES, (600, 500)], strict=True):
        (region,) = result["regions"]
        assert overlap(box_values(region), bright_rectangle(*size)[1]) > 0.95
        assert 0.5 <= region["score"] <= 1 and result["probability"] is not None
    assert without_box["regions"] == []
    assert broken["regions"] is None and broken["error"]["problem"] == "truncated"
    model = response.json["regions_model"]
    assert (model["name"], model["version"], model["model"]) == (None, None, MODEL)
    assert model["trained_on"] == "phantom" and "nothing about patients" in model["banner"]
    assert service.client.metric("cxr_regions_total") >= 4
    assert service.client.metric("cxr_searched_images_total", opacity="no") >= 1
    assert service.client.metric("cxr_image_seconds_count", phase="regions") >= 1


def test_without_the_question_the_answer_is_as_it_always_was(service: RunningService) -> None:
    image = png(bright_rectangle(300, 260)[0])
    for path in ("/v1/predictions", "/v1/predictions?regions=false"):
        response = service.client.request("POST", path, image, PNG_HEADERS).json
        assert set(response) == {"predictions", "version", "alias", "model", "banner", "request_id"}
        assert set(response["predictions"][0]) == {"label", "probability", "threshold", "refusal", "error"}
    response = service.client.request("POST", "/v1/predictions?regions=perhaps", image, PNG_HEADERS)
    assert (response.status, response.json["problem"]) == (422, "malformed")
    assert "regions" in response.json["detail"] and "perhaps" not in response.json["detail"]


def test_kserve_requests_get_boxes_too(service: RunningService) -> None:
    image, box = bright_rectangle(300, 260)
    body = json.dumps({"instances": [{"b64": to_base64(png(image))}]})
    path = "/v1/models/three_block:predict?regions=true"
    (result,) = service.client.request("POST", path, body, JSON_HEADERS).json["predictions"]
    assert overlap(box_values(result["regions"][0]), box) > 0.95


def test_without_a_detector_there_are_no_boxes(provider: FolderModelProvider, decoder: SandboxedDecoder) -> None:
    with run_service(provider, decoder=decoder) as service:
        response = service.client.request("POST", PATH, png(bright_rectangle(300, 260)[0]), PNG_HEADERS)
        assert response.status == 200
        assert response.json["regions_model"] is None and response.json["predictions"][0]["regions"] is None
        assert response.json["predictions"][0]["probability"] is not None
        assert "regions_model" not in service.client.get("/version")


def test_an_image_that_is_refused_has_no_boxes(
    provider: FolderModelProvider, detectors: FolderDetectorProvider, decoder: SandboxedDecoder
) -> None:
    with_reference = replace(provider, current=replace(provider.current, reference=chest_reference()))
    coloured = np.zeros((200, 200, 3), np.uint8)
    coloured[50:150, 50:150, 2] = 220
    with run_service(with_reference, detectors=detectors, decoder=decoder) as service:
        data = cv2.imencode(".png", coloured)[1].tobytes()
        (result,) = service.client.request("POST", PATH, data, PNG_HEADERS).json["predictions"]
    assert result["refusal"]["kind"] == "coloured" and result["regions"] is None


def test_the_detector_of_the_registry_is_named_and_followed(
    provider: FolderModelProvider, decoder: SandboxedDecoder, uri: str, tmp_path: Path
) -> None:
    registered = AliasDetectorProvider(Store(uri), NAME, "champion", fallback=None)
    with run_service(provider, detectors=registered, decoder=decoder) as service:
        image, box = bright_rectangle(500, 400)
        data = png(image)
        assert service.client.request("POST", PATH, data, PNG_HEADERS).json["regions_model"] is None
        for scale, number in ((1.0, "1"), (0.5, "2")):
            version = add_version(uri, write_detector(tmp_path / number / "detector", box_scale=scale))
            set_detector_alias(uri, "champion", version)
            registered.reload()
            response = service.client.request("POST", PATH, data, PNG_HEADERS).json
            model = response["regions_model"]
            assert (model["name"], model["version"], model["alias"]) == (NAME, number, "champion")
            assert response["predictions"][0]["regions"][0]["width"] == pytest.approx(scale * box[2], abs=2)
        assert service.client.get("/version")["regions_model"]["version"] == "2"


@pytest.mark.exhaustive  # test_workers starts the command, and the test above follows the registry
def test_the_workers_draw_boxes_as_soon_as_a_detector_is_registered(tmp_path: Path) -> None:
    uri, _ = write_registry(tmp_path)
    Store(uri).client.set_registered_model_alias(CLASSIFIER, "champion", "1")
    image, box = bright_rectangle(500, 400)
    command = ServeCommand(
        tmp_path / "serve.log", "--tracking_uri", uri, "--workers", "1", "--seconds", "0.5", "--keep_log", "false"
    )
    try:
        client = command.client
        assert client.request("POST", PATH, png(image), PNG_HEADERS).json["regions_model"] is None
        assert "no version of pneumonia-regions has the alias champion: no boxes are drawn" in command.text
        set_detector_alias(uri, "champion", add_version(uri, write_detector(tmp_path / "detector")))
        wait_until(lambda: client.metric("cxr_detector_workers", version="1") == 1, 60)
        response = client.request("POST", PATH, png(image), PNG_HEADERS).json
        assert response["regions_model"]["version"] == "1" and response["version"] == "1"
        assert overlap(box_values(response["predictions"][0]["regions"][0]), box) > 0.95
        assert "pneumonia-regions: champion is now version 1 (was nobody)" in command.text
    finally:
        command.kill()
