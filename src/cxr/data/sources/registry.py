"""The kinds of data sources: the classes in the modules of this folder."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path

from cxr.data.fetching.source import DataSource


def list_spellings() -> str:
    """List how addresses of all kinds are written, for ``--help`` and error messages.

    Returns:
        For example ``"kaggle, kaggle:owner/name, phantom, s3://bucket/prefix"``; a path is not among them.
    """
    return ", ".join(spelling for kind in kinds_with_scheme() for spelling in kind.spellings)


@cache
def kinds_with_scheme() -> tuple[type[DataSource], ...]:
    """Find the kinds of sources whose addresses begin with a scheme.

    Returns:
        The classes, in the order of their modules' names.
    """
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
