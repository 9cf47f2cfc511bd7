"""Versions of the registered model: each is created once from a model's files, and can predict on its own."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import RegistryError
from cxr.files import METADATA_FILE, scratch_folder
from cxr.lineage.sbom import SBOM_FILE
from cxr.models.metadata import ModelMetadata
from cxr.promotion.candidates import Candidate
from cxr.promotion.facts import is_pinned
from cxr.tracking.content import read_content
from cxr.tracking.health import explain
from cxr.tracking.model_package import PYTHON, save_package
from cxr.tracking.promotion_log import PromotionLog
from cxr.tracking.registry_reader import DIGESTS, ignore_missing, missing_files
from cxr.tracking.signatures import SIGNED_BY
from cxr.tracking.store import Store
from cxr.tracking.version_record import keep_record

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

FINGERPRINT = "fingerprint"
"""Tag of a version and of its MLflow model: digest of the content that they were created from."""
SBOM = "sbom"
"""Tag of a version: MLflow's address of its bill of materials."""
TASK = "task"
"""Tag of a version of a detector, with the value :data:`DETECTION`; versions of classifiers have no such tag."""
DETECTION = "detection"
DESCRIPTION = "Pneumonia on chest radiographs: image in, probability, label and threshold out."
DETECTOR_DESCRIPTION = "Opacities on chest radiographs: image in, boxes with scores out."


def ensure_registered_model(store: Store, name: str, *, detectors: bool = False) -> None:
    """Create the registered model unless it exists.

    Args:
        store: the tracking store.
        name: name of the registered model.
        detectors: whether its versions draw boxes.

    Raises:
        RegistryError: if the store refuses.
    """
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name, description=DETECTOR_DESCRIPTION if detectors else DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise RegistryError(f"cannot create the registered model {name!r}: {explain(error)}") from error


def check_kind(store: Store, name: str, *, detectors: bool) -> None:
    """Refuse to mix classifiers and detectors in one registered model: who serves it expects one kind.

    Args:
        store: the tracking store.
        name: name of the registered model.
        detectors: whether versions that draw boxes will be added.

    Raises:
        RegistryError: if it has versions of the other kind.
    """
    versions = store.client.search_model_versions(f"name = '{name}'")
    others = [str(version.version) for version in versions if (version.tags.get(TASK) == DETECTION) != detectors]
    if others:
        expected, other = ("detectors", "classifiers") if detectors else ("classifiers", "detectors")
        raise RegistryError(
            f"expected a registered model of {expected}, received registered_name={name!r} with {other} "
            f"(versions {', '.join(others[:5])}); give another name"
        )


def ensure_version(store: Store, name: str, candidate: Candidate, run_id: str) -> tuple[ModelVersion, bool]:
    """Find the version that was created from this content, or create it.

    The content is the files that prediction reads. It does not matter where they are, when they were written, or
    which pipeline run has made them once more.

    The version is created last, when all its files are in the store and were checked. A registration that is cut off
    leaves files, marked as pending or failed, and no version, or a version that the next registration uses. Of several
    processes that create a version at once, all use the same one, and the others are deleted. A version whose files
    are gone is left as it is, and another one is created.

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
    fingerprint = _fingerprint(candidate)
    with store.clear_errors(f"take {candidate.name} as a version of {name}"), store.lock():
        version = _choose_version(store, name, fingerprint)
        is_new = version is None
        if version is None:
            created = _create_version(store, name, candidate, run_id, fingerprint)
            # On a server, another process may have created one at the same time, which that process finishes.
            version = _choose_version(store, name, fingerprint) or created
            if str(version.version) != str(created.version):
                return version, False
        _finish_models(store, version, run_id, fingerprint)
        version = _with_new_figures(store, version, candidate)
    if is_new:
        log.info("registered %s as version %s of %s", candidate.name, version.version, name)
    elif store.signing_key is not None and version.tags.get(SIGNED_BY) != store.signing_key.key_id:
        # Its files come from the store. Only a person can say that they are to be trusted.
        log.warning(
            "version %s of %s was registered before and is not signed with this key; if you trust its files, run "
            "`cxr sign %s`", version.version, name, version.version,
        )  # fmt: skip
    return store.client.get_model_version(name, version.version), is_new


def _with_new_figures(store: Store, version: ModelVersion, candidate: Candidate) -> ModelVersion:
    """Tag a version with figures that were measured after its registration, e.g. by a stress test; others stay."""
    figures = {key: value for key, value in candidate.summary.items() if value is not None and key not in version.tags}
    for key, value in figures.items():
        store.client.set_model_version_tag(version.name, version.version, key, str(value))
    return store.client.get_model_version(version.name, version.version) if figures else version


def _create_version(store: Store, name: str, candidate: Candidate, run_id: str, fingerprint: str) -> ModelVersion:
    client = store.client
    model, package_tags = _upload(store, candidate, run_id, fingerprint)
    record = keep_record(store, run_id, candidate.trained, candidate.evaluation, fingerprint)
    return client.create_model_version(
        name,
        # Not models:/<id>: a local store would look that up in MLflow's global address, which is not set.
        source=model.artifact_location,
        run_id=run_id,
        tags=_tags(candidate, fingerprint) | record.tags | package_tags,
        description=record.description,
        model_id=str(model.model_id),
    )


def _choose_version(store: Store, name: str, fingerprint: str) -> ModelVersion | None:
    """The version with this fingerprint that all processes use; its copies are deleted.

    Versions that have lost files cause a warning. Of the others, the one with the lowest number is used: it was there
    before any other process has created its own. A version that is in use comes first and is never deleted.
    """
    complete = []
    for version in _versions_with(store, name, fingerprint):
        try:
            missing = missing_files(store, version)
        except RegistryError:
            if version.version in {match.version for match in _versions_with(store, name, fingerprint)}:
                raise
            continue  # its process has deleted it meanwhile, because it was a copy
        if not missing:
            complete.append(version)
            continue
        log.warning(
            "version %s of %s has lost %s and cannot answer: the model gets another version",
            version.version, name, ", ".join(missing),
        )  # fmt: skip
    if len(complete) < 2:
        return complete[0] if complete else None
    in_use = _versions_in_use(store, name, complete)
    chosen = min(complete, key=lambda version: (str(version.version) not in in_use, int(version.version)))
    for version in complete:
        if version is not chosen and str(version.version) not in in_use:
            _delete_copy(store, version, chosen)
    return chosen


def _versions_in_use(store: Store, name: str, versions: Sequence[ModelVersion]) -> set[str]:
    """Versions that have an alias or are in the promotion log, and those of ``versions`` that a person has pinned."""
    pinned = {str(version.version) for version in versions if is_pinned(version.tags)}
    with_alias = {str(number) for number in store.client.get_registered_model(name).aliases.values()}
    in_log = {
        number
        for entry in PromotionLog(store, name).entries()
        for number in (entry.candidate, *entry.before.values(), *entry.after.values())
        if number is not None
    }
    return pinned | with_alias | in_log


def _versions_with(store: Store, name: str, fingerprint: str) -> list[ModelVersion]:
    """Versions with a fingerprint, lowest number first."""
    versions = store.client.search_model_versions(f"name = '{name}'")
    matches = [version for version in versions if version.tags.get(FINGERPRINT) == fingerprint]
    return sorted(matches, key=lambda version: int(version.version))


def _delete_copy(store: Store, version: ModelVersion, original: ModelVersion) -> None:
    """Delete a version and its MLflow model; a user who may not do that leaves them there."""
    from mlflow.exceptions import MlflowException

    name, number = version.name, str(version.version)
    try:
        with ignore_missing():
            store.client.delete_model_version(name, number)
        with ignore_missing():
            for model in _models(store, str(version.run_id), version.tags[FINGERPRINT]):
                if model.artifact_location == version.source:
                    store.client.delete_logged_model(model.model_id)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        log.warning("version %s of %s is a copy of version %s; delete it, this user may not", number, name,
                    original.version)  # fmt: skip
    else:
        log.info("version %s of %s was a copy of version %s and is deleted", number, name, original.version)


def _mark_failed(store: Store, model: LoggedModel) -> None:
    """Show an MLflow model as one that has no version."""
    from mlflow.entities import LoggedModelStatus

    with ignore_missing():
        store.client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)


def _finish_models(store: Store, version: ModelVersion, run_id: str, fingerprint: str) -> None:
    """Do what killed registrations of a version's content have left undone."""
    from mlflow.entities import LoggedModelStatus

    for model in _models(store, run_id, fingerprint):
        if model.artifact_location == version.source:
            if model.status != LoggedModelStatus.READY:
                _mark_ready(store, model.model_id, run_id)
        elif model.status == LoggedModelStatus.PENDING:
            # If its process is still at work, it will find the version and use it.
            _mark_failed(store, model)


def _upload(store: Store, candidate: Candidate, run_id: str, fingerprint: str) -> tuple[LoggedModel, dict[str, str]]:
    """Store the files, signed if the store has a key, as an MLflow model that is pending and belongs to the run.

    Returns:
        The model, and the version's tags about its files.
    """
    from mlflow.entities import LoggedModelStatus

    client = store.client
    experiment = str(client.get_run(run_id).info.experiment_id)
    for model in _models_in(store, experiment, fingerprint):
        if model.status == LoggedModelStatus.PENDING:
            _mark_failed(store, model)
    model = client.create_logged_model(
        experiment,
        name=candidate.name,
        source_run_id=run_id,
        model_type="classifier" if candidate.metadata.detector is None else "detector",
        tags={FINGERPRINT: fingerprint},
    )
    with scratch_folder() as scratch:
        folder = scratch / "saved"
        facts = save_package(candidate, folder, run_id=run_id, model_id=model.model_id)
        tags = {DIGESTS: facts.digests} | ({SBOM: f"models:/{model.model_id}/{SBOM_FILE}"} if facts.has_sbom else {})
        if store.signing_key is not None:
            store.signing_key.sign(folder)
            tags[SIGNED_BY] = store.signing_key.key_id
        client.log_model_artifacts(model.model_id, str(folder))
        _check_upload(store, str(model.model_id), folder)
    return model, tags


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


def _models(store: Store, run_id: str, fingerprint: str) -> list[LoggedModel]:
    """MLflow models of the same content whose registration has begun; each process that begins makes one."""
    return _models_in(store, str(store.client.get_run(run_id).info.experiment_id), fingerprint)


def _models_in(store: Store, experiment: str, fingerprint: str) -> list[LoggedModel]:
    return list(store.client.search_logged_models([experiment], f"tags.{FINGERPRINT} = '{fingerprint}'"))


def _mark_ready(store: Store, model_id: str, run_id: str) -> None:
    """Show an MLflow model as an output of its run and as ready, once its version exists."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    outputs = store.client.get_run(run_id).outputs
    if model_id not in {output.model_id for output in (outputs.model_outputs if outputs else ())}:
        store.client.log_outputs(run_id, models=[LoggedModelOutput(model_id, 0)])
    # Last: a model that is not ready is completed by the next registration.
    store.client.finalize_logged_model(model_id, LoggedModelStatus.READY)


def _fingerprint(candidate: Candidate) -> str:
    digest = hashlib.sha256()
    for path in (*candidate.files.values(), candidate.evaluation / METADATA_FILE):
        digest.update(read_content(path))
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
    if metadata.detector is not None:
        values |= {TASK: DETECTION, "backbone": metadata.detector.backbone, "anchors": metadata.detector.anchors}
    return {key: str(value) for key, value in values.items() if value is not None}
