"""Where a detector comes from: a version of the registered detector, or a folder. It draws the boxes of opacities."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import MissingInputError, UnknownVersionError
from cxr.files import METADATA_FILE
from cxr.inference.reference.reference import Reference
from cxr.models.metadata import ModelMetadata
from cxr.serving.model_choice import ModelChoice
from cxr.serving.model_folder import evaluation_candidates, find_reference, first_with, folder_identity
from cxr.serving.model_source import (
    ModelSource,
    drawn_image,
    first_alias,
    read_model_card,
    read_version,
    version_source,
)
from cxr.serving.served_model import ServedModel, alias_notice, join_sentences, log_banners
from cxr.tracking.registry_reader import alias_versions
from cxr.tracking.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cxr.images.recipes import Recipe
    from cxr.regions.predictor import RegionPredictor
    from cxr.regions.scoring import ScoredBox

log = logging.getLogger(__name__)

PHANTOM_BOXES_BANNER = (
    "The boxes come from a detector that was trained on drawn phantoms. They say nothing about patients."
)
DETECTOR_REMEDY = (
    "run `cxr register_regions`, take the challenger with --fallback challenger, or give the folder of a detector"
)
"""What to do if no version of the detector has the alias."""
BATCH_SIZE = 16
"""Images per network call."""


@dataclass(frozen=True)
class ServedDetector:
    """A loaded detector. A request takes it once and uses it to its end.

    Attributes:
        version: its number in the registry; empty for a detector from a folder.
        alias: the alias it was loaded for; empty for none.
        predictor: the detector with recipe, threshold and box scale.
        reference: the refusal reference; None in versions without one.
        model_card: its model card, Markdown; None in versions without one.
        banner: the notice that people must see beside the boxes; None for none.
        since: when it began to answer, UTC.
    """

    version: str
    alias: str
    predictor: RegionPredictor
    reference: Reference | None = None
    model_card: str | None = None
    banner: str | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def metadata(self) -> ModelMetadata:
        """The detector's metadata."""
        return self.predictor.metadata

    @property
    def recipe(self) -> Recipe:
        """The recipe that prepares an image for it."""
        return self.predictor.recipe

    def matches(self, classifier: ModelMetadata) -> bool:
        """Whether boxes are shown without a request: both were trained on patients, or both on phantoms.

        Args:
            classifier: metadata of the classifier whose predictions stand beside the boxes.
        """
        return self.metadata.dataset_kind == classifier.dataset_kind

    def draw_boxes(
        self, prepared: Sequence[NDArray[np.uint8]], shapes: Sequence[tuple[int, ...]]
    ) -> list[tuple[ScoredBox, ...]]:
        """Draw the boxes that count.

        Args:
            prepared: images as :attr:`recipe` gives them, ``(size, size, planes)`` uint8.
            shapes: height and width of each original.

        Returns:
            The boxes of each image, by falling score, in pixels of its original.
        """
        from cxr.regions.scoring import draw_boxes

        return draw_boxes(self.predictor, prepared, shapes, batch_size=BATCH_SIZE)


def registered_detector_source(
    store: Store, registered_name: str, *, version: str | None, alias: str, fallback: str | None
) -> ModelSource[ServedDetector]:
    """Find a version of the registered detector.

    Args:
        store: the tracking store.
        registered_name: name of the registered detector.
        version: number of the version; None for the version with the alias.
        alias: the preferred alias.
        fallback: the alias to use if no version has the preferred one; None for none.

    Returns:
        The version, not loaded yet.

    Raises:
        MissingInputError: if there is no such local store.
        RegistryError: if the store does not answer, or no version has the alias.
    """
    return version_source(
        store, registered_name, load_detector, version=version, alias=alias, fallback=fallback, remedy=DETECTOR_REMEDY
    )


def capture_detector_source(store: Store, choice: ModelChoice) -> ModelSource[ServedDetector] | None:
    """Find the detector whose boxes captures show, as :class:`cxr.serving.current_models.CurrentModels` opens it.

    Args:
        store: the tracking store.
        choice: the classifier and the detector.

    Returns:
        The detector, not loaded yet; None if there is none.

    Raises:
        MissingInputError: if a file or the local store does not exist, or the detector is not evaluated.
        RegistryError: if the store does not answer.
    """
    if choice.regions_model is not None:
        return detector_folder_source(choice.regions_model, choice.regions_evaluation, None)
    name, alias = choice.registered_detector, choice.alias
    if name is None:
        return None
    try:
        return registered_detector_source(store, name, version=None, alias=alias, fallback=choice.fallback)
    except UnknownVersionError:
        log.info("no version of %s has the alias %s: no boxes are drawn", name, alias)
        return None


def use_reference_of_classifier(
    source: ModelSource[ServedDetector], store: Store, registered_name: str, *, alias: str, fallback: str | None
) -> ModelSource[ServedDetector]:
    """Let a detector without a refusal reference refuse what the classifier refuses, as page and service do.

    Args:
        source: the detector.
        store: the tracking store.
        registered_name: name of the registered classifier.
        alias: the preferred alias of the classifier.
        fallback: the alias to use if no version has the preferred one; None for none.

    Returns:
        The detector, not loaded yet; it has no reference if no version of the classifier has an alias.

    Raises:
        MissingInputError: if there is no such local store.
        RegistryError: if the store does not answer.
    """
    aliases = alias_versions(store, registered_name)
    chosen = first_alias(aliases, alias, fallback)
    if chosen is None:
        return source
    number = aliases[chosen]

    def load() -> ServedDetector:
        served = source.load()
        if served.reference is not None:
            return served
        return replace(served, reference=read_version(store, registered_name, number, Reference.load))

    return ModelSource(source.name, f"{source.identity} {registered_name} {number}", load)


def load_detector(
    store: Store, registered_name: str, version: str, alias: str, *, preferred_alias: str
) -> ServedDetector:
    """Load a version and check that it answers.

    Args:
        store: the tracking store.
        registered_name: name of the registered detector.
        version: number of the version.
        alias: the alias it was found by; empty if it was named by its number.
        preferred_alias: the alias that was asked for; another one than ``alias`` adds a banner.

    Returns:
        The loaded version.

    Raises:
        RegistryError: if anything is wrong with the version.
    """
    from cxr.images.decoding import decode_grey
    from cxr.regions.predictor import RegionPredictor

    def read(folder: Path) -> ServedDetector:
        predictor = RegionPredictor.load(folder)
        predictor.predict({"drawn": decode_grey(drawn_image())})
        banner = detector_banner(predictor.metadata, version, alias, preferred_alias)
        return ServedDetector(version, alias, predictor, Reference.load(folder), read_model_card(folder), banner)

    served = read_version(store, registered_name, version, read)
    alias_note = f", {alias}" if alias else ""
    log.info("version %s of %s draws boxes (%s%s)", version, registered_name, served.metadata.model, alias_note)
    return served


def detector_banner(metadata: ModelMetadata, version: str, alias: str, preferred_alias: str) -> str | None:
    """Word the notice that people must see beside each box.

    Args:
        metadata: metadata of the detector.
        version: number of the version.
        alias: the alias it was found by.
        preferred_alias: the alias that was asked for.

    Returns:
        One or two sentences; None if there is nothing to say.
    """
    phantom = PHANTOM_BOXES_BANNER if metadata.dataset_kind == "phantom" else None
    return join_sentences(phantom, alias_notice(version, alias, preferred_alias))


def log_capture_banners(served: ServedModel, detector: ServedDetector | None) -> None:
    """Log what people must see beside the predictions and the boxes of captures.

    Args:
        served: the classifier.
        detector: the detector whose boxes captures are to show; None for none.
    """
    log_banners(served)
    if detector is None or detector.matches(served.metadata):
        log_banners(detector)
    else:
        log.warning(
            "captures show no boxes: the detector was trained on %s, the classifier on %s",
            detector.metadata.dataset_kind, served.metadata.dataset_kind,
        )  # fmt: skip


def detector_folder_source(model: Path, evaluation: Path | None, reference: Path | None) -> ModelSource[ServedDetector]:
    """Describe a detector in a folder, as training wrote it.

    Args:
        model: folder of the trained detector.
        evaluation: folder of its evaluation, whose metadata have threshold and box scale. None uses the detector's own
            metadata if they have both, else ``../evaluation`` or ``../../evaluations/NAME``, whichever exists.
        reference: folder of the refusal reference; None uses ``reference`` in one of the three folders above the
            detector's, if one exists: ``artifacts/reference`` for ``artifacts/regions/models/NAME``.

    Returns:
        The detector, not loaded yet. It has no version and no alias.

    Raises:
        MissingInputError: if a file is missing, or the detector is not evaluated.
    """
    metadata, candidates = ModelMetadata.read(model), evaluation_candidates(model)
    evaluation_folder = evaluation or first_with(METADATA_FILE, candidates)
    if evaluation_folder is not None and (evaluation is not None or not metadata.evaluated):
        metadata = ModelMetadata.read(evaluation_folder)
    if metadata.detector is None:
        raise MissingInputError(
            f"expected a detector, received model={model}, which classifies; give a folder that `cxr train_regions` "
            "wrote"
        )
    if not metadata.evaluated:
        searched = " or ".join(map(str, candidates if evaluation is None else [evaluation]))
        raise MissingInputError(
            f"expected an evaluated detector, received model={model} without threshold and box scale there or in "
            f"{searched}; run `cxr evaluate_regions`, and name its folder as the evaluation"
        )
    reference_folder = find_reference(model, reference, levels=3)
    return ModelSource(
        f"the detector of {model}",
        folder_identity(model, metadata, reference_folder),
        lambda: _load_detector_folder(model, metadata, reference_folder),
    )


def _load_detector_folder(model: Path, metadata: ModelMetadata, reference: Path | None) -> ServedDetector:
    from cxr.regions.predictor import RegionPredictor

    predictor = RegionPredictor.load(model, metadata)
    loaded_reference = Reference.load(reference) if reference else None
    return ServedDetector("", "", predictor, loaded_reference, banner=detector_banner(metadata, "", "", ""))
