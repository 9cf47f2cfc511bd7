"""Finds the source that an address names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxr.data.fetching.source import DataSource
from cxr.data.sources.dvc_remote import DvcRemoteSource
from cxr.data.sources.local_path import LocalPathSource
from cxr.data.sources.registry import kinds_with_scheme

if TYPE_CHECKING:
    from cxr.data.fetching.request import FetchRequest


def open_source(request: FetchRequest) -> DataSource:
    """Return the source of a request; nothing is read yet.

    Args:
        request: what to fetch.

    Returns:
        A DVC remote for a version of the data, else the source that the address names.
    """
    if request.data_version is not None:
        return DvcRemoteSource(request)
    return source_kind(request.source)(request)


def source_kind(address: str) -> type[DataSource]:
    """Find the kind of source that an address names.

    Args:
        address: address of a source.

    Returns:
        The kind that accepts the address; an address that no kind accepts is a path.
    """
    return next((kind for kind in kinds_with_scheme() if kind.accepts(address)), LocalPathSource)
