"""The page without a browser: its texts, with and without a model that can predict."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from cxr.app.examples import EXAMPLES
from cxr.app.server import SCRIPT
from cxr.app.service import shared_service
from cxr.app.settings import AppSettings
from cxr.app.texts import format_percent
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.steps.app import App
from support import bad_images
from support.chest_models import BACTERIAL, HEALTHY, NAME, Versions, write_versions
from support.dicom_files import dicom_file
from support.model_folders import THRESHOLD, add_prediction_sets, write_store
from support.sweeps import exhaustive


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versions]:
    yield write_versions(tmp_path_factory.mktemp("page"))
    shared_service.clear()


@pytest.fixture(scope="module")
def settings(versions: Versions) -> AppSettings:
    return settings_of(tracking_uri=versions.uri, registered_name=NAME, seconds=3600, max_files=3)


def settings_of(**values: object) -> AppSettings:
    """Settings of the page, with the defaults of the step."""
    return App.build(values).settings()


@pytest.fixture
def page(settings: AppSettings, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    return start(settings, monkeypatch)


def start(settings: AppSettings, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["main.py", settings.to_text()])
    return AppTest.from_file(str(SCRIPT), default_timeout=120).run()


def text_of(page: AppTest) -> str:
    """All text on the page."""
    assert not page.exception
    elements = [*page.markdown, *page.warning, *page.error, *page.info, *page.caption, *page.html]
    return "\n".join(str(getattr(element, "value", None) or element.body) for element in elements)


def upload(page: AppTest, *files: tuple[str, bytes]) -> str:
    page.file_uploader[0].set_value([(name, data, "") for name, data in files])
    return text_of(page.run())


def probability(versions: Versions, data: bytes) -> float:
    folders = versions.folders
    metadata = ModelMetadata.read(folders.evaluations / "three_block")
    return Predictor.load(folders.models / "three_block", metadata).predict([data])[0].probability


def test_a_click_on_an_example_shows_its_prediction(page, versions):
    page.button_group[0].set_value([EXAMPLES[1]]).run()
    text = text_of(page)
    assert "▲ PNEUMONIA" in text
    assert format_percent(probability(versions, BACTERIAL)) in text
    assert "drawn example, not a patient" in text
    assert "For research, not for diagnosis." in text


def test_the_banner_names_phantoms_and_the_version(page):
    assert "Trained on phantoms" in page.warning[0].value
    assert "version 1 (champion), three_block" in text_of(page)


def test_an_uploaded_image_gets_the_prediction_of_the_command_line(page, versions):
    text = upload(page, ("healthy.jpeg", HEALTHY))
    assert "● NORMAL" in text
    assert format_percent(probability(versions, HEALTHY)) in text


def test_the_label_follows_the_threshold_and_its_reset(page, versions):
    upload(page, ("ill.jpeg", BACTERIAL))
    expected = probability(versions, BACTERIAL)
    slider, reset = page.slider[0], page.button[0]
    assert slider.value == pytest.approx(100 * THRESHOLD)
    assert reset.disabled
    slider.set_value(round(100 * expected + 0.1, 1)).run()
    text = text_of(page)
    assert "● NORMAL" in text
    assert format_percent(expected) in text
    assert "moved by hand" in text
    page.button[0].click().run()
    assert "▲ PNEUMONIA" in text_of(page)
    assert page.slider[0].value == pytest.approx(100 * THRESHOLD)


def test_the_effect_of_a_threshold_on_validation_is_shown(page):
    upload(page, ("ill.jpeg", BACTERIAL))
    page.slider[0].set_value(0.0).run()
    text = text_of(page)
    assert "sensitivity 100.0 %" in text
    assert "specificity 0.0 %" in text
    assert "24 validation films" in text


def test_a_letter_gets_no_prediction(page):
    page.button_group[0].set_value([EXAMPLES[3]]).run()
    text = text_of(page)
    assert "No answer" in page.error[0].value
    assert "calibrated probability of pneumonia" not in text
    assert not page.slider


def test_a_file_that_cannot_be_read_is_explained(page, tmp_path):
    bad_images.truncated(tmp_path / "cut.jpeg")
    bad_images.bomb(tmp_path / "huge.png")
    for name, reason in (("cut.jpeg", "it ends too early"), ("huge.png", "larger than this page takes")):
        assert reason in upload(page, (name, (tmp_path / name).read_bytes())), name
    assert "it is no JPEG, PNG or DICOM picture" in upload(page, ("notes.txt", b"no picture at all"))


def test_a_file_name_is_text_and_never_markup(page):
    text = upload(page, ("<b onclick=alert(1)>**x**.jpeg", HEALTHY))
    assert "&lt;b onclick=alert(1)&gt;**x**.jpeg" in text
    assert "<b onclick" not in text


def test_of_too_many_files_the_first_are_predicted_with_a_notice(page):
    text = upload(page, *[(f"{number}.jpeg", HEALTHY) for number in range(5)])
    assert "5 files are too many at once: the first 3 are answered" in text
    assert list(page.dataframe[0].value["File"]) == ["0.jpeg", "1.jpeg", "2.jpeg"]


def test_the_views_of_an_image_are_shown_one_after_the_other(page):
    upload(page, ("ill.jpeg", BACTERIAL))
    page.toggle[0].set_value(True).run()
    assert "what raised the probability most" in text_of(page)
    assert page.slider[1].label.startswith("Opacity")


def test_a_missing_store_is_reported_and_can_be_tried_again(monkeypatch, tmp_path):
    without_store = settings_of(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", registered_name="others")
    page = start(without_store, monkeypatch)
    assert "No model can answer at the moment" in text_of(page)
    assert not page.file_uploader
    write_store(tmp_path)
    page.button[0].click().run()
    assert "expected a version of others with the alias champion or challenger" in text_of(page)


def test_without_a_champion_the_challenger_predicts_with_a_notice(settings, versions, monkeypatch):
    versions.set_alias("second", "2")
    choice = replace(settings.choice, alias="nobody", fallback="second")
    page = start(replace(settings, choice=choice), monkeypatch)
    assert "No nobody has been chosen yet: version 2, the second, answers." in page.warning[0].value


def test_another_alias_than_champion_is_named(settings, versions, monkeypatch):
    versions.set_alias("challenger", "2")
    choice = replace(settings.choice, alias="challenger", fallback=None)
    page = start(replace(settings, choice=choice), monkeypatch)
    assert "Version 2 answers as challenger: it is not the champion." in page.warning[0].value


def test_a_model_of_a_folder_predicts_and_is_named_as_no_version(versions, monkeypatch):
    page = start(settings_of(model=versions.folders.models / "three_block"), monkeypatch)
    assert "This model comes from a folder" in page.warning[0].value
    assert "▲ PNEUMONIA" in upload(page, ("ill.jpeg", BACTERIAL))


@pytest.mark.parametrize("neither", [True, *exhaustive(False)])
def test_a_model_with_prediction_sets_says_uncertain_wherever_the_threshold_is(
    versions, monkeypatch, tmp_path, neither
):
    trained = shutil.copytree(versions.folders.models / "three_block", tmp_path / "models" / "three_block")
    evaluated = shutil.copytree(versions.folders.evaluations / "three_block", tmp_path / "evaluations" / "three_block")
    ill = probability(versions, BACTERIAL)
    above, below = (ill + 1) / 2, ill / 2
    add_prediction_sets(evaluated, *((below, above) if neither else (above, below)))
    page = start(settings_of(model=trained), monkeypatch)
    text = upload(page, ("ill.jpeg", BACTERIAL))
    assert "◆ UNCERTAIN" in text and "▲ PNEUMONIA" not in text
    assert ("Neither NORMAL nor PNEUMONIA fits" if neither else "Both NORMAL and PNEUMONIA fit") in text
    assert "at least 95 % fit their own class" in text
    assert f"From {format_percent(below)} to {format_percent(above)} films are uncertain" in text.replace("&gt;", ">")
    assert format_percent(ill) in text
    page.slider[0].set_value(0.0).run()
    text = text_of(page)
    assert "◆ UNCERTAIN" in text and "the label does not follow it" in text
    add_prediction_sets(evaluated, below, ill)
    shared_service.clear()
    text = upload(start(settings_of(model=trained), monkeypatch), ("ill.jpeg", BACTERIAL))
    assert "▲ PNEUMONIA" in text and "Only PNEUMONIA fits this film" in text


def test_a_model_of_radiographs_warns_about_drawings(versions, monkeypatch, tmp_path):
    trained = shutil.copytree(versions.folders.models / "three_block", tmp_path / "models" / "three_block")
    evaluated = shutil.copytree(versions.folders.evaluations / "three_block", tmp_path / "evaluations" / "three_block")
    for folder in (trained, evaluated):
        metadata = ModelMetadata.read(folder)
        replace(metadata, dataset={**metadata.dataset, "kind": "patients"}).write(folder)
    page = start(settings_of(model=trained), monkeypatch)
    page.button_group[0].set_value([EXAMPLES[1]]).run()
    assert "What it says of a drawing means nothing" in page.info[0].value
    page.button_group[0].set_value([]).run()
    assert "drawing" not in upload(page, ("ill.jpeg", BACTERIAL))


def test_an_unusual_file_is_answered_with_a_warning(page, settings, monkeypatch):
    grey = cv2.imdecode(np.frombuffer(HEALTHY, np.uint8), cv2.IMREAD_GRAYSCALE)
    text = upload(page, ("film", dicom_file(grey, Modality="DR")))
    assert "● NORMAL" in text
    assert "does not name a modality of radiographs that the standard knows" in text
    deep = bad_images.png(grey.astype(np.uint16) * 16)
    assert "more than 8 bits of grey" in upload(page, ("film.png", deep))
    scaling = start(replace(settings, scale_16_bit=True), monkeypatch)
    text = upload(scaling, ("film.png", deep))
    assert "● NORMAL" in text and "Its darkest value is shown black" in text


def test_a_service_that_is_released_asks_the_registry_no_more(settings):
    others = set(threading.enumerate())
    own = replace(settings, seconds=1800)
    shared_service(own)
    watchers = [thread for thread in threading.enumerate() if thread.name == "watcher" and thread not in others]
    assert watchers
    shared_service.clear(own)
    assert not any(thread.is_alive() for thread in watchers)
