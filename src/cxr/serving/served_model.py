"""A loaded model that answers, and the notice that people must see beside its answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol, TypeVar

from cxr.evaluation.validation_scores import ValidationScores
from cxr.images.strict_decoding import DecodedImage
from cxr.inference.checked_prediction import PredictionResult, check_and_predict
from cxr.inference.predictor import Predictor
from cxr.inference.reference.reference import Reference
from cxr.models.metadata import ModelMetadata

log = logging.getLogger(__name__)

PHANTOM_BANNER = "Trained on phantoms: drawn images, not patients. Never for use on people."


@dataclass(frozen=True)
class ServedModel:
    """A loaded model. A request takes it once and uses it to its end, even if another version is loaded meanwhile.

    Attributes:
        version: its number in the registry; empty for a model from a folder.
        alias: the alias it was loaded for; empty for none.
        predictor: the network with recipe, calibration and threshold.
        reference: the refusal reference; None in versions without one, which answer for every image.
        validation: its scores on the validation images; None in versions without them.
        model_card: its model card, Markdown; None in versions without one.
        banner: the notice that people must see beside each prediction; None for none.
        since: when it began to answer, UTC.
    """

    version: str
    alias: str
    predictor: Predictor
    reference: Reference | None = None
    validation: ValidationScores | None = None
    model_card: str | None = None
    banner: str | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def metadata(self) -> ModelMetadata:
        """The model's metadata."""
        return self.predictor.metadata

    def predict(self, images: Sequence[DecodedImage]) -> list[PredictionResult]:
        """Predict images, and refuse those that do not look like chest radiographs.

        Args:
            images: the decoded images.

        Returns:
            One result per image, in order.

        Raises:
            ImageError: ``unsuitable``, if a recipe cannot process an image.
        """
        return check_and_predict(self.predictor, self.reference, images)


class ServedVersion(Protocol):
    """What is known of every loaded version: a :class:`ServedModel` or a :class:`ServedDetector`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def version(self) -> str:
        """Its number in the registry; empty for a model from a folder."""

    @property
    def alias(self) -> str:
        """The alias it was loaded for; empty for none."""

    @property
    def banner(self) -> str | None:
        """The notice that people must see; None for none."""

    @property
    def metadata(self) -> ModelMetadata:
        """Its metadata."""


ServedT = TypeVar("ServedT", bound=ServedVersion)


def version_banner(metadata: ModelMetadata, version: str, alias: str, preferred_alias: str) -> str | None:
    """Word the notice that people must see beside each prediction.

    Args:
        metadata: metadata of the model.
        version: number of the version.
        alias: the alias it was found by.
        preferred_alias: the alias that was asked for.

    Returns:
        One or two sentences; None if there is nothing to say.
    """
    phantom = PHANTOM_BANNER if metadata.dataset_kind == "phantom" else None
    return join_sentences(phantom, alias_notice(version, alias, preferred_alias))


def alias_notice(version: str, alias: str, preferred_alias: str) -> str | None:
    """Say that a version answers by another alias than the preferred one; None if it does not."""
    if alias == preferred_alias:
        return None
    return f"No {preferred_alias} has been chosen yet: version {version}, the {alias}, answers."


def join_sentences(*sentences: str | None) -> str | None:
    """Join the sentences that there are; None if there is none."""
    return " ".join(sentence for sentence in sentences if sentence) or None


def log_banners(*versions: ServedVersion | None) -> None:
    """Log the notices that people must see.

    Args:
        versions: loaded classifiers and detectors; None where there is none.
    """
    for version in versions:
        if version is not None and version.banner:
            log.warning("%s", version.banner)
