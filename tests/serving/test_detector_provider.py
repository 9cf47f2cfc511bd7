"""A detector appears, changes and stays as the registry says; the service never needs one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from cxr.files import NETWORK_FILE
from cxr.images.recipes import apply_recipe
from cxr.serving.alias_watcher import AliasWatcher
from cxr.serving.detector_source import ServedDetector, capture_detector_source
from cxr.serving.model_provider import AliasDetectorProvider
from cxr.steps.predict import Predict
from cxr.tracking.registry_reader import MODEL_PATH
from cxr.tracking.store import Store
from support.small_detector import (
    NAME,
    PATIENTS,
    add_version,
    bright_rectangle,
    detector_network,
    set_detector_alias,
    write_detector,
)
from support.tracking_server import wait_until


def detectors(uri: str, fallback: str | None = None) -> AliasDetectorProvider:
    return AliasDetectorProvider(Store(uri), NAME, "champion", fallback=fallback)


def box_width(detector: ServedDetector | None) -> float:
    """Width of the box around the rectangle."""
    assert detector is not None
    image, _ = bright_rectangle(500, 400)
    ((box,),) = detector.draw_boxes([apply_recipe(detector.recipe, image)], [image.shape])
    return box.width


def test_a_detector_that_is_registered_later_draws_boxes_and_its_successor_replaces_it(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "cxr"):
        provider = detectors(uri)
    assert provider.current is None and provider.problem is None
    assert [record.message for record in caplog.records] == [
        "no version of pneumonia-regions has the alias champion: no boxes are drawn"
    ]
    watcher = AliasWatcher(provider, 0.2)
    watcher.start()
    try:
        set_detector_alias(uri, "champion", add_version(uri, write_detector(tmp_path / "first")))
        wait_until(lambda: provider.current is not None)
        first = provider.current
        assert first is not None and first.version == "1"
        width = bright_rectangle(500, 400)[1][2]
        assert box_width(first) == pytest.approx(width, abs=2)
        set_detector_alias(uri, "champion", add_version(uri, write_detector(tmp_path / "second", box_scale=0.5)))
        wait_until(lambda: provider.current is not first)
    finally:
        watcher.stop()
    assert provider.current is not None and provider.current.version == "2"
    assert box_width(provider.current) == pytest.approx(width / 2, abs=2)


def test_captures_get_the_detector_that_has_the_alias_beside_a_registered_classifier_alone(
    uri: str, tmp_path: Path
) -> None:
    def source_name(regions_name: str | None = NAME, model: Path | None = None) -> str | None:
        step = Predict(files=["x.png"], fallback="challenger", model=model, regions_name=regions_name)
        source = capture_detector_source(Store(uri), step.choice)
        return None if source is None else source.name

    assert source_name() is None, "no detector is registered"
    set_detector_alias(uri, "challenger", add_version(uri, write_detector(tmp_path / "first")))
    assert source_name() == "version 1 of pneumonia-regions"
    assert source_name(regions_name=None) is None and source_name(model=tmp_path) is None


def test_a_version_that_cannot_answer_is_reported_and_never_takes_over(uri: str, tmp_path: Path) -> None:
    for number in ("1", "2"):
        assert add_version(uri, write_detector(tmp_path / number / "detector")) == number
    broken = detector_network()
    layer = broken.get_layer("class_logits")
    layer.set_weights([np.full_like(weights, np.nan) for weights in layer.get_weights()])
    broken.save(tmp_path / "1" / "detector" / "version-1" / MODEL_PATH / NETWORK_FILE)
    set_detector_alias(uri, "champion", "1")
    provider = detectors(uri)
    assert provider.current is None
    assert provider.problem is not None
    assert "version 1" in provider.problem and "finite" in provider.problem and "no boxes" in provider.problem
    set_detector_alias(uri, "champion", "2")
    assert provider.reload()
    assert provider.current is not None and provider.problem is None
    set_detector_alias(uri, "champion", "1")
    assert not provider.reload()
    assert provider.current.version == "2"


def test_the_challenger_draws_boxes_with_a_notice_until_there_is_a_champion(uri: str, tmp_path: Path) -> None:
    set_detector_alias(uri, "challenger", add_version(uri, write_detector(tmp_path, dataset=PATIENTS)))
    assert detectors(uri).current is None
    provider = detectors(uri, fallback="challenger")
    assert provider.current is not None
    assert provider.current.banner == "No champion has been chosen yet: version 1, the challenger, answers."
    set_detector_alias(uri, "champion", "1")
    provider.reload()
    assert (provider.current.alias, provider.current.banner) == ("champion", None)


def test_a_detector_trained_on_phantoms_says_so(uri: str, tmp_path: Path) -> None:
    set_detector_alias(uri, "champion", add_version(uri, write_detector(tmp_path)))
    served = detectors(uri).current
    assert served is not None and served.banner is not None
    assert "trained on drawn phantoms" in served.banner and "nothing about patients" in served.banner
