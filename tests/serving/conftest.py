"""A registered model with two versions that predict differently."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import pytest

from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.tracking.store import Store
from support.model_folders import ModelFolders
from support.tracking_server import NAME, write_registry

MODELS = {"1": "three_block", "2": "shallow"}


@dataclass(frozen=True)
class Registry:
    """A store with both versions, and the folders that they were registered from."""

    uri: str
    folders: ModelFolders
    name: str = NAME

    def set_alias(self, alias: str, version: str | None) -> None:
        client = Store(self.uri).client
        if version is None:
            client.delete_registered_model_alias(self.name, alias)
        else:
            client.set_registered_model_alias(self.name, alias, version)

    def files(self, version: str) -> Path:
        """Folder of the network and the metadata of a version."""
        source = Store(self.uri).client.get_model_version(self.name, version).source
        return Path(urlparse(source).path) / "artifacts" / "artifact"

    def expected_probabilities(self, version: str) -> list[float]:
        """What a version must predict for the first images."""
        model = MODELS[version]
        predictor = Predictor.load(self.folders.models / model, ModelMetadata.read(self.folders.evaluations / model))
        return [prediction.probability for prediction in predictor.predict(self.images)]

    @property
    def images(self) -> list[Path]:
        return self.folders.images[:4]


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher sets these variables for its process; here they are removed after each test."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A local store in which version 1 is champion."""
    registry = Registry(*write_registry(tmp_path))
    registry.set_alias("champion", "1")
    return registry
