"""Requests generated from the OpenAPI document, valid and invalid ones, get responses that the document describes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from cxr.images.sandbox import SandboxedDecoder
from cxr.serving.model_provider import FolderModelProvider
from cxr.serving.rest.request_body import IMAGE_TYPES
from support.rest_service import JSON_HEADERS, RunningService, run_service


@pytest.fixture(scope="module")
def service(provider: FolderModelProvider, decoder: SandboxedDecoder) -> Iterator[RunningService]:
    """Under the name that the document has as an example."""
    champion = FolderModelProvider(replace(provider.current, alias="champion"))
    with run_service(champion, decoder=decoder) as service:
        yield service


def test_generated_requests_find_no_server_error_and_no_undocumented_response(
    service: RunningService, tmp_path: Path
) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.client.url}/openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", "1", "--workers", "1"),
        # Random bytes match the schema of an image and are no image: the service answers 422.
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance", "--no-color"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    assert service.client.metric("cxr_requests_total") > 100
    assert service.client.metric("cxr_requests_total", status="500") == 0


def test_the_document_is_valid_and_its_examples_are_accepted(service: RunningService) -> None:
    document = service.client.get("/openapi.json")
    validate(document)
    assert "ValidationError" not in json.dumps(document)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"] and operation["description"], path
            for status, response in operation["responses"].items():
                types = set(response.get("content", {}))
                assert types == {"application/problem+json"} if int(status) >= 400 else types, (path, status)
    bodies = document["paths"]["/v1/predictions"]["post"]["requestBody"]["content"]
    assert set(bodies) == {*IMAGE_TYPES, "application/json"}
    example = json.dumps(bodies["application/json"]["example"])
    response = service.client.request("POST", "/v1/predictions", example, JSON_HEADERS)
    assert response.status == 200 and response.json["predictions"][0]["error"]["problem"] == "truncated"
