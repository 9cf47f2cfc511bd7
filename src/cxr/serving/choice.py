"""The model that is to answer, known by name before its files are loaded: a registered version, or a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cxr.card import ModelCard
from cxr.errors import MissingInputError
from cxr.history import CHAMPION
from cxr.prediction import Predictor
from cxr.serving.served import PHANTOM_BANNER, Served, choose_version, load_version


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


def from_folder(model: Path, evaluation: Path | None = None) -> Choice:
    """Choose a model that lies in a folder, as training or an ensemble left it.

    Args:
        model: folder of the trained model, or of an ensemble's model.
        evaluation: folder of its evaluation, whose card has calibration and threshold; None takes the model's own
            card if it has them, else ``../../evaluations/NAME``.

    Returns:
        The choice; it has no version and no alias.

    Raises:
        MissingInputError: if a file is missing, or the model isn't evaluated.
    """
    card = ModelCard.read(model)
    if evaluation is not None or not card.calibrated:
        card = ModelCard.read(evaluation or model.resolve().parent.parent / "evaluations" / model.resolve().name)
    if not card.calibrated:
        raise MissingInputError(
            f"expected an evaluated model, received model={model} without calibration and threshold; "
            "run `cxr evaluate`, and name its folder as --evaluation"
        )
    found = hashlib.sha256(repr(card).encode())
    for name in card.files:
        if (model / name).is_file():  # loading says in plain words which one is missing
            found.update((model / name).read_bytes())
    banner = PHANTOM_BANNER if card.dataset_kind == "phantom" else None
    return Choice(
        f"the model of {model}", found.hexdigest(), lambda: Served("", "", Predictor.load(model, card), banner)
    )
