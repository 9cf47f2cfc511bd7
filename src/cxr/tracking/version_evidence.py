"""Evidence of a version among its files: its bill of materials, and a signature that is added after registration."""

from __future__ import annotations

from pathlib import Path

from cxr.errors import ParameterError, RegistryError
from cxr.files import scratch_folder
from cxr.lineage.sbom import SBOM_FILE
from cxr.tracking.artifact_download import artifact_repository
from cxr.tracking.lineage_reader import resolve_version
from cxr.tracking.registry_reader import download_package_file, fetch_package, files_location, missing_files
from cxr.tracking.signatures import SIGNED_BY, SigningKey
from cxr.tracking.store import Store
from cxr.tracking.versions import SBOM


def sign_version(store: Store, registered_name: str, version: str, key: SigningKey) -> str:
    """Sign the files of a version as they are in the store; an older signature is replaced.

    Args:
        store: the tracking store. If it has trusted keys, one of them must have signed the version before.
        registered_name: the registered model.
        version: number or alias.
        key: the key.

    Returns:
        Number of the version.

    Raises:
        MissingInputError: if there is no such local store.
        ParameterError: if there is no such version.
        RegistryError: if files of the version are gone or changed, or the store does not take the signature.
        UnverifiedVersionError: if none of the trusted keys has signed it.
    """
    store.connect_existing()
    entry, _ = resolve_version(store, registered_name, version)
    title = f"version {entry.version} of {registered_name}"
    if absent := missing_files(store, entry):
        raise RegistryError(
            f"expected {title} with all its files, received one without {', '.join(absent)}; restore them, or register "
            "the model again with --signing_key"
        )
    with scratch_folder() as scratch, store.clear_errors(f"take the signature of {title}"):
        signature = key.sign(fetch_package(store, entry, scratch))
        artifact_repository(store, files_location(store, entry)).log_artifact(str(signature))
        store.client.set_model_version_tag(registered_name, entry.version, SIGNED_BY, key.key_id)
    return str(entry.version)


def read_sbom(store: Store, registered_name: str, version: str) -> str:
    """Read the bill of materials of a version.

    Args:
        store: the tracking store. If it has trusted keys, one of them must have signed the version.
        registered_name: the registered model.
        version: number or alias.

    Returns:
        CycloneDX, JSON.

    Raises:
        MissingInputError: if there is no such local store.
        ParameterError: if there is no such version, or it has none.
        RegistryError: if the store does not answer.
        UnverifiedVersionError: if none of the trusted keys has signed it.
    """
    store.connect_existing()
    entry, _ = resolve_version(store, registered_name, version)
    if SBOM not in entry.tags:
        raise ParameterError(
            [f"expected a version with a bill of materials, received version={entry.version} without one: its "
             "environment was unknown at registration, or an earlier program registered it"]
        )  # fmt: skip
    with scratch_folder() as scratch:
        if store.trusted_keys is None:
            path = download_package_file(store, entry, SBOM_FILE, scratch)
        else:
            path = fetch_package(store, entry, scratch) / SBOM_FILE
        return Path(path).read_text(encoding="utf-8")
