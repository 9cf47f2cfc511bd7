"""Permissions to move the aliases of a registered model: setting one takes EDIT, removing one takes MANAGE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cxr.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

PERMISSION_PROBE = "permission_probe"
"""Tag that no version has; who may remove it may remove an alias."""


def check_removal(client: MlflowClient, registered_name: str, versions: Iterable[str]) -> None:
    """Fail where the login may not remove an alias, before the log says that it is removed. Nothing is changed.

    Args:
        client: client of the store.
        registered_name: name of the registered model.
        versions: numbers of the versions that are to lose an alias.

    Raises:
        MlflowException: without the permission.
    """
    from mlflow.exceptions import MlflowException

    for version in versions:
        try:
            client.delete_model_version_tag(registered_name, version, PERMISSION_PROBE)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # the version was deleted, and its aliases with it
                raise


@contextmanager
def expect_permission(registered_name: str, experiment: str) -> Iterator[None]:
    """Say which permission a login lacks that may not move aliases or write their log.

    Args:
        registered_name: name of the registered model.
        experiment: name of the experiment with the promotion log.

    Raises:
        RegistryError: in place of MLflow's error about a permission.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        raise RegistryError(
            f"expected a login that may change {registered_name} and its promotion log, received one without the "
            "permission; ask an administrator for MANAGE on the registered model and EDIT on the experiment "
            f"{experiment!r} (mlflow/README.md), or approve a version or choose the champion in MLflow's page, where "
            "EDIT on the registered model is enough"
        ) from error
