"""Requests that are drawn from the description, right and wrong ones, get answers that the description foresees."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from cxr.images.sandbox import LimitedReader
from cxr.serving.rest.inference import StandingFolder
from cxr.serving.rest.request_body import IMAGE_TYPES
from support.rest_service import JSON, Running, running


@pytest.fixture(scope="module")
def service(folder: StandingFolder, reader: LimitedReader) -> Iterator[Running]:
    """Under the name that the description gives as an example."""
    with running(StandingFolder(replace(folder.current, alias="champion")), reader=reader) as found:
        yield found


def test_no_request_finds_a_fault_or_an_answer_that_is_not_described(service: Running, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.client.url}/openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", "1", "--workers", "1"),
        # Random bytes fit the description of an image and are none: they are 422.
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance", "--no-color"),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert answer.returncode == 0, answer.stdout[-8000:] + answer.stderr[-2000:]
    assert service.client.measured("cxr_requests_total") > 100
    assert service.client.measured("cxr_requests_total", status="500") == 0


def test_the_description_is_valid_and_has_examples_that_are_answered(service: Running) -> None:
    document = service.client.get("/openapi.json")
    validate(document)
    assert "ValidationError" not in json.dumps(document)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"] and operation["description"], path
            for status, answer in operation["responses"].items():
                kinds = set(answer.get("content", {}))
                assert kinds == {"application/problem+json"} if int(status) >= 400 else kinds, (path, status)
    bodies = document["paths"]["/v1/predictions"]["post"]["requestBody"]["content"]
    assert set(bodies) == {*IMAGE_TYPES, "application/json"}
    answer = service.client.ask("POST", "/v1/predictions", json.dumps(bodies["application/json"]["example"]), JSON)
    assert answer.status == 200 and answer.json["predictions"][0]["error"]["problem"] == "truncated"
