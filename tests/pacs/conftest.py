"""Small radiographs, a folder with a model, and an archive, shared by tests that change nothing of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.dicom_node import ReportArchive, write_radiographs
from support.model_folders import ModelFolders, write_models


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    return write_models(tmp_path_factory.mktemp("answering") / "run")


@pytest.fixture(scope="session")
def radiographs(folders: ModelFolders, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Radiographs of 40 patients."""
    return write_radiographs(tmp_path_factory.mktemp("radiographs"), folders.images, 40)


@pytest.fixture
def archive() -> Iterator[ReportArchive]:
    archive = ReportArchive()
    yield archive
    archive.stop()
