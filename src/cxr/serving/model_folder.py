"""Models of a folder, as training or an ensemble wrote it, with what lies beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from cxr.errors import MissingInputError
from cxr.evaluation.validation_scores import ValidationScores
from cxr.files import METADATA_FILE, PREDICTIONS_FILE, REFERENCE_FILE
from cxr.inference.predictor import expect_classifier
from cxr.inference.reference.reference import Reference
from cxr.models.metadata import EVALUATION_FOLDER, ModelMetadata
from cxr.serving.model_source import LoadPredictor, ModelSource, load_with_keras
from cxr.serving.served_model import PHANTOM_BANNER, ServedModel

REFERENCE_FOLDER = "reference"
"""Folder beside the folders of the models, as the pipeline writes it."""


def folder_source(
    model: Path, evaluation: Path | None, reference: Path | None, load_predictor: LoadPredictor = load_with_keras
) -> ModelSource[ServedModel]:
    """Describe a model in a folder, as training or an ensemble wrote it.

    Args:
        model: folder of the trained model, or of an ensemble's model.
        evaluation: folder of its evaluation, whose metadata have calibration and threshold. None uses the model's own
            metadata if they have both, else ``../evaluation`` or ``../../evaluations/NAME``, whichever exists.
        reference: folder of the refusal reference; None uses ``../reference`` or ``../../reference`` of the model, if
            one exists.
        load_predictor: loads the classifier, for the runtime that is to compute.

    Returns:
        The model, not loaded yet. It has no version and no alias.

    Raises:
        MissingInputError: if a file is missing, or the model is not evaluated.
        DataError: if it is a detector.
    """
    metadata = ModelMetadata.read(model)
    expect_classifier(metadata, model)
    candidates = evaluation_candidates(model)
    evaluation_folder = evaluation or first_with(METADATA_FILE, candidates)
    if evaluation_folder is not None and (evaluation is not None or not metadata.calibrated):
        metadata = ModelMetadata.read(evaluation_folder)
    if not metadata.calibrated:
        searched = " or ".join(map(str, candidates if evaluation is None else [evaluation]))
        raise MissingInputError(
            f"expected an evaluated model, received model={model} without calibration and threshold there or in "
            f"{searched}; run `cxr evaluate`, and name its folder as --evaluation"
        )
    reference_folder = find_reference(model, reference, levels=2)
    return ModelSource(
        f"the model of {model}",
        folder_identity(model, metadata, reference_folder),
        lambda: _load_folder(model, metadata, evaluation_folder, reference_folder, load_predictor),
    )


def evaluation_candidates(model: Path) -> list[Path]:
    """Folders where the evaluation of a model of a folder may be."""
    path = model.resolve()
    return [path.parent / EVALUATION_FOLDER, path.parent.parent / "evaluations" / path.name]


def find_reference(model: Path, reference: Path | None, *, levels: int) -> Path | None:
    """Find the refusal reference of a model of a folder.

    Args:
        model: folder of the trained model.
        reference: folder of the reference; None to find it.
        levels: number of folders above the model's in which to look for :data:`REFERENCE_FOLDER`.

    Returns:
        Its folder; None if there is none.

    Raises:
        MissingInputError: if the named folder has no reference.
    """
    parents = list(model.resolve().parents)[:levels]
    folder = reference or first_with(REFERENCE_FILE, [parent / REFERENCE_FOLDER for parent in parents])
    if folder is not None and not (folder / REFERENCE_FILE).is_file():
        raise MissingInputError(
            f"expected a reference, received {folder / REFERENCE_FILE} (no such file); run `cxr reference`"
        )
    return folder


def folder_identity(model: Path, metadata: ModelMetadata, reference: Path | None) -> str:
    """Make a text that changes with the content of a model of a folder.

    Args:
        model: folder of the trained model.
        metadata: its metadata after evaluation.
        reference: folder of the refusal reference; None for none.

    Returns:
        SHA-256 in hex digits.
    """
    digest = hashlib.sha256(repr(metadata).encode())
    files = [model / name for name in metadata.files]
    for file in (*files, *([reference / REFERENCE_FILE] if reference else [])):
        if file.is_file():  # a missing file is reported when the model is loaded
            digest.update(file.read_bytes())
    return digest.hexdigest()


def first_with(name: str, folders: Iterable[Path]) -> Path | None:
    """The first folder with a file of that name; None if there is none."""
    return next((folder for folder in folders if (folder / name).is_file()), None)


def _load_folder(
    model: Path,
    metadata: ModelMetadata,
    evaluation: Path | None,
    reference: Path | None,
    load_predictor: LoadPredictor,
) -> ServedModel:
    predictor = load_predictor(model, metadata)
    validation = card_text = None
    if evaluation is not None and (evaluation / PREDICTIONS_FILE).is_file():
        from cxr.tracking.version_record import model_card

        validation = ValidationScores.from_evaluation(evaluation)
        card_text = model_card(metadata, evaluation)
    return ServedModel(
        "", "", predictor, Reference.load(reference) if reference else None, validation, card_text,
        PHANTOM_BANNER if metadata.dataset_kind == "phantom" else None,
    )  # fmt: skip
