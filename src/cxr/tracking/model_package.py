"""The files of a version: an MLflow model with network, metadata, refusal reference, and the code that runs them."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata as installed
from pathlib import Path

import cxr
from cxr.evaluation.validation_scores import ValidationScores
from cxr.files import MODEL_CARD_FILE, scratch_folder
from cxr.lineage.provenance import CONTAINER_IMAGE_FOLDER
from cxr.lineage.sbom import SBOM_FILE, write_sbom
from cxr.models.backend import backend_name
from cxr.models.stored_files import DIGESTS_FILE, record_digests, sha256
from cxr.promotion.candidates import Candidate
from cxr.tracking.version_record import model_card

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
"""Packages that a version needs to predict, each with the names under which it may be installed."""
PACKAGE = (
    "__init__.py", "cpu.py", "errors.py", "files.py",
    "data/__init__.py", "data/dataset.py",
    "evaluation/__init__.py", "evaluation/calibration.py", "evaluation/metrics.py",
    "images",
    "inference/__init__.py", "inference/image_input.py", "inference/predictor.py", "inference/reference",
    "models/__init__.py", "models/metadata.py", "models/prediction_sets.py", "models/stored_files.py",
)  # fmt: skip
"""Parts of this package that a version carries: all that prediction imports. A server needs one request per file."""
DETECTOR_PACKAGE = (
    *PACKAGE,
    "data/boxes.py",
    "evaluation/operating_point.py",
    "regions/__init__.py", "regions/anchors.py", "regions/average_precision.py", "regions/matching.py",
    "regions/operating_point.py", "regions/overlap.py", "regions/placement.py", "regions/predictor.py",
    "regions/suppression.py",
    "storage/__init__.py", "storage/contents.py",
    "tables.py",
)  # fmt: skip
"""The same for a version of a detector."""
BACKENDS = {"tensorflow": ("tensorflow", "tensorflow-cpu"), "jax": ("jax",), "torch": ("torch",)}
PYTHON = ".".join(map(str, sys.version_info[:3]))


@dataclass(frozen=True)
class PackageFacts:
    """What the registry must know of the written files of a version.

    Attributes:
        digests: SHA-256 of ``digests.json``, the file with the digests of the model's files.
        has_sbom: whether they have a bill of materials.
    """

    digests: str
    has_sbom: bool


def save_package(candidate: Candidate, folder: Path, *, run_id: str, model_id: str) -> PackageFacts:
    """Write an MLflow model that predicts without this package being installed, and the bill of materials beside it.

    Args:
        candidate: the model.
        folder: folder to create.
        run_id: MLflow's run that trained it.
        model_id: MLflow's id of the model.

    Returns:
        What the registry must know of the files.
    """
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

    is_detector = candidate.metadata.detector is not None
    # The input column has no name, so that a plain list of images is accepted as well as a DataFrame.
    outputs = {"probability": DataType.double, "label": DataType.string, "threshold": DataType.double,
               "refusal": DataType.string}  # fmt: skip
    if is_detector:
        outputs = {"path": DataType.string, **dict.fromkeys(("x", "y", "width", "height", "score"), DataType.double)}
    signature = ModelSignature(
        inputs=Schema([ColSpec(AnyType())]),
        outputs=Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
    )
    with scratch_folder() as scratch, warnings.catch_warnings():
        # MLflow would run an example to guess the signature, which is given.
        warnings.filterwarnings("ignore", message=".*An input example was not provided", category=UserWarning)
        model, code = scratch / "artifact", scratch / cxr.__name__
        for name, path in candidate.files.items():
            (model / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, model / name)
        if not is_detector:
            ValidationScores.from_evaluation(candidate.evaluation).save(model)
        candidate.metadata.write(model)
        (model / MODEL_CARD_FILE).write_text(model_card(candidate.metadata, candidate.evaluation), encoding="utf-8")
        for member in sorted({(model / name).parent for name in candidate.files} - {model}):
            record_digests(member)
        record_digests(model)
        _copy_code(code, DETECTOR_PACKAGE if is_detector else PACKAGE)
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"model": str(model)},
            code_paths=[str(code)],
            signature=signature,
            pip_requirements=requirements(),
            model_config={"paths": True},
            mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
        )
        folders = [place / "requirements" for place in (Path(), CONTAINER_IMAGE_FOLDER)]
        has_sbom = write_sbom(candidate.metadata.environment, folders, folder / SBOM_FILE)
        return PackageFacts(sha256(model / DIGESTS_FILE), has_sbom)


def requirements() -> list[str]:
    """Pin the packages that a version needs to the versions installed here.

    Returns:
        Lines of a pip requirements file.
    """
    backend = backend_name()
    names = (*REQUIREMENTS, BACKENDS.get(backend, (backend,)))
    return [line for line in map(_pin, names) if line is not None]


def _pin(names: Sequence[str]) -> str | None:
    for name in names:
        try:
            return f"{name}=={installed.version(name)}"
        except installed.PackageNotFoundError:
            continue
    return None


def _copy_code(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir()
    for name in names:
        source = Path(cxr.__file__).parent / name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, folder / name)
