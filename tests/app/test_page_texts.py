"""Previews, scale, notices and links of the page."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from cxr.app.network_view import describe_recipe
from cxr.app.page_frame import banners, registry_page_url
from cxr.app.probability_scale import scale_html
from cxr.app.settings import AppSettings
from cxr.app.texts import format_percent
from cxr.app.uploads import PREVIEW_SIDE, make_preview
from cxr.images.recipes import RECIPES, recipe_named
from cxr.steps.app import App


def test_a_large_image_is_shown_smaller_with_the_same_ratio_of_sides():
    preview = cv2.imdecode(
        np.frombuffer(make_preview(np.zeros((3000, 1500), np.uint8)), np.uint8), cv2.IMREAD_GRAYSCALE
    )
    assert preview.shape == (PREVIEW_SIDE, PREVIEW_SIDE // 2)


@pytest.mark.parametrize(("share", "text"), [(0, "0.0 %"), (0.0004, "< 0.1 %"), (0.5, "50.0 %"), (0.9996, "> 99.9 %")])
def test_a_share_that_is_not_certain_is_not_written_as_certain(share, text):
    assert format_percent(share) == text


def test_the_scale_has_a_description_for_screen_readers():
    assert "at 70.0 %, at or above the threshold of 70.0 %" in scale_html(0.7, 0.7, None)
    assert "at 69.9 %, below the threshold of 70.0 %" in scale_html(0.699, 0.7, None)


def test_a_recipe_is_described_in_words():
    assert describe_recipe(RECIPES["s2_resize"]) == "Resized to 64 × 64 points."
    assert describe_recipe(RECIPES["s0_clahe_bilateral"]) == (
        "Contrast evened out region by region, noise smoothed, resized to 299 × 299 points."
    )
    assert "edges found" in describe_recipe(recipe_named("s4_resize", canny=True))
    assert describe_recipe(recipe_named("s2_resize", fit="crop")) == (
        "Cut to the square in its middle, resized to 64 × 64 points."
    )
    assert describe_recipe(recipe_named("s2_resize", fit="pad")) == (
        "Resized to fit into 64 × 64 points, black beside it."
    )


def version(**changes):
    return SimpleNamespace(**{"version": "3", "alias": "champion", "banner": None, **changes})


def test_a_champion_has_no_banner_and_any_other_has_one():
    assert banners(version()) == []
    assert banners(version(alias="challenger")) == ["Version 3 answers as challenger: it is not the champion."]
    notice = "No champion has been chosen yet: version 3, the challenger, answers."
    assert banners(version(alias="challenger", banner=notice)) == [notice]
    assert "folder" in banners(version(version="", alias=""))[0]


def test_the_link_to_mlflow_carries_no_password():
    values = {"tracking_uri": "https://user:secret@mlflow.example.org/base/", "registered_name": "a b"}
    settings = App.build(values).settings()
    assert registry_page_url(settings, version()) == "https://mlflow.example.org/base/#/models/a%20b/versions/3"
    assert registry_page_url(App.build({}).settings(), version()) is None
    assert registry_page_url(settings, version(version="")) is None


def test_settings_are_the_same_after_the_way_to_the_script():
    settings = App.build({"model": "a 'b'", "log_predictions": "ä", "max_megapixels": 1.5}).settings()
    assert AppSettings.from_text(settings.to_text()) == settings
