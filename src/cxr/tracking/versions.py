"""Versions of the registered model: made once from a model's files, and able to run on their own."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxr
from cxr.errors import MissingInputError, RegistryError
from cxr.evaluation.validation_scores import ValidationScores
from cxr.files import METADATA_FILE, MODEL_CARD_FILE, NETWORK_FILE, REFERENCE_FILE
from cxr.models.backend import backend_name
from cxr.models.metadata import EVALUATION_FOLDER, MODEL_FOLDER, ModelCard, model_folders
from cxr.tracking.artifacts import absent_files
from cxr.tracking.connection import creation_lock
from cxr.tracking.health import plainly
from cxr.tracking.stored_models import FINGERPRINT, compare, mark_ready, pending
from cxr.tracking.version_record import keep_record, model_card

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

REQUIREMENTS: tuple[tuple[str, ...], ...] = (
    ("mlflow",),
    ("keras",),
    ("numpy",),
    ("pandas",),
    ("scipy",),
    ("opencv-python-headless", "opencv-python"),
    ("pillow",),
    ("pydicom",),
    ("python-gdcm",),
    ("tqdm",),
)
"""Packages that a version needs to answer, each with names under which it may be installed."""
PACKAGE = (
    "__init__.py", "errors.py", "files.py",
    "data/__init__.py", "data/dataset.py",
    "evaluation/__init__.py", "evaluation/calibration.py", "evaluation/metrics.py",
    "images",
    "inference/__init__.py", "inference/predictor.py", "inference/reference",
    "models/__init__.py", "models/metadata.py",
)  # fmt: skip
"""What of this package a version carries: all that prediction imports. A server takes a request for each file."""
BACKENDS = {"tensorflow": ("tensorflow", "tensorflow-cpu"), "jax": ("jax",), "torch": ("torch",)}


@dataclass(frozen=True)
class Candidate:
    """A model of this run: its folders, its calibrated card, its figures, and the folder of the reference if any."""

    name: str
    trained: Path
    evaluation: Path
    card: ModelCard
    summary: Mapping[str, float]
    reference: Path | None = None

    @property
    def files(self) -> Mapping[str, Path]:
        """Files that prediction reads beside the card: name in the version to where it is now."""
        found = {name: self.trained / name for name in self.card.files}
        if self.reference is not None:
            found[REFERENCE_FILE] = self.reference / REFERENCE_FILE
        return found


def candidates(
    models: Path,
    evaluations: Path,
    include: Sequence[str],
    ensemble: Path | None = None,
    transfer: Path | None = None,
    reference: Path | None = None,
) -> list[Candidate]:
    """Find the models of a run.

    Args:
        models: folder with one folder per trained model.
        evaluations: folder with one folder per evaluation, named as the models.
        include: names of the models to take; empty takes all that are evaluated, and the ensemble.
        ensemble: folder of the ensemble; None, or a folder that is not there, if there is none.
        transfer: folder with ``models/`` and ``evaluations/`` of the transfer networks; None leaves them out.
        reference: folder of the reference; None, or a folder without one, if there is none.

    Returns:
        The models, all judged on one split, in order of ``include`` or of their names.

    Raises:
        MissingInputError: if a model or its evaluation is missing, or there is none.
        RegistryError: if they were judged on different images or splits.
    """
    places = model_folders(models, evaluations, transfer)
    if ensemble is not None and ensemble.is_dir():
        judged = ensemble / EVALUATION_FOLDER
        places[ModelCard.read(judged).model] = (ensemble / MODEL_FOLDER, judged)
    names = list(include) or list(places)
    taken = {name: places.get(name, (models / name, evaluations / name)) for name in names}
    absent = [
        str(path)
        for trained, judged in taken.values()
        for path in (*_files(trained, judged), judged / METADATA_FILE, judged / "summary.json")
        if not path.is_file()
    ]
    if absent or not names:
        raise MissingInputError(
            f"expected trained and evaluated models, received none of: {', '.join(absent) or evaluations}; "
            "run `cxr train` and `cxr evaluate` for each"
        )
    known = reference if reference is not None and (reference / REFERENCE_FILE).is_file() else None
    found = []
    for name, (trained, judged) in taken.items():
        summary = json.loads((judged / "summary.json").read_text(encoding="utf-8"))
        card = ModelCard.read(judged)
        if not card.calibrated:
            raise MissingInputError(
                f"expected a calibrated card, received {judged / METADATA_FILE} with "
                f"temperature={card.temperature}, threshold={card.threshold}; run `cxr evaluate`"
            )
        found.append(Candidate(name, trained, judged, card, summary, known))
    if len({(one.card.data_digest, one.card.split_digest) for one in found}) > 1:
        listed = ", ".join(f"{one.name}={one.card.split_protocol} {one.card.split_digest[:8]}" for one in found)
        raise RegistryError(
            f"expected models judged on the same images and split, received {listed}; "
            "train and evaluate them again on one split, or name those that belong together (include)"
        )
    return found


def _files(trained: Path, judged: Path) -> list[Path]:
    """Files of a version beside its card; those of a single network where no card tells of members."""
    names = ModelCard.read(judged).files if (judged / METADATA_FILE).is_file() else (NETWORK_FILE,)
    return [trained / name for name in names]


def ensure_version(
    connected: MlflowClient, uri: str, name: str, one: Candidate, run_id: str
) -> tuple[ModelVersion, bool]:
    """Find the version made of these very files, or make it.

    A version is made last, when all its files are there and were looked at: a registration that is cut off leaves
    files, marked as pending or failed, and no version. A version whose files are gone is left as it is, and another
    is made.

    Args:
        connected: client of ``uri``.
        uri: address of the store.
        name: name of the registered model.
        one: the model.
        run_id: MLflow's run that trained it.

    Returns:
        The version, and whether it is new.

    Raises:
        RegistryError: if the store fails meanwhile, or keeps less than it was given.
    """
    fingerprint = _fingerprint(one)
    with plainly(uri, f"take {one.name} as a version of {name}"), creation_lock(uri):
        found = _whole_version(connected, uri, name, fingerprint)
        if found is not None:
            for stored in pending(connected, run_id, fingerprint):
                if stored.artifact_location == found.source:  # killed before its last words
                    mark_ready(connected, stored.model_id, run_id)
            return found, False
        model_id = _log_model(connected, one, run_id, fingerprint)
        record = keep_record(connected, run_id, one.trained, one.evaluation, fingerprint)
        created = connected.create_model_version(
            name,
            # Not models:/<id>: a local store would look that up in MLflow's global address, which is not set.
            source=connected.get_logged_model(model_id).artifact_location,
            run_id=run_id,
            tags=_tags(one, fingerprint) | record.tags,
            description=record.description,
            model_id=model_id,
        )
        # On a server, another process may have made one at the same time. The lower number was there first.
        first = _whole_version(connected, uri, name, fingerprint)
        if first is not None and int(first.version) < int(created.version):
            connected.delete_model_version(name, str(created.version))
            connected.delete_logged_model(model_id)
            return first, False
        mark_ready(connected, model_id, run_id)
    log.info("registered %s as version %s of %s", one.name, created.version, name)
    return connected.get_model_version(name, created.version), True


def _whole_version(connected: MlflowClient, uri: str, name: str, fingerprint: str) -> ModelVersion | None:
    """The oldest version with this fingerprint whose files are all there; others are told."""
    alike = [
        version
        for version in connected.search_model_versions(f"name = '{name}'")
        if version.tags.get(FINGERPRINT) == fingerprint
    ]
    for version in sorted(alike, key=lambda version: int(version.version)):
        absent = absent_files(uri, version)
        if not absent:
            return version
        log.warning(
            "version %s of %s has lost %s and cannot answer: the model gets another version",
            version.version, name, ", ".join(absent),
        )  # fmt: skip
    return None


def _log_model(connected: MlflowClient, one: Candidate, run_id: str, fingerprint: str) -> str:
    """Store network, calibrated card, package and signature as an MLflow model, pending, that belongs to the run."""
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

    experiment = connected.get_run(run_id).info.experiment_id
    for cut_off in pending(connected, run_id, fingerprint):
        connected.finalize_logged_model(cut_off.model_id, LoggedModelStatus.FAILED)
    logged = connected.create_logged_model(
        experiment,
        name=one.name,
        source_run_id=run_id,
        model_type="classifier",
        tags={FINGERPRINT: fingerprint},
    )
    # The column has no name so that a plain list of images is accepted as well as a DataFrame.
    outputs = [
        *((DataType.double, "probability"), (DataType.string, "label"), (DataType.double, "threshold")),
        (DataType.string, "refusal"),
    ]
    signature = ModelSignature(
        inputs=Schema([ColSpec(AnyType())]),
        outputs=Schema([ColSpec(kind, column) for kind, column in outputs]),
    )
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        # MLflow would run the example to guess the signature, which is given.
        warnings.filterwarnings("ignore", message=".*An input example was not provided", category=UserWarning)
        folder = Path(scratch) / "artifact"
        for name, path in one.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        ValidationScores.of_evaluation(one.evaluation).save(folder)
        one.card.write(folder)
        (folder / MODEL_CARD_FILE).write_text(model_card(one.card, one.evaluation), encoding="utf-8")
        package, saved = Path(scratch) / cxr.__name__, Path(scratch) / "saved"
        _copy_package(package)
        mlflow.pyfunc.save_model(
            saved,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"model": str(folder)},
            code_paths=[str(package)],
            signature=signature,
            pip_requirements=requirements(),
            model_config={"paths": True},
            mlflow_model=Model(run_id=run_id, model_id=logged.model_id, model_uuid=logged.model_id),
        )
        connected.log_model_artifacts(logged.model_id, str(saved))
        compare(connected, str(logged.model_id), saved)
    return str(logged.model_id)


def _copy_package(folder: Path) -> None:
    folder.mkdir()
    for name in PACKAGE:
        source = Path(cxr.__file__).parent / name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, folder / name)


def requirements() -> list[str]:
    """Pin the packages that a registered version needs, as they are installed here.

    Returns:
        Lines of a pip requirements file.
    """
    backend = backend_name()
    names = (*REQUIREMENTS, BACKENDS.get(backend, (backend,)))
    return [line for line in map(_pin, names) if line is not None]


def _pin(names: Sequence[str]) -> str | None:
    for name in names:
        try:
            return f"{name}=={metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return None


def _fingerprint(one: Candidate) -> str:
    total = hashlib.sha256()
    for path in (*one.files.values(), one.evaluation / METADATA_FILE):
        total.update(path.read_bytes())
    return total.hexdigest()


def _members(card: ModelCard) -> str | None:
    """Weights of an ensemble's members in words; None for a single network."""
    return ", ".join(f"{member.model} {member.weight:.4f}" for member in card.members) or None


def _tags(one: Candidate, fingerprint: str) -> dict[str, str]:
    card = one.card
    device: Mapping[str, Any] = card.training.get("device") or {}
    values: dict[str, object] = {
        FINGERPRINT: fingerprint,
        "model": card.model,
        "system": card.system,
        "recipe": card.recipe.get("name"),
        "weights": _members(card),
        "seed": card.seed,
        "parameters": card.parameters,
        "dataset": card.dataset["name"],
        "dataset_kind": card.dataset_kind,
        "data_md5": card.data_md5,
        "data_digest": card.data_digest,
        "split_protocol": card.split_protocol,
        "split_digest": card.split_digest,
        "git_commit": card.git_commit,
        "device": device.get("name"),
        "gpu": "yes" if device.get("kind") == "gpu" else "no",
        "framework": device.get("framework"),
        "driver": device.get("driver"),
        "train_seconds": card.training.get("seconds"),
        "epochs": card.training.get("epochs_run"),
        "best_epoch": card.training.get("best_epoch"),
        "threshold_rule": card.threshold_rule,
        "python": ".".join(map(str, sys.version_info[:3])),
        **one.summary,
    }
    return {key: str(value) for key, value in values.items() if value is not None}
