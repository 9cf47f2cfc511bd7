from __future__ import annotations

import pytest

from cxr.tracking.store import Store


@pytest.fixture
def store(uri: str) -> Store:
    """An empty local store."""
    return Store(uri)
