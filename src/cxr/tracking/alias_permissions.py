"""Permissions to move the aliases of a registered model: setting one takes EDIT, removing one takes MANAGE."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cxr.errors import RegistryError
from cxr.promotion.log import ALIASES, AliasVersions
from cxr.tracking.registry_reader import ignore_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

PERMISSION_PROBE = "permission_probe"
"""Tag that no version has, and alias of no version. Who may remove the tag may remove an alias."""
NO_VERSION = "0"
"""Number that no version has, because MLflow counts from 1. Who is told so may set an alias."""


def check_moves(client: MlflowClient, registered_name: str, before: AliasVersions, after: AliasVersions) -> None:
    """Fail where the login may not move the aliases, before the log says that they are moved. Nothing is changed.

    Args:
        client: client of the store.
        registered_name: name of the registered model.
        before: alias to version now.
        after: alias to version afterwards.

    Raises:
        MlflowException: without the permission.
    """
    moved = _moved(before, after)
    if any(after.get(alias) is not None for alias in moved):
        with ignore_missing():
            client.set_registered_model_alias(registered_name, PERMISSION_PROBE, NO_VERSION)
    for alias in moved:
        version = before.get(alias)
        if version is not None and after.get(alias) is None:
            with ignore_missing():  # the version was deleted, and its aliases with it
                client.delete_model_version_tag(registered_name, version, PERMISSION_PROBE)


@contextmanager
def expect_permission(
    registered_name: str, experiment: str, before: AliasVersions, after: AliasVersions
) -> Iterator[None]:
    """Say which permissions a login needs that may not move aliases or write their log.

    Args:
        registered_name: name of the registered model.
        experiment: name of the experiment with the promotion log.
        before: alias to version before the action.
        after: alias to version afterwards; as ``before`` for an action that only writes the log.

    Raises:
        RegistryError: in place of MLflow's error about a permission.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        log_permission = f"EDIT on the experiment {experiment!r}"
        moved = _moved(before, after)
        if not moved:
            raise RegistryError(
                f"expected a login that may write the promotion log of {registered_name}, received one without the "
                f"permission; ask an administrator for {log_permission} (mlflow/README.md)"
            ) from error
        permission = "EDIT" if all(after.get(alias) is not None for alias in moved) else "MANAGE"
        raise RegistryError(
            f"expected a login that may change {registered_name} and its promotion log, received one without the "
            f"permission; ask an administrator for {permission} on the registered model and {log_permission} "
            "(mlflow/README.md), or approve a version or choose the champion in MLflow's page, where EDIT on the "
            "registered model is enough"
        ) from error


def _moved(before: AliasVersions, after: AliasVersions) -> list[str]:
    return [alias for alias in ALIASES if before.get(alias) != after.get(alias)]
