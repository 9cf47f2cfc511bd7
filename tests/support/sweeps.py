"""Rows of a parametrised test that `make test` leaves to `make test-exhaustive`."""

from __future__ import annotations

from typing import Any

import pytest


def exhaustive(*rows: Any) -> list[Any]:
    """Mark rows, each a value or a tuple of values, as those of the whole sweep: the other rows cover the behaviour."""
    return [pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=pytest.mark.exhaustive) for row in rows]
