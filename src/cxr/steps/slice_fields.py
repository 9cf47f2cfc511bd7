"""Fields of every step that measures slices: images that share a value of a column."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field


def _expect_different(columns: list[str]) -> list[str]:
    if len(set(columns)) < len(columns) or "" in columns:
        raise ValueError("a list of different columns")
    return columns


SliceColumns = Annotated[list[str], AfterValidator(_expect_different)]
"""Names of columns; the field says of which tables."""
SliceMinPatients = Annotated[
    int,
    Field(ge=1, le=100_000, description="Fewest patients of a class for a figure of a slice; else it is only named."),
]
