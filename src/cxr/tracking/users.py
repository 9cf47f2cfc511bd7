"""Users: who trains, registers and approves."""

from __future__ import annotations

import getpass
import os
import socket
from typing import TYPE_CHECKING

from cxr.lineage.provenance import PIPELINE_RUN_VARIABLE
from cxr.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

USER_TAG = "mlflow.user"
"""Tag of a run: MLflow's name for the user that created it."""


def author() -> str:
    """Name the author of an entry: the pipeline run if one is set, else account and machine."""
    run = os.environ.get(PIPELINE_RUN_VARIABLE)
    return f"pipeline run {run}" if run else f"{_account()} on {socket.gethostname()}"


def current_user(store: Store) -> str:
    """Name the user of this process, as MLflow does.

    Args:
        store: the tracking store.

    Returns:
        The login of MLflow's server if one is set; otherwise, and for a local store, the account of the operating
        system.
    """
    if store.is_server:
        from mlflow.utils.credentials import read_mlflow_creds

        login = read_mlflow_creds().username
        if login:
            return str(login)
    return _account()


def trainers(store: Store, version: ModelVersion) -> tuple[str, ...]:
    """Name the users that trained a version; of an ensemble, also those that trained its members.

    Args:
        store: the tracking store.
        version: a version of the registered model.

    Returns:
        The users, without repetitions. If a run is gone or does not name its user, as those of earlier programs, the
        present user, who registers the version, stands for the unknown one.
    """
    from cxr.tracking.lineage_reader import read_lineage

    run_ids = [version.run_id]
    if "weights" in version.tags:
        members = read_lineage(store, version.name, str(version.version)).members
        run_ids += [member.run_id for member in members]
    users = [_user_of_run(store, run_id) or current_user(store) for run_id in run_ids]
    return tuple(dict.fromkeys(users))


def is_same_user(name: str, other: str) -> bool:
    """Whether two names are those of one user, however a person has typed them."""
    return name.strip().casefold() == other.strip().casefold()


def _user_of_run(store: Store, run_id: str | None) -> str | None:
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        user = store.client.get_run(run_id).data.tags.get(USER_TAG)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return str(user) if user else None


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers run under user numbers that have no name
        return f"user {os.getuid()}"
