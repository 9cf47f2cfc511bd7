"""Page, service and node keep a classifier and a detector equal to the registry's; those of folders never change."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.serving.alias_watcher import AliasChange
from cxr.serving.current_models import CurrentModels
from cxr.serving.model_choice import ModelChoice
from cxr.steps.serve import Serve
from cxr.tracking.store import Store
from support import small_detector
from support.small_detector import write_detector
from support.tracking_server import wait_until

if TYPE_CHECKING:
    from conftest import Registry


def choice(registry: Registry) -> ModelChoice:
    return replace(Serve().choice, registered_name=registry.name, regions_name=small_detector.NAME)


def test_both_models_follow_their_aliases_until_the_stack_is_closed(registry: Registry, tmp_path: Path) -> None:
    changes: list[tuple[str, AliasChange]] = []
    models = CurrentModels(
        Store(registry.uri), choice(registry), 0.2, on_change=[lambda name, change: changes.append((name, change))]
    )
    assert models.classifier.current.version == "1"
    assert models.detector is not None and models.served_detector is None, "none is registered"
    assert models.registered_names == [registry.name, small_detector.NAME]
    with ExitStack() as stack:
        models.follow_aliases(stack)
        registry.set_alias("champion", "2")
        wait_until(lambda: models.classifier.current.version == "2")
        version = small_detector.add_version(registry.uri, write_detector(tmp_path / "detector"))
        small_detector.set_detector_alias(registry.uri, "champion", version)
        wait_until(lambda: models.served_detector is not None)
    assert changes == [
        (registry.name, AliasChange("champion", "2", "1")),
        (small_detector.NAME, AliasChange("champion", "1", None)),
    ]
    assert not any(thread.name == "watcher" for thread in threading.enumerate())


def test_models_of_folders_follow_nothing(registry: Registry, tmp_path: Path) -> None:
    folders = registry.folders
    of_folder = replace(choice(registry), model=folders.models / "shallow", evaluation=folders.evaluations / "shallow")
    models = CurrentModels(Store(registry.uri), of_folder, 0.2)
    assert models.classifier.current.metadata.model == "shallow"
    assert models.detector is None, "a registered detector stands beside a registered classifier alone"
    assert (models.watchers, models.registered_names, models.registry_unreachable) == ([], [], False)
    written = write_detector(tmp_path / "detector")
    with_boxes = replace(of_folder, regions_model=written.trained, regions_evaluation=written.evaluation)
    assert CurrentModels(Store(registry.uri), with_boxes, 0.2).served_detector is not None
    assert CurrentModels(Store(registry.uri), with_boxes, 0.2, draws_boxes=False).detector is None
