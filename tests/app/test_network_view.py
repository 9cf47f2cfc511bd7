"""Pictures, figures and words of the page."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from cxr.app.network_view import overlay, treatment
from cxr.app.page_frame import banners, registry_page
from cxr.app.probability_scale import scale
from cxr.app.settings import Settings
from cxr.app.texts import percent
from cxr.app.uploads import PREVIEW, preview
from cxr.images.recipes import RECIPES, recipe_named

GREY = np.full((300, 200), 100, np.uint8)


def heat() -> np.ndarray:
    found = np.zeros(GREY.shape, np.float32)
    found[100:150, 50:100] = 1
    return found


def test_without_opacity_the_film_is_as_it_came():
    assert np.array_equal(overlay(GREY, heat(), 0), np.repeat(GREY[..., None], 3, axis=2))


def test_what_did_not_count_stays_uncovered_and_what_counted_is_covered():
    laid = overlay(GREY, heat(), 1)
    assert (laid[200:, 120:] == 100).all()
    assert np.ptp(laid[125, 75].astype(int)) > 100  # yellow


def test_a_line_goes_round_what_counted_most():
    edge = overlay(GREY, heat(), 0.3)[95:105, 60:90]
    assert (edge == 255).all(axis=-1).any()


def test_a_large_film_is_shown_smaller_in_its_own_shape():
    shown = cv2.imdecode(np.frombuffer(preview(np.zeros((3000, 1500), np.uint8)), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown.shape == (PREVIEW, PREVIEW // 2)


@pytest.mark.parametrize(("share", "words"), [(0, "0.0 %"), (0.0004, "< 0.1 %"), (0.5, "50.0 %"), (0.9996, "> 99.9 %")])
def test_nothing_is_called_certain_that_is_not(share, words):
    assert percent(share) == words


def test_the_scale_tells_screen_readers_where_the_film_stands():
    assert "at 70.0 %, at or above the threshold of 70.0 %" in scale(0.7, 0.7)
    assert "at 69.9 %, below the threshold of 70.0 %" in scale(0.699, 0.7)


def test_what_a_recipe_does_is_told_in_words():
    assert treatment(RECIPES["s2_resize"]) == "Resized to 64 × 64 points."
    assert treatment(RECIPES["s0_clahe_bilateral"]) == (
        "Contrast evened out region by region, noise smoothed, resized to 299 × 299 points."
    )
    assert "edges found" in treatment(recipe_named("s4_resize", canny=True))


def version(**changes):
    return SimpleNamespace(**{"version": "3", "alias": "champion", "banner": None, **changes})


def test_a_champion_has_no_banner_and_any_other_has_one():
    assert banners(version()) == []
    assert banners(version(alias="challenger")) == ["Version 3 answers as challenger: it is not the champion."]
    both = "No champion has been chosen yet: version 3, the challenger, answers."
    assert banners(version(alias="challenger", banner=both)) == [both]
    assert "folder" in banners(version(version="", alias=""))[0]


def test_the_link_to_mlflow_carries_no_password():
    settings = Settings(tracking_uri="https://user:secret@mlflow.example.org/base/", registered_name="a b")
    assert registry_page(settings, version()) == "https://mlflow.example.org/base/#/models/a%20b/versions/3"
    assert registry_page(Settings(), version()) is None
    assert registry_page(settings, version(version="")) is None


def test_settings_survive_the_way_to_the_script():
    settings = Settings(model="a 'b'", log_predictions="ä", max_megapixels=1.5)
    assert Settings.from_text(settings.to_text()) == settings
