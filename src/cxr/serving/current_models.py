"""The classifier that answers and the detector that draws boxes, kept equal to the registry's: page, service, node."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from cxr.serving.alias_watcher import AliasChange, AliasWatcher
from cxr.serving.detector_source import ServedDetector, detector_folder_source
from cxr.serving.model_choice import ModelChoice
from cxr.serving.model_folder import folder_source
from cxr.serving.model_provider import (
    AliasDetectorProvider,
    AliasModelProvider,
    AliasProvider,
    DetectorProvider,
    FolderDetectorProvider,
    FolderModelProvider,
    ModelProvider,
)
from cxr.serving.model_source import CLASSIFIER_REMEDY, LoadPredictor, find_version, load_with_keras
from cxr.tracking.health import use_short_timeouts
from cxr.tracking.store import Store

log = logging.getLogger(__name__)

ReportChange = Callable[[str, AliasChange], None]
"""Reports that an alias of a registered model, named first, has moved."""


def log_change(registered_name: str, change: AliasChange) -> None:
    """Log that an alias has moved.

    Args:
        registered_name: name of the registered model.
        change: what has moved.
    """
    log.info("%s: %s", registered_name, change)


class CurrentModels:
    """The classifier that answers now, and the detector that draws boxes now, if there is one.

    After :meth:`follow_aliases`, a registered version is exchanged when its alias moves. A model of a folder never
    changes.

    Attributes:
        classifier: gives the classifier.
        detector: gives the detector; None if no boxes are drawn.
        watchers: watch the aliases, that of the classifier first; none for models of folders.
    """

    def __init__(
        self,
        store: Store,
        choice: ModelChoice,
        poll_seconds: float,
        *,
        draws_boxes: bool = True,
        load_predictor: LoadPredictor = load_with_keras,
        on_change: Sequence[ReportChange] = (),
    ) -> None:
        """Load both. A missing classifier is reported before TensorFlow is imported, which takes seconds.

        Args:
            store: the tracking store.
            choice: the classifier and the detector.
            poll_seconds: time between two polls of the aliases, seconds.
            draws_boxes: whether the detector is used.
            load_predictor: loads the classifier, for the runtime that is to compute.
            on_change: called in order for each alias that has moved, before the new version is loaded.

        Raises:
            MissingInputError: if a file or the local store does not exist, or a model of a folder is not evaluated.
            RegistryError: if the store does not answer, or there is no version of the classifier that can answer.
        """
        self.watchers: list[AliasWatcher] = []

        def watch(provider: AliasProvider[Any]) -> None:
            callbacks = [partial(report, provider.registered_name) for report in on_change]
            self.watchers.append(AliasWatcher(provider, poll_seconds, callbacks))

        self.classifier: ModelProvider = _open_classifier(store, choice, load_predictor)
        if isinstance(self.classifier, AliasProvider):
            watch(self.classifier)
        self.detector: DetectorProvider | None = _open_detector(store, choice) if draws_boxes else None
        if isinstance(self.detector, AliasProvider):
            watch(self.detector)

    def follow_aliases(self, stack: ExitStack) -> None:
        """Start to follow the aliases.

        Args:
            stack: ends it when it is closed.
        """
        for watcher in self.watchers:
            watcher.start()
            stack.callback(watcher.stop)

    @property
    def served_detector(self) -> ServedDetector | None:
        """The detector that draws boxes now; None if there is none."""
        return None if self.detector is None else self.detector.current

    @property
    def registered_names(self) -> list[str]:
        """Names of the registered models among them."""
        names = [self.classifier.registered_name, self.detector.registered_name if self.detector is not None else ""]
        return [name for name in names if name]

    @property
    def registry_unreachable(self) -> bool:
        """Whether the last poll of the classifier's alias got no response; False for a model of a folder."""
        return bool(self.watchers) and self.watchers[0].registry_unreachable


def _open_classifier(
    store: Store, choice: ModelChoice, load_predictor: LoadPredictor
) -> FolderModelProvider | AliasModelProvider:
    if choice.model is not None:
        return FolderModelProvider(
            folder_source(choice.model, choice.evaluation, choice.reference, load_predictor).load()
        )
    use_short_timeouts()
    name, alias, fallback = choice.registered_name, choice.alias, choice.fallback
    find_version(store, name, alias, fallback, remedy=CLASSIFIER_REMEDY)
    return AliasModelProvider(store, name, alias, fallback=fallback, load_predictor=load_predictor)


def _open_detector(store: Store, choice: ModelChoice) -> FolderDetectorProvider | AliasDetectorProvider | None:
    if choice.regions_model is not None:
        return FolderDetectorProvider(
            detector_folder_source(choice.regions_model, choice.regions_evaluation, None).load()
        )
    if choice.registered_detector is None:
        return None
    return AliasDetectorProvider(store, choice.registered_detector, choice.alias, fallback=choice.fallback)
