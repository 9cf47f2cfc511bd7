"""Finds the source that an address names. The kinds of sources are the classes in the modules of this folder."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.data.sources.base import DataSource
from cxr.data.sources.dvc_remote import DvcRemoteSource
from cxr.data.sources.local_path import LocalPathSource

if TYPE_CHECKING:
    from cxr.data.fetching.request import FetchRequest


def open_source(request: FetchRequest) -> DataSource:
    """Give the source of a request; nothing is read yet.

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
    return next((kind for kind in _kinds_with_scheme() if kind.accepts(address)), LocalPathSource)


def list_spellings() -> str:
    """List how addresses of all kinds are written, for ``--help`` and error messages.

    Returns:
        For example ``"kaggle, kaggle:owner/name, phantom, s3://bucket/prefix"``; a path is not among them.
    """
    return ", ".join(spelling for kind in _kinds_with_scheme() for spelling in kind.spellings)


@cache
def _kinds_with_scheme() -> tuple[type[DataSource], ...]:
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return tuple(
        value
        for module in (import_module(f"{__package__}.{name}") for name in names)
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, DataSource)
        and value.__module__ == module.__name__
        and value.scheme
    )
