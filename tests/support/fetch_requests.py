"""Fetching from a source without the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr.data.dataset import DatasetCard
from cxr.data.fetching.request import FetchRequest
from cxr.data.sources.opening import open_source
from cxr.steps.fetch import Fetch


def fetch_request(source: str | Path, **parameters: Any) -> FetchRequest:
    """Make a request with the step's defaults.

    Args:
        source: address of the source.
        parameters: parameters of the step ``fetch`` that differ from its defaults.
    """
    step = Fetch.build({"source": str(source), **parameters})
    return FetchRequest(**step.model_dump(exclude={"data", "refresh"}))


def fetch_images(source: str | Path, folder: Path, **parameters: Any) -> DatasetCard:
    """Fill an empty folder from a source.

    Args:
        source: address of the source.
        folder: the folder to fill.
        parameters: parameters of the step ``fetch`` that differ from its defaults.

    Returns:
        The dataset card that was written.
    """
    open_source(fetch_request(source, **parameters)).fill(folder)
    return DatasetCard.read(folder)
