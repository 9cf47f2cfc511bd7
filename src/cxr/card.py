"""The card that travels with a network's weights: everything else that a prediction depends on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cxr.dataset import CLASSES
from cxr.errors import MissingInputError

CARD_NAME = "card.json"
MODEL_NAME = "model.keras"
"""File names inside a model's folder, beside each other."""


@dataclass(frozen=True)
class ModelCard:
    """What a trained network is, kept as ``card.json`` beside ``model.keras``.

    Training writes it without calibration; evaluation completes it with :meth:`completed`.

    Attributes:
        model: the model's name in ``params.yaml``.
        system: source system whose network this is, e.g. ``"S2"``.
        recipe: the image recipe as a dict, as :meth:`cxr.recipes.Recipe.to_dict` gives it.
        input_shape: shape of one network input, ``(height, width, channels)``.
        parameters: number of weights.
        seed: seed of the training run.
        dataset: ``{"name": ..., "kind": "phantom" | "patients"}``, as in the data folder's card.
        data_digest: content version of the images (manifest digest).
        split_protocol: how the images were split, e.g. ``"patients-70-15-15"`` or ``"official"``.
        split_digest: digest of the assignment image -> split.
        data_md5: DVC's hash of the data folder; None where DVC doesn't track it.
        git_commit: commit of the code, with ``-dirty`` when files differed; None outside a checkout.
        training: evidence of the training run: device, framework, driver, seconds, epochs ...
        classes: class names; the index is the training target.
        temperature: calibration temperature T of ``sigmoid(logit(p) / T)``; None before evaluation.
        threshold: calibrated probability at and above which an image is called PNEUMONIA; None before
            evaluation.
        threshold_rule: words for how the threshold was chosen; None before evaluation.
    """

    model: str
    system: str
    recipe: dict[str, Any]
    input_shape: tuple[int, int, int]
    parameters: int
    seed: int
    dataset: dict[str, str]
    data_digest: str
    split_protocol: str
    split_digest: str
    data_md5: str | None = None
    git_commit: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = CLASSES
    temperature: float | None = None
    threshold: float | None = None
    threshold_rule: str | None = None

    @property
    def dataset_kind(self) -> str:
        """``"phantom"`` for drawn images, ``"patients"`` for radiographs of people."""
        return self.dataset["kind"]

    @property
    def calibrated(self) -> bool:
        """Whether evaluation has added temperature and threshold."""
        return self.temperature is not None and self.threshold is not None

    def completed(self, temperature: float, threshold: float, rule: str) -> ModelCard:
        """Add what evaluation chose on the validation images.

        Args:
            temperature: calibration temperature, above 0.
            threshold: operating point on the calibrated probability, 0 to 1.
            rule: words for how the threshold was chosen.

        Returns:
            A new card; this one stays as it is.

        Raises:
            ValueError: if temperature or threshold is out of bounds or not finite.
        """
        if not 0 < temperature < float("inf"):
            raise ValueError(f"expected a temperature above 0, received temperature={temperature!r}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"expected a threshold from 0 to 1, received threshold={threshold!r}")
        return replace(self, temperature=float(temperature), threshold=float(threshold), threshold_rule=rule)

    def write(self, folder: Path) -> Path:
        """Write ``card.json`` so that a reader sees the old card or the new one, never a part.

        Args:
            folder: the model's folder, which must exist.

        Returns:
            The file written.
        """
        path = folder / CARD_NAME
        partial = folder / f".{CARD_NAME}.{os.getpid()}"
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
        return path

    @classmethod
    def read(cls, folder: Path) -> ModelCard:
        """Read the card of a model's folder.

        Args:
            folder: folder that holds ``card.json``.

        Returns:
            The card.

        Raises:
            MissingInputError: if there is no card, or it isn't one of this version.
        """
        path = folder / CARD_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            known = {item.name for item in fields(cls)}
            unknown = sorted(set(values) - known)
            if unknown:
                raise ValueError(f"unknown fields {', '.join(unknown)}")
            values["classes"] = tuple(values["classes"])
            values["input_shape"] = tuple(values["input_shape"])
            return cls(**values)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise MissingInputError(
                f"expected a model card with the fields of ModelCard, received {path}={error!r}; "
                "run `cxr train`, and `cxr evaluate` for the calibrated card"
            ) from error
