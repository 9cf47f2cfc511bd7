"""The boxes on the page: drawn where they are, scored, named, and never those of phantoms without saying so."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from cxr.app.box_view import describe_boxes
from cxr.app.examples import EXAMPLES
from cxr.app.server import SCRIPT
from cxr.app.service import shared_service
from cxr.models.metadata import ModelMetadata
from cxr.regions.scoring import ScoredBox
from cxr.steps.app import App
from support.chest_models import BACTERIAL, NAME, Versions, write_versions
from support.small_detector import PATIENTS, add_version, set_detector_alias, write_detector

ORANGE = (0xE6, 0x9F, 0x00)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versions]:
    yield write_versions(tmp_path_factory.mktemp("page"))
    shared_service.clear()


def start(monkeypatch: pytest.MonkeyPatch, **values: object) -> AppTest:
    settings = App.build({"seconds": 3600, **values}).settings()
    monkeypatch.setattr(sys, "argv", ["main.py", settings.to_text()])
    return AppTest.from_file(str(SCRIPT), default_timeout=120).run()


def show_example(page: AppTest) -> str:
    """Choose the drawn chest with pneumonia, and read all text."""
    page.button_group[0].set_value([EXAMPLES[1]]).run()
    return text_of(page)


def text_of(page: AppTest) -> str:
    assert not page.exception
    elements = [*page.markdown, *page.warning, *page.error, *page.info, *page.caption, *page.html]
    return "\n".join(str(getattr(element, "value", None) or element.body) for element in elements)


def toggle_labels(page: AppTest) -> list[str]:
    return [toggle.label for toggle in page.toggle]


def test_boxes_of_the_registered_detector_are_shown_at_once(versions, monkeypatch, tmp_path):
    name = "detector-of-phantoms"
    detector = write_detector(tmp_path, threshold=0.01)
    set_detector_alias(versions.uri, "champion", add_version(versions.uri, detector, name=name), name)
    page = start(monkeypatch, tracking_uri=versions.uri, registered_name=NAME, regions_name=name)
    text = show_example(page)
    assert "at or above the detector's threshold of 0.01" in text
    assert "detector small_detector, version 1 of detector-of-phantoms (champion)" in text
    assert "trained on drawn phantoms. They say nothing about patients." in text
    page.toggle[1].set_value(False).run()
    text = text_of(page)
    assert "threshold of 0.01" not in text and "drawn phantoms." not in text


def test_an_image_without_a_box_says_so(versions, monkeypatch, tmp_path):
    name = "strict-detector"
    detector = write_detector(tmp_path, threshold=0.9999)
    set_detector_alias(versions.uri, "champion", add_version(versions.uri, detector, name=name), name)
    page = start(monkeypatch, tracking_uri=versions.uri, registered_name=NAME, regions_name=name)
    assert "No opacity found above the detector's threshold of 1.00." in show_example(page)


def test_without_a_registered_detector_the_page_says_nothing_of_boxes(versions, monkeypatch):
    page = start(monkeypatch, tracking_uri=versions.uri, registered_name=NAME, regions_name="nobody")
    text = show_example(page)
    assert toggle_labels(page) == ["Show what counted for the network (Grad-CAM)"]
    assert "detector" not in text and "boxes" not in text


def test_a_detector_that_is_registered_meanwhile_draws_boxes_on_the_next_visit(versions, monkeypatch, tmp_path):
    name = "late-detector"
    page = start(monkeypatch, tracking_uri=versions.uri, registered_name=NAME, regions_name=name, seconds=0.2)
    show_example(page)
    assert len(page.toggle) == 1
    detector = write_detector(tmp_path, threshold=0.01)
    set_detector_alias(versions.uri, "champion", add_version(versions.uri, detector, name=name), name)
    for _ in range(100):
        if len(page.run().toggle) == 2:
            break
        time.sleep(0.2)
    assert "version 1 of late-detector" in text_of(page)


def test_boxes_of_phantoms_on_films_of_patients_are_shown_on_request_only(versions, monkeypatch, tmp_path):
    trained = shutil.copytree(versions.folders.models / "three_block", tmp_path / "models" / "three_block")
    evaluated = shutil.copytree(versions.folders.evaluations / "three_block", tmp_path / "evaluations" / "three_block")
    for folder in (trained, evaluated):
        metadata = ModelMetadata.read(folder)
        replace(metadata, dataset={**metadata.dataset, "kind": "patients"}).write(folder)
    detector = write_detector(tmp_path / "detector", threshold=0.01)
    page = start(monkeypatch, model=trained, regions_model=detector.trained)
    page.file_uploader[0].set_value([("ill.jpeg", BACTERIAL, "")])
    text = text_of(page.run())
    assert not page.toggle[1].value and "at or above the detector's threshold" not in text
    page.toggle[1].set_value(True).run()
    assert any("trained on drawn phantoms. They say nothing about patients." in each.value for each in page.warning)
    assert "at or above the detector's threshold" in text_of(page) and "from a folder" in text_of(page)


def test_a_detector_of_patients_has_no_notice_of_phantoms(versions, monkeypatch, tmp_path):
    detector = write_detector(tmp_path, threshold=0.01, dataset=PATIENTS)
    page = start(monkeypatch, tracking_uri=versions.uri, registered_name=NAME, regions_model=detector.trained)
    page.button_group[0].set_value([EXAMPLES[1]]).run()
    page.toggle[1].set_value(True).run()
    assert "at or above the detector's threshold" in text_of(page)
    assert "say nothing about patients" not in text_of(page)


def test_boxes_are_described_in_words():
    boxes = [ScoredBox(1, 2, 3, 4, 0.812), ScoredBox(1, 2, 3, 4, 0.4)]
    assert describe_boxes(boxes, 0.35) == "2 boxes at or above the detector's threshold of 0.35, scores 0.81, 0.40."
    assert describe_boxes(boxes[:1], 0.35).startswith("1 box ")
    assert describe_boxes([], 0.35) == "No opacity found above the detector's threshold of 0.35."
