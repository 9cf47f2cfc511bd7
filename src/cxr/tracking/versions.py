"""Versions of the registered model: each is created once from a model's files, and can predict on its own."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import RegistryError
from cxr.files import METADATA_FILE
from cxr.models.metadata import ModelMetadata
from cxr.promotion.candidates import Candidate
from cxr.tracking.model_package import PYTHON, save_package
from cxr.tracking.registry_reader import missing_files
from cxr.tracking.store import Store
from cxr.tracking.version_record import keep_record

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

FINGERPRINT = "fingerprint"
"""Tag of a version and of its MLflow model: digest of the files that they were created from."""
DESCRIPTION = "Pneumonia on chest radiographs: image in, probability, label and threshold out."


def ensure_registered_model(store: Store, name: str) -> None:
    """Create the registered model unless it exists.

    Args:
        store: the tracking store.
        name: name of the registered model.

    Raises:
        RegistryError: if the store refuses.
    """
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name, description=DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise RegistryError(f"cannot create the registered model {name!r}: {error}") from error


def ensure_version(store: Store, name: str, candidate: Candidate, run_id: str) -> tuple[ModelVersion, bool]:
    """Find the version that was created from these very files, or create it.

    The version is created last, when all its files are in the store and were checked. A registration that is cut off
    leaves files, marked as pending or failed, and no version. A version whose files are gone is left as it is, and
    another one is created.

    Args:
        store: the tracking store.
        name: name of the registered model.
        candidate: the model.
        run_id: MLflow's run that trained it.

    Returns:
        The version, and whether it is new.

    Raises:
        RegistryError: if the store fails meanwhile, or keeps less than it was given.
    """
    fingerprint, client = _fingerprint(candidate), store.client
    with store.clear_errors(f"take {candidate.name} as a version of {name}"), store.lock():
        version = _complete_version(store, name, fingerprint)
        if version is not None:
            for model in _pending_models(store, run_id, fingerprint):
                if model.artifact_location == version.source:  # its process was killed before the last request
                    _mark_ready(store, model.model_id, run_id)
            return _with_new_figures(store, version, candidate), False
        model_id = _upload(store, candidate, run_id, fingerprint)
        record = keep_record(store, run_id, candidate.trained, candidate.evaluation, fingerprint)
        created = client.create_model_version(
            name,
            # Not models:/<id>: a local store would look that up in MLflow's global address, which is not set.
            source=client.get_logged_model(model_id).artifact_location,
            run_id=run_id,
            tags=_tags(candidate, fingerprint) | record.tags,
            description=record.description,
            model_id=model_id,
        )
        # On a server, another process may have created one at the same time. The lower number was there first.
        first = _complete_version(store, name, fingerprint)
        if first is not None and int(first.version) < int(created.version):
            client.delete_model_version(name, str(created.version))
            client.delete_logged_model(model_id)
            return first, False
        _mark_ready(store, model_id, run_id)
    log.info("registered %s as version %s of %s", candidate.name, created.version, name)
    return client.get_model_version(name, created.version), True


def _with_new_figures(store: Store, version: ModelVersion, candidate: Candidate) -> ModelVersion:
    """Tag a version with figures that were measured after its registration, e.g. by a stress test; others stay."""
    figures = {key: value for key, value in candidate.summary.items() if value is not None and key not in version.tags}
    for key, value in figures.items():
        store.client.set_model_version_tag(version.name, version.version, key, str(value))
    return store.client.get_model_version(version.name, version.version) if figures else version


def _complete_version(store: Store, name: str, fingerprint: str) -> ModelVersion | None:
    """The oldest version with this fingerprint that has all its files; incomplete ones cause a warning."""
    matches = [
        version
        for version in store.client.search_model_versions(f"name = '{name}'")
        if version.tags.get(FINGERPRINT) == fingerprint
    ]
    for version in sorted(matches, key=lambda version: int(version.version)):
        missing = missing_files(store, version)
        if not missing:
            return version
        log.warning(
            "version %s of %s has lost %s and cannot answer: the model gets another version",
            version.version, name, ", ".join(missing),
        )  # fmt: skip
    return None


def _upload(store: Store, candidate: Candidate, run_id: str, fingerprint: str) -> str:
    """Store the files as an MLflow model that is pending and belongs to the run; returns MLflow's id of the model."""
    from mlflow.entities import LoggedModelStatus

    client = store.client
    for cut_off in _pending_models(store, run_id, fingerprint):
        client.finalize_logged_model(cut_off.model_id, LoggedModelStatus.FAILED)
    model = client.create_logged_model(
        client.get_run(run_id).info.experiment_id,
        name=candidate.name,
        source_run_id=run_id,
        model_type="classifier",
        tags={FINGERPRINT: fingerprint},
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "saved"
        save_package(candidate, folder, run_id=run_id, model_id=model.model_id)
        client.log_model_artifacts(model.model_id, str(folder))
        _check_upload(store, str(model.model_id), folder)
    return str(model.model_id)


def _check_upload(store: Store, model_id: str, folder: Path) -> None:
    """Refuse a stored model that has fewer files, or files of another size, than the folder it came from."""
    stored: dict[str, int | None] = {}
    folders: list[str | None] = [None]
    while folders:
        for entry in store.client.list_logged_model_artifacts(model_id, folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                stored[entry.path] = entry.file_size
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    # An empty package marker has a size of 0, which some stores do not report.
    lost = sorted(name for name, size in sizes.items() if name not in stored or (stored[name] or size) != size)
    if lost:
        raise RegistryError(
            f"expected a store that keeps what it is given, received {model_id} without {', '.join(lost[:5])} "
            f"({len(lost)} of {len(sizes)} files); look at the store of artifacts, and run `cxr register` again"
        )


def _pending_models(store: Store, run_id: str, fingerprint: str) -> list[LoggedModel]:
    """MLflow models of the same files whose registration has begun; its process may be at work, or killed."""
    from mlflow.entities import LoggedModelStatus

    experiment = store.client.get_run(run_id).info.experiment_id
    models = store.client.search_logged_models([experiment], f"tags.{FINGERPRINT} = '{fingerprint}'")
    return [model for model in models if model.status == LoggedModelStatus.PENDING]


def _mark_ready(store: Store, model_id: str, run_id: str) -> None:
    """Show an MLflow model as ready and as an output of its run, once its version exists."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    store.client.finalize_logged_model(model_id, LoggedModelStatus.READY)
    outputs = store.client.get_run(run_id).outputs
    if model_id not in {output.model_id for output in (outputs.model_outputs if outputs else ())}:
        store.client.log_outputs(run_id, models=[LoggedModelOutput(model_id, 0)])


def _fingerprint(candidate: Candidate) -> str:
    digest = hashlib.sha256()
    for path in (*candidate.files.values(), candidate.evaluation / METADATA_FILE):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _member_weights(metadata: ModelMetadata) -> str | None:
    """Weights of an ensemble's members as text; None for a single network."""
    return ", ".join(f"{member.model} {member.weight:.4f}" for member in metadata.members) or None


def _tags(candidate: Candidate, fingerprint: str) -> dict[str, str]:
    metadata = candidate.metadata
    device: Mapping[str, Any] = metadata.training.get("device") or {}
    copied = ("model", "system", "seed", "parameters", "dataset_kind", "data_md5", "data_digest", "split_protocol",
              "split_digest", "git_commit", "threshold_rule")  # fmt: skip
    values: dict[str, object] = {
        FINGERPRINT: fingerprint,
        **{name: getattr(metadata, name) for name in copied},
        "recipe": metadata.recipe.get("name"),
        "weights": _member_weights(metadata),
        "dataset": metadata.dataset["name"],
        "device": device.get("name"),
        "gpu": "yes" if device.get("kind") == "gpu" else "no",
        "framework": device.get("framework"),
        "driver": device.get("driver"),
        "train_seconds": metadata.training.get("seconds"),
        "epochs": metadata.training.get("epochs_run"),
        "best_epoch": metadata.training.get("best_epoch"),
        "python": PYTHON,
        **candidate.summary,
    }
    return {key: str(value) for key, value in values.items() if value is not None}
