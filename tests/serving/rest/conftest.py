"""A model of a folder that answers in this process, shared by tests that change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cxr.images.sandbox import LimitedReader
from cxr.serving.model_source import from_folder
from cxr.serving.rest.inference import StandingFolder
from support.model_folders import Folders, write_models
from support.rest_service import Running, running


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return write_models(tmp_path_factory.mktemp("served") / "run")


@pytest.fixture(scope="session")
def folder(folders: Folders) -> StandingFolder:
    return StandingFolder(from_folder(folders.models / "three_block").load())


@pytest.fixture(scope="session")
def reader() -> Iterator[LimitedReader]:
    with LimitedReader(processes=2) as found:
        yield found


@pytest.fixture(scope="module")
def service(folder: StandingFolder, reader: LimitedReader) -> Iterator[Running]:
    with running(folder, reader=reader) as found:
        yield found
