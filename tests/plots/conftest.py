from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def figures_are_looked_at(figures_are_drawn: None) -> None:
    """The tests of this folder are about the pixels."""
