"""The lineage of a version: what it was created from, and the files that were kept with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import ParameterError, RegistryError
from cxr.lineage.version_lineage import Lineage, MemberVersion
from cxr.models.metadata import ModelMetadata
from cxr.tracking.artifact_download import download_files
from cxr.tracking.health import explain, first_line
from cxr.tracking.registry_reader import read_metadata
from cxr.tracking.store import Store
from cxr.tracking.version_record import RECORDS, run_pages

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


def read_lineage(store: Store, registered_name: str, version: str) -> Lineage:
    """Find out what a version was created from.

    Args:
        store: the tracking store.
        registered_name: name of the registered model.
        version: number or alias.

    Returns:
        Its lineage, without what was not recorded.

    Raises:
        MissingInputError: if there is no such local store.
        ParameterError: if there is no such version.
        RegistryError: if the store does not answer.
    """
    store.connect_existing()
    resolved, aliases = resolve_version(store, registered_name, version)
    tags = {str(key): str(value) for key, value in resolved.tags.items()}
    run = _read_run(store, resolved.run_id)
    record = f"{RECORDS}/{tags.get('record', '').rpartition('/')[2]}"
    return Lineage(
        name=registered_name,
        version=str(resolved.version),
        aliases=tuple(sorted(aliases)),
        registered=datetime.fromtimestamp(resolved.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        tags=tags,
        run_id=resolved.run_id if run else None,
        run_name=run.info.run_name if run else None,
        run_files=run.info.artifact_uri if run else None,
        parameters=dict(run.data.params) if run else {},
        members=_members(store, resolved) if "weights" in tags else (),
        absent=_absent_folders(store, resolved, record) if run else ("training run",),
        links=_links(store, resolved, str(run.info.experiment_id), record) if run else {},
    )


def fetch_record(store: Store, lineage: Lineage, folder: Path) -> Path | None:
    """Copy the files that were kept with a version.

    Args:
        store: the tracking store.
        lineage: the version's lineage.
        folder: an empty folder that exists.

    Returns:
        The folder with ``params.yaml``, ``dvc.lock`` ...; None if the version has no record.

    Raises:
        RegistryError: if the record's files are gone.
    """
    address = lineage.tags.get("record")
    if address is None:
        return None
    from mlflow.exceptions import MlflowException

    run_id, _, path = address.removeprefix("runs:/").partition("/")
    try:
        return download_files(store, store.client.get_run(run_id).info.artifact_uri, path, folder)
    except (MlflowException, OSError) as error:
        raise RegistryError(
            f"cannot read {address}: {first_line(error)}; restore this run from a backup of the store, or check out "
            f"commit {lineage.tags.get('git_commit', 'unknown')} by hand"
        ) from error


def resolve_version(store: Store, name: str, version: str) -> tuple[ModelVersion, list[str]]:
    """Find the version of a number or alias.

    Args:
        store: the tracking store, connected.
        name: the registered model.
        version: number or alias.

    Returns:
        The version, and all its aliases.

    Raises:
        ParameterError: if there is no such version.
        RegistryError: if the store does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        registered = store.client.get_registered_model(name)
        aliases = {str(alias): str(number) for alias, number in registered.aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise RegistryError(f"cannot read the registered model {name!r}: {explain(error)}") from error
        raise ParameterError(
            [f"expected a registered model, received registered_name={name!r}, which the store does not know; "
             "run `cxr register`"]
        ) from None  # fmt: skip
    number = aliases.get(version, version)
    known = {str(entry.version): entry for entry in store.client.search_model_versions(f"name = '{name}'")}
    if number not in known:
        raise ParameterError(
            [f"expected a version of {name} or an alias, received version={version!r}; there are versions "
             f"{', '.join(sorted(known, key=int)) or 'none'} and aliases {', '.join(sorted(aliases)) or 'none'}"]
        )  # fmt: skip
    return known[number], [alias for alias, holder in aliases.items() if holder == number]


def _read_run(store: Store, run_id: str | None) -> Run | None:
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        run = store.client.get_run(run_id)
        return run if run.info.lifecycle_stage == "active" else None
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise RegistryError(f"cannot read run {run_id}: {explain(error)}") from error


def _absent_folders(store: Store, version: ModelVersion, record: str) -> tuple[str, ...]:
    """Folders that the tags name and the run's files lack."""
    folders = {"evaluation": "evaluation", "record": record}
    return tuple(
        name
        for name, path in folders.items()
        if name in version.tags and not store.client.list_artifacts(version.run_id, path)
    )


def _links(store: Store, version: ModelVersion, experiment_id: str, record: str) -> dict[str, str]:
    if not store.is_server:
        return {}
    page = store.uri.rstrip("/")
    pages = run_pages(experiment_id, version.run_id, record)
    recorded = {"run", "curves", *(name for name in pages if name in version.tags)}
    links = {name: f"{page}/{path}" for name, path in pages.items() if name in recorded}
    return {"version": f"{page}/#/models/{version.name}/versions/{version.version}", **links}


def _members(store: Store, version: ModelVersion) -> tuple[MemberVersion, ...]:
    """Members of an ensemble, each with the version that was created from the same training."""
    versions = store.client.search_model_versions(f"name = '{version.name}'")
    origins = []
    for member in read_metadata(store, version).members:
        own = _version_of(member.card, versions)
        number, run_id = (str(own.version), own.run_id) if own else (None, None)
        origins.append(MemberVersion(member.model, member.weight, member.card.git_commit, number, run_id))
    return tuple(origins)


def _version_of(metadata: ModelMetadata, versions: Sequence[ModelVersion]) -> ModelVersion | None:
    """The newest version whose tags agree with a member's metadata."""
    facts = {
        "model": metadata.model,
        "seed": metadata.seed,
        "data_digest": metadata.data_digest,
        "split_digest": metadata.split_digest,
        "git_commit": metadata.git_commit,
        "train_seconds": metadata.training.get("seconds"),
    }
    tags = {key: str(value) for key, value in facts.items() if value is not None}
    matches = [version for version in versions if all(version.tags.get(key) == value for key, value in tags.items())]
    return max(matches, key=lambda version: int(version.version), default=None)
