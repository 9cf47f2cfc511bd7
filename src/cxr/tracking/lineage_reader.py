"""From a version in the registry back to what it was made from, and to the files that were kept with it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import ParameterError, RegistryError
from cxr.files import METADATA_FILE
from cxr.lineage.version_lineage import Lineage, Origin
from cxr.models.metadata import ModelCard
from cxr.tracking.artifacts import MODEL_PATH
from cxr.tracking.connection import address, existing_client
from cxr.tracking.version_record import RECORDS, run_pages

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def lineage(uri: str, registered_name: str, version: str) -> Lineage:
    """Follow a version back.

    Args:
        uri: address of the store.
        registered_name: name of the registered model.
        version: number or alias.

    Returns:
        Its lineage; what was not recorded is missing from it.

    Raises:
        MissingInputError: if there is no store.
        ParameterError: if there is no such version.
        RegistryError: if the store doesn't answer.
    """
    connected = existing_client(uri)
    found, aliases = _resolve(connected, registered_name, version)
    tags = {str(key): str(value) for key, value in found.tags.items()}
    run = _run(connected, found.run_id)
    record = f"{RECORDS}/{tags.get('record', '').rpartition('/')[2]}"
    return Lineage(
        name=registered_name,
        version=str(found.version),
        aliases=tuple(sorted(aliases)),
        registered=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        tags=tags,
        run_id=found.run_id if run else None,
        run_name=run.info.run_name if run else None,
        run_files=run.info.artifact_uri if run else None,
        parameters=dict(run.data.params) if run else {},
        members=_members(connected, uri, found) if "weights" in tags else (),
        absent=_absent(connected, found, record) if run else ("training run",),
        links=_links(uri, found, str(run.info.experiment_id), record) if run else {},
    )


def fetch_record(uri: str, found: Lineage, folder: Path) -> Path | None:
    """Copy the files that were kept with a version.

    Args:
        uri: address of the store.
        found: the version's lineage.
        folder: an empty folder that exists.

    Returns:
        The folder with ``params.yaml``, ``dvc.lock`` ...; None if the version has no record.

    Raises:
        RegistryError: if the record's files are gone.
    """
    where = found.tags.get("record")
    return None if where is None else _download(uri, where, folder)


def _resolve(connected: MlflowClient, name: str, version: str) -> tuple[ModelVersion, list[str]]:
    """The version of a number or alias, and all its aliases."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = {str(key): str(value) for key, value in connected.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise RegistryError(f"cannot read the registered model {name!r}: {error}") from error
        raise ParameterError(
            [f"expected a registered model, received registered_name={name!r}, which the store does not know; "
             "run `cxr register`"]
        ) from None  # fmt: skip
    number = aliases.get(version, version)
    known = {str(one.version): one for one in connected.search_model_versions(f"name = '{name}'")}
    if number not in known:
        raise ParameterError(
            [f"expected a version of {name} or an alias, received version={version!r}; there are versions "
             f"{', '.join(sorted(known, key=int)) or 'none'} and aliases {', '.join(sorted(aliases)) or 'none'}"]
        )  # fmt: skip
    return known[number], [alias for alias, one in aliases.items() if one == number]


def _run(connected: MlflowClient, run_id: str | None):  # type: ignore[no-untyped-def]  # MLflow has no types
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        run = connected.get_run(run_id)
        return run if run.info.lifecycle_stage == "active" else None
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise RegistryError(f"cannot read run {run_id}: {error}") from error


def _absent(connected: MlflowClient, version: ModelVersion, record: str) -> tuple[str, ...]:
    """Folders that the tags name and the run's files lack."""
    wanted = {"evaluation": "evaluation", "record": record}
    return tuple(
        name
        for name, path in wanted.items()
        if name in version.tags and not connected.list_artifacts(version.run_id, path)
    )


def _links(uri: str, version: ModelVersion, experiment: str, record: str) -> dict[str, str]:
    if not uri.startswith(("http://", "https://")):
        return {}
    page = uri.rstrip("/")
    pages = run_pages(experiment, version.run_id, record)
    wanted = {"run", "curves", *(name for name in pages if name in version.tags)}
    links = {name: f"{page}/{path}" for name, path in pages.items() if name in wanted}
    return {"version": f"{page}/#/models/{version.name}/versions/{version.version}", **links}


def _members(connected: MlflowClient, uri: str, version: ModelVersion) -> tuple[Origin, ...]:
    """Members of an ensemble, each with the version that was made of the same training."""
    # Not models:/NAME/VERSION: MLflow would look that up in its global address, which is not set.
    files = connected.get_model_version_download_uri(version.name, version.version)
    with tempfile.TemporaryDirectory() as scratch:
        where = f"{files}/{MODEL_PATH}/{METADATA_FILE}"
        card = ModelCard.read(_download(uri, where, Path(scratch)).parent)
    others = connected.search_model_versions(f"name = '{version.name}'")
    found = []
    for member in card.members:
        own = _version_of(member.card, others)
        found.append(
            Origin(
                member.model,
                member.weight,
                member.card.git_commit,
                str(own.version) if own else None,
                own.run_id if own else None,
            )
        )
    return tuple(found)


def _version_of(card: ModelCard, versions: Sequence[ModelVersion]) -> ModelVersion | None:
    """The newest version with the facts of a member's card."""
    facts = {
        "model": card.model,
        "seed": card.seed,
        "data_digest": card.data_digest,
        "split_digest": card.split_digest,
        "git_commit": card.git_commit,
        "train_seconds": card.training.get("seconds"),
    }
    wanted = {key: str(value) for key, value in facts.items() if value is not None}
    fitting = [one for one in versions if all(one.tags.get(key) == value for key, value in wanted.items())]
    return max(fitting, key=lambda one: int(one.version), default=None)


def _download(uri: str, where: str, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    store = address(uri)
    try:
        return Path(download_artifacts(where, dst_path=str(folder), tracking_uri=store, registry_uri=store))
    except (MlflowException, OSError) as error:
        raise RegistryError(f"cannot read {where}: {str(error).partition(chr(10))[0]}") from error
