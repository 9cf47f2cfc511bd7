"""A registered model with two versions that answer differently."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import pytest

from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelCard
from cxr.tracking.connection import client
from support.model_folders import Folders
from support.tracking_server import NAME, register_versions

MODELS = {"1": "three_block", "2": "shallow"}


@dataclass(frozen=True)
class Registry:
    """A store with both versions, and the folders they were made of."""

    uri: str
    folders: Folders
    name: str = NAME

    def give(self, alias: str, version: str | None) -> None:
        if version is None:
            client(self.uri).delete_registered_model_alias(self.name, alias)
        else:
            client(self.uri).set_registered_model_alias(self.name, alias, version)

    def files(self, version: str) -> Path:
        """Where network and card of a version lie."""
        source = client(self.uri).get_model_version(self.name, version).source
        return Path(urlparse(source).path) / "artifacts" / "artifact"

    def expected(self, version: str) -> list[float]:
        """What a version must answer for the first images."""
        model = MODELS[version]
        predictor = Predictor.load(self.folders.models / model, ModelCard.read(self.folders.evaluations / model))
        return [one.probability for one in predictor.predict(self.images)]

    @property
    def images(self) -> list[Path]:
        return self.folders.images[:4]


@pytest.fixture(autouse=True)
def brief_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher sets these for its process; here they are taken back after each test."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")


@pytest.fixture
def registry(uri: str, tmp_path: Path) -> Registry:
    """In a local store; version 1 is champion."""
    made = Registry(uri, register_versions(tmp_path / "run", uri))
    made.give("champion", "1")
    return made
