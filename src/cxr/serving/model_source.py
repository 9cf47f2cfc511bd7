"""The model that is to answer, known by name before its files are loaded: a registered version, or a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cxr.errors import MissingInputError
from cxr.evaluation.validation_scores import ValidationScores
from cxr.files import METADATA_FILE, REFERENCE_FILE
from cxr.inference.predictor import Predictor
from cxr.inference.reference.reference import Reference
from cxr.models.metadata import EVALUATION_FOLDER, ModelCard
from cxr.promotion.log import CHAMPION
from cxr.serving.model_provider import PHANTOM_BANNER, Served, choose_version, load_version
from cxr.tracking.version_record import model_card

REFERENCE = "reference"
"""Folder beside those of the models, as the pipeline leaves it."""


@dataclass(frozen=True)
class Choice:
    """A model that is to answer.

    Attributes:
        name: for messages.
        identity: text that is another one whenever the model could answer otherwise.
        load: loads it; raises RegistryError or MissingInputError if it cannot answer.
    """

    name: str
    identity: str
    load: Callable[[], Served]


def registered(
    uri: str, registered_name: str, *, version: str | None = None, alias: str = CHAMPION, fallback: str | None = None
) -> Choice:
    """Choose a version of the registered model.

    Args:
        uri: address of the store.
        registered_name: name of the registered model.
        version: its number; None for the one with the alias.
        alias: the wanted alias.
        fallback: alias to take while nobody has the wanted one; None for none.

    Returns:
        The choice.

    Raises:
        MissingInputError: if there is no such local store.
        RegistryError: if the store doesn't answer, or nobody has the alias.
    """
    if version is not None:
        number, found_by, wanted = version, "", ""
    else:
        (number, found_by), wanted = choose_version(uri, registered_name, alias, fallback), alias
    return Choice(
        f"version {number} of {registered_name}",
        f"{uri} {registered_name} {number} {found_by}",
        lambda: load_version(uri, registered_name, number, found_by, wanted=wanted),
    )


def from_folder(model: Path, evaluation: Path | None = None, reference: Path | None = None) -> Choice:
    """Choose a model that lies in a folder, as training or an ensemble left it.

    Args:
        model: folder of the trained model, or of an ensemble's model.
        evaluation: folder of its evaluation, whose card has calibration and threshold; None takes the model's own
            card if it has them, else ``../evaluation`` or ``../../evaluations/NAME``, whichever is there.
        reference: folder of the reference; None takes ``../reference`` or ``../../reference`` of the model, if one is
            there.

    Returns:
        The choice; it has no version and no alias.

    Raises:
        MissingInputError: if a file is missing, or the model isn't evaluated.
    """
    card, here = ModelCard.read(model), model.resolve()
    beside = [here.parent / EVALUATION_FOLDER, here.parent.parent / "evaluations" / here.name]
    judged = evaluation or next((folder for folder in beside if (folder / METADATA_FILE).is_file()), None)
    looked = " or ".join(map(str, beside if evaluation is None else [evaluation]))
    if judged is not None and (evaluation is not None or not card.calibrated):
        card = ModelCard.read(judged)
    if not card.calibrated:
        raise MissingInputError(
            f"expected an evaluated model, received model={model} without calibration and threshold there or in "
            f"{looked}; run `cxr evaluate`, and name its folder as --evaluation"
        )
    known = reference or next(
        (one for one in (here.parent / REFERENCE, here.parent.parent / REFERENCE) if (one / REFERENCE_FILE).is_file()),
        None,
    )
    if known is not None and not (known / REFERENCE_FILE).is_file():
        raise MissingInputError(
            f"expected a reference, received {known / REFERENCE_FILE} (no such file); run `cxr reference`"
        )
    found = hashlib.sha256(repr(card).encode())
    for path in (*(model / name for name in card.files), *((known / REFERENCE_FILE,) if known else ())):
        if path.is_file():  # loading says in plain words which one is missing
            found.update(path.read_bytes())
    return Choice(f"the model of {model}", found.hexdigest(), lambda: _load(model, card, judged, known))


def _load(model: Path, card: ModelCard, judged: Path | None, known: Path | None) -> Served:
    predictor = Predictor.load(model, card)
    validation = about = None
    if judged is not None and (judged / "predictions.parquet").is_file():
        validation = ValidationScores.of_evaluation(judged)
        about = model_card(card, judged)
    reference = Reference.load(known) if known else None
    banner = PHANTOM_BANNER if card.dataset_kind == "phantom" else None
    return Served("", "", predictor, reference, validation, about, banner)
