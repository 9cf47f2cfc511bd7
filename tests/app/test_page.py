"""The page without a browser: what it says, whoever answers or doesn't."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from cxr.app.examples import EXAMPLES
from cxr.app.server import SCRIPT
from cxr.app.service import opened
from cxr.app.settings import Settings
from cxr.app.texts import percent
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelCard
from support import bad_images
from support.chest_models import BACTERIAL, HEALTHY, NAME, Versions, write_versions
from support.model_folders import THRESHOLD, write_store


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versions]:
    yield write_versions(tmp_path_factory.mktemp("page"))
    opened.clear()


@pytest.fixture(scope="module")
def settings(versions: Versions) -> Settings:
    return Settings(tracking_uri=versions.uri, registered_name=NAME, seconds=3600, max_files=3)


@pytest.fixture
def page(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    return start(settings, monkeypatch)


def start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["main.py", settings.to_text()])
    return AppTest.from_file(str(SCRIPT), default_timeout=120).run()


def said(page: AppTest) -> str:
    """Everything that stands on the page."""
    assert not page.exception
    found = [*page.markdown, *page.warning, *page.error, *page.info, *page.caption, *page.html]
    return "\n".join(str(getattr(element, "value", None) or element.body) for element in found)


def upload(page: AppTest, *files: tuple[str, bytes]) -> str:
    page.file_uploader[0].set_value([(name, data, "") for name, data in files])
    return said(page.run())


def probability(versions: Versions, data: bytes) -> float:
    folders = versions.folders
    card = ModelCard.read(folders.evaluations / "three_block")
    return Predictor.load(folders.models / "three_block", card).predict([data])[0].probability


def test_a_newcomer_clicks_an_example(page, versions):
    page.button_group[0].set_value([EXAMPLES[1]]).run()
    shown = said(page)
    assert "▲ PNEUMONIA" in shown
    assert percent(probability(versions, BACTERIAL)) in shown
    assert "drawn example, not a patient" in shown
    assert "For research, not for diagnosis." in shown


def test_the_banner_tells_of_phantoms_and_the_version_that_answers(page):
    assert "Trained on phantoms" in page.warning[0].value
    assert "version 1 (champion), three_block" in said(page)


def test_an_uploaded_film_gets_the_answer_of_the_command_line(page, versions):
    shown = upload(page, ("healthy.jpeg", HEALTHY))
    assert "● NORMAL" in shown
    assert percent(probability(versions, HEALTHY)) in shown


def test_the_label_follows_the_threshold_and_goes_back_with_it(page, versions):
    upload(page, ("ill.jpeg", BACTERIAL))
    found = probability(versions, BACTERIAL)
    slider, back = page.slider[0], page.button[0]
    assert slider.value == pytest.approx(100 * THRESHOLD)
    assert back.disabled
    slider.set_value(round(100 * found + 0.1, 1)).run()
    shown = said(page)
    assert "● NORMAL" in shown
    assert percent(found) in shown
    assert "moved by hand" in shown
    page.button[0].click().run()
    assert "▲ PNEUMONIA" in said(page)
    assert page.slider[0].value == pytest.approx(100 * THRESHOLD)


def test_a_threshold_says_what_it_finds_on_validation(page):
    upload(page, ("ill.jpeg", BACTERIAL))
    page.slider[0].set_value(0.0).run()
    shown = said(page)
    assert "sensitivity 100.0 %" in shown
    assert "specificity 0.0 %" in shown
    assert "24 validation films" in shown


def test_a_letter_gets_no_answer(page):
    page.button_group[0].set_value([EXAMPLES[3]]).run()
    shown = said(page)
    assert "No answer" in page.error[0].value
    assert "calibrated probability of pneumonia" not in shown
    assert not page.slider


def test_a_file_that_cannot_be_read_is_told_in_plain_words(page, tmp_path):
    bad_images.truncated(tmp_path / "cut.jpeg")
    bad_images.bomb(tmp_path / "huge.png")
    for name, words in (("cut.jpeg", "it ends too early"), ("huge.png", "larger than this page takes")):
        assert words in upload(page, (name, (tmp_path / name).read_bytes())), name
    assert "it is no JPEG, PNG or DICOM picture" in upload(page, ("notes.txt", b"no picture at all"))


def test_a_name_is_text_and_never_markup(page):
    shown = upload(page, ("<b onclick=alert(1)>**x**.jpeg", HEALTHY))
    assert "&lt;b onclick=alert(1)&gt;**x**.jpeg" in shown
    assert "<b onclick" not in shown


def test_too_many_files_are_told_and_the_first_are_answered(page):
    shown = upload(page, *[(f"{number}.jpeg", HEALTHY) for number in range(5)])
    assert "5 files are too many at once: the first 3 are answered" in shown
    assert list(page.dataframe[0].value["File"]) == ["0.jpeg", "1.jpeg", "2.jpeg"]


def test_the_pictures_of_a_film_are_looked_at_one_after_the_other(page):
    upload(page, ("ill.jpeg", BACTERIAL))
    page.toggle[0].set_value(True).run()
    assert "what raised the probability most" in said(page)
    assert page.slider[1].label.startswith("Opacity")


def test_a_visitor_is_told_of_a_store_that_is_not_there_and_may_try_again(settings, versions, monkeypatch, tmp_path):
    absent = replace(settings, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", registered_name="others")
    page = start(absent, monkeypatch)
    assert "No model can answer at the moment" in said(page)
    assert not page.file_uploader
    write_store(tmp_path)
    page.button[0].click().run()
    assert "expected a version of others with the alias champion or challenger" in said(page)


def test_without_a_champion_the_challenger_answers_under_a_banner(settings, versions, monkeypatch):
    versions.give("second", "2")
    page = start(replace(settings, alias="nobody", fallback="second"), monkeypatch)
    assert "No nobody has been chosen yet: version 2, the second, answers." in page.warning[0].value


def test_another_alias_than_champion_is_told(settings, versions, monkeypatch):
    versions.give("challenger", "2")
    page = start(replace(settings, alias="challenger", fallback=None), monkeypatch)
    assert "Version 2 answers as challenger: it is not the champion." in page.warning[0].value


def test_a_model_of_a_folder_answers_and_says_that_it_is_no_version(versions, monkeypatch):
    page = start(Settings(model=str(versions.folders.models / "three_block")), monkeypatch)
    assert "This model comes from a folder" in page.warning[0].value
    assert "▲ PNEUMONIA" in upload(page, ("ill.jpeg", BACTERIAL))


def test_of_a_drawing_a_model_of_radiographs_says_nothing_that_counts(versions, monkeypatch, tmp_path):
    trained = shutil.copytree(versions.folders.models / "three_block", tmp_path / "models" / "three_block")
    judged = shutil.copytree(versions.folders.evaluations / "three_block", tmp_path / "evaluations" / "three_block")
    for folder in (trained, judged):
        card = ModelCard.read(folder)
        replace(card, dataset={**card.dataset, "kind": "patients"}).write(folder)
    page = start(Settings(model=str(trained)), monkeypatch)
    page.button_group[0].set_value([EXAMPLES[1]]).run()
    assert "What it says of a drawing means nothing" in page.info[0].value
    page.button_group[0].set_value([]).run()
    assert "drawing" not in upload(page, ("ill.jpeg", BACTERIAL))
