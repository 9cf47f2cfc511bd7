from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cxr.tracking.connection import client


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local store without runs: making one takes seconds, copying it does not."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    client(f"sqlite:///{file}")
    return file


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    """Address of a fresh local store in the test's own folder."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"
