"""A model from a folder and a service in this process, shared by tests that change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cxr.images.reading_options import STRICT
from cxr.images.sandbox import SandboxedDecoder
from cxr.serving.model_folder import folder_source
from cxr.serving.model_provider import FolderModelProvider
from support.model_folders import ModelFolders, write_models
from support.rest_service import RunningService, run_service


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    return write_models(tmp_path_factory.mktemp("served") / "run")


@pytest.fixture(scope="session")
def provider(folders: ModelFolders) -> FolderModelProvider:
    return FolderModelProvider(folder_source(folders.models / "three_block", None, None).load())


@pytest.fixture(scope="session")
def decoder() -> Iterator[SandboxedDecoder]:
    with SandboxedDecoder(processes=2, seconds=10.0, max_bytes=64 << 20, options=STRICT) as decoder:
        yield decoder


@pytest.fixture(scope="module")
def service(provider: FolderModelProvider, decoder: SandboxedDecoder) -> Iterator[RunningService]:
    with run_service(provider, decoder=decoder) as service:
        yield service
