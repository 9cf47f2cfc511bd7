"""Opens the classifier and the detector that a service starts with: of a folder, or the version that has an alias."""

from __future__ import annotations

from pathlib import Path

from cxr.serving.detector_source import detector_folder_source
from cxr.serving.model_folder import folder_source
from cxr.serving.model_provider import (
    AliasDetectorProvider,
    AliasModelProvider,
    FolderDetectorProvider,
    FolderModelProvider,
)
from cxr.serving.model_source import CLASSIFIER_REMEDY, LoadPredictor, find_version, load_with_keras
from cxr.tracking.health import use_short_timeouts
from cxr.tracking.store import Store


def open_classifier(
    store: Store,
    *,
    registered_name: str,
    alias: str,
    fallback: str | None,
    model: Path | None,
    evaluation: Path | None,
    reference: Path | None,
    load_predictor: LoadPredictor = load_with_keras,
) -> FolderModelProvider | AliasModelProvider:
    """Load the classifier. A missing one is reported before TensorFlow is imported, which takes seconds.

    Args:
        store: the tracking store.
        registered_name: name of the registered model.
        alias: the preferred alias.
        fallback: the alias to use, with a banner, until a version gets ``alias``; None for none.
        model: folder of a trained model, instead of a registered version; None for none.
        evaluation: folder of its evaluation; None to find it.
        reference: folder of its refusal reference; None to find it.
        load_predictor: loads the classifier, for the runtime that is to compute.

    Returns:
        The provider; nothing follows the alias yet.

    Raises:
        MissingInputError: if a file or the local store does not exist, or the model is not evaluated.
        RegistryError: if the store does not answer, no version has the alias, or the version cannot be loaded.
    """
    if model is not None:
        return FolderModelProvider(folder_source(model, evaluation, reference, load_predictor).load())
    use_short_timeouts()
    find_version(store, registered_name, alias, fallback, remedy=CLASSIFIER_REMEDY)
    return AliasModelProvider(store, registered_name, alias, fallback=fallback, load_predictor=load_predictor)


def open_detector(
    store: Store,
    *,
    regions_name: str | None,
    alias: str,
    fallback: str | None,
    model: Path | None,
    regions_model: Path | None,
    regions_evaluation: Path | None,
) -> FolderDetectorProvider | AliasDetectorProvider | None:
    """Load the detector that draws boxes beside the classifier's predictions, if there is one.

    Args:
        store: the tracking store.
        regions_name: name of the registered detector; None for none.
        alias: the preferred alias.
        fallback: the alias to use, with a banner, until a version gets ``alias``; None for none.
        model: folder of the classifier; None if it is a registered version. Only such a one has a registered detector.
        regions_model: folder of a trained detector, instead of a registered version; None for none.
        regions_evaluation: folder of its evaluation; None to find it.

    Returns:
        The provider; nothing follows the alias yet. None without a detector.

    Raises:
        MissingInputError: if a file or the local store does not exist, or the detector is not evaluated.
        RegistryError: if the store does not answer.
    """
    if regions_model is not None:
        return FolderDetectorProvider(detector_folder_source(regions_model, regions_evaluation, None).load())
    if model is not None or regions_name is None:
        return None
    return AliasDetectorProvider(store, regions_name, alias, fallback=fallback)
