from __future__ import annotations

from pathlib import Path

import pytest

from model_folders import write_store


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """Address of a fresh local store in the test's own folder."""
    return write_store(tmp_path)
