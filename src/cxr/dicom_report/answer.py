"""One answer of a model, as a report gives it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cxr.inference.checked_prediction import PredictionResult

if TYPE_CHECKING:
    from cxr.models.metadata import ModelMetadata

NOTICE = "For research. Not for diagnosis."
"""Stands in each report and in each capture."""


@dataclass(frozen=True)
class ReportedModel:
    """A model that answers, or a detector that draws boxes.

    Attributes:
        name: its name in ``params.yaml``.
        version: number in the registry; None for a model of a folder.
        registered_name: name of the registered model; None for a model of a folder.
        recipe: name of the recipe that prepares its images.
        card_digest: digest of its metadata, 16 hexadecimal digits: two models differ in it, also where neither has a
            version.
        dataset: name of the data set that it was trained on.
        banner: notice that people must see beside each prediction, or beside the boxes; None for none.
    """

    name: str
    version: str | None
    registered_name: str | None
    recipe: str
    card_digest: str
    dataset: str
    banner: str | None = None

    @classmethod
    def of(
        cls, metadata: ModelMetadata, *, version: str | None, registered_name: str | None, banner: str | None
    ) -> ReportedModel:
        """Describe a model.

        Args:
            metadata: its metadata.
            version: number in the registry; None for a model of a folder.
            registered_name: name of the registered model; it counts only with a version.
            banner: notice that people must see beside each prediction; None for none.

        Returns:
            The description.
        """
        card = json.dumps(asdict(metadata), sort_keys=True, default=str)
        return cls(
            metadata.model,
            version,
            registered_name if version is not None else None,
            str(metadata.recipe["name"]),
            hashlib.sha256(card.encode()).hexdigest()[:16],
            metadata.dataset["name"],
            banner,
        )

    @property
    def version_text(self) -> str:
        """The version with what it is a version of, for people."""
        if self.version is None:
            return f"{self.name}, card {self.card_digest}"
        return f"{self.registered_name} version {self.version}"


@dataclass(frozen=True)
class ReportedAnswer:
    """One answer: a prediction, or the reason why there is none.

    Attributes:
        model: the model.
        answered_at: when it answered, with a time zone.
        probability: calibrated probability of pneumonia, 0 to 1; None without a prediction.
        threshold: operating point on the probability, 0 to 1; None without a prediction.
        label: ``"PNEUMONIA"``, ``"NORMAL"`` or ``"UNCERTAIN"``; None without a prediction.
        refusal_reason: key of the reason or of the problem, such as ``"no_chest_film"``; None with a prediction.
        refusal_text: sentence for people; None with a prediction.
        detector: the detector whose boxes the capture shows; None for none.
    """

    model: ReportedModel
    answered_at: datetime
    probability: float | None = None
    threshold: float | None = None
    label: str | None = None
    refusal_reason: str | None = None
    refusal_text: str | None = None
    detector: ReportedModel | None = None

    @classmethod
    def of(cls, result: PredictionResult, model: ReportedModel, answered_at: datetime) -> ReportedAnswer:
        """Take what a model said of an image.

        Args:
            result: prediction or refusal.
            model: the model.
            answered_at: when it answered, with a time zone.

        Returns:
            The answer.
        """
        prediction, refusal = result.prediction, result.refusal
        if prediction is not None:
            return cls(model, answered_at, prediction.probability, prediction.threshold, prediction.label)
        if refusal is not None:
            return cls(model, answered_at, refusal_reason=refusal.kind, refusal_text=refusal.detail)
        return cls(model, answered_at, refusal_reason="no_answer", refusal_text="the model gave no probability")
