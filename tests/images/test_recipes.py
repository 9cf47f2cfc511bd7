"""Recipes process grey images as their source systems do."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cxr.errors import ParameterError
from cxr.images.recipes import RECIPES, Recipe, apply_recipe, recipe_named, to_network_input

Grey = NDArray[np.uint8]


@pytest.fixture
def chest() -> Grey:
    """Create a grey image with smooth areas, edges and noise, larger than the output of every recipe."""
    generator = np.random.default_rng(3)
    y, x = np.mgrid[0:520, 0:700]
    image = 90 + 60 * np.sin(x / 70) * np.cos(y / 90) + 40 * ((x // 60 + y // 80) % 2)
    return np.clip(image + generator.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def s0_in_three_channels(grey: Grey) -> Grey:
    """Apply the preprocessing of S0 as its authors do: to the three channels of a BGR image."""
    bgr = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    clahe = cv2.createCLAHE(clipLimit=4, tileGridSize=(4, 4))
    bgr = cv2.merge([clahe.apply(channel) for channel in cv2.split(bgr)])
    bgr = cv2.bilateralFilter(bgr, 8, 80, 80)
    return cv2.resize(bgr, (299, 299), interpolation=cv2.INTER_AREA)


def assert_equals_three_channels(grey: Grey) -> None:
    three_channels = s0_in_three_channels(grey).astype(int)
    one_channel = apply_recipe(RECIPES["s0_clahe_bilateral"], grey).astype(int)
    difference = np.abs(three_channels - one_channel)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_s0_on_one_channel_equals_the_three_channel_original(chest: Grey) -> None:
    assert_equals_three_channels(chest)


def test_s0_without_the_third_of_sigma_colour_would_differ(chest: Grey) -> None:
    uncorrected = recipe_named("s0_clahe_bilateral", bilateral_sigma_colour=240.0)
    difference = np.abs(s0_in_three_channels(chest).astype(int) - apply_recipe(uncorrected, chest))
    assert difference.max() > 1


@pytest.mark.real
def test_s0_equals_its_original_on_full_size_radiographs(real_originals: Path) -> None:
    with tarfile.open(real_originals) as archive:
        members = [member for member in archive.getmembers() if member.name.endswith(".jpeg")]
        for member in (members[0], members[-1]):
            file = archive.extractfile(member)
            assert file is not None
            assert_equals_three_channels(cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_GRAYSCALE))


def test_s3_equalises_closes_and_opens_at_full_size(chest: Grey) -> None:
    kernel = np.ones((5, 5), np.uint8)
    expected = cv2.equalizeHist(chest)
    expected = cv2.erode(cv2.dilate(expected, kernel), kernel)
    expected = cv2.dilate(cv2.erode(expected, kernel), kernel)
    expected = cv2.resize(expected, (300, 300), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(apply_recipe(RECIPES["s3_equalise_morphology"], chest)[..., 0], expected)


def test_s3_fills_dark_specks_and_removes_bright_ones() -> None:
    grey = np.tile(np.repeat(np.array([60, 180], np.uint8), 300), (600, 1))
    speckled = grey.copy()
    speckled[100:103, 400:403] = 0
    speckled[300:303, 100:103] = 255
    recipe = recipe_named("s3_equalise_morphology", equalise=False)
    assert np.abs(apply_recipe(recipe, speckled).astype(int) - apply_recipe(recipe, grey)).max() <= 1


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("canny", [False, True])
def test_every_recipe_has_its_size_planes_and_input_shape(name: str, canny: bool, chest: Grey) -> None:
    recipe = recipe_named(name, canny=canny, channels=max(RECIPES[name].channels, 1 + canny))
    original = chest.copy()
    prepared = apply_recipe(recipe, chest)
    assert prepared.shape == (recipe.size, recipe.size, recipe.planes)
    assert prepared.dtype == np.uint8
    np.testing.assert_array_equal(chest, original)
    inputs = to_network_input(prepared[None], recipe)
    assert inputs.shape[1:] == recipe.input_shape
    assert inputs.dtype == np.float32
    assert 0 <= inputs.min() < inputs.max() <= 1


def test_the_recipes_have_the_sizes_and_channels_of_their_source_systems() -> None:
    assert {recipe.system: (recipe.size, recipe.channels) for recipe in RECIPES.values()} == {
        "S0": (299, 3),
        "S1": (64, 3),
        "S2": (64, 1),
        "S3": (300, 3),
        "S4": (224, 3),
    }


def test_shrinking_averages_instead_of_picking_pixels() -> None:
    stripes = np.tile(np.array([0, 200], np.uint8), (1024, 512))
    shrunk = apply_recipe(RECIPES["s2_resize"], stripes)
    assert shrunk.min() >= 99
    assert shrunk.max() <= 101


def test_small_images_are_enlarged_smoothly() -> None:
    ramp = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))
    enlarged = apply_recipe(RECIPES["s4_resize"], ramp)[..., 0].astype(int)
    assert np.diff(enlarged, axis=1).max() <= 3


def test_canny_marks_only_the_outline() -> None:
    grey = np.full((448, 448), 40, np.uint8)
    grey[112:336, 112:336] = 200
    edges = apply_recipe(recipe_named("s4_resize", canny=True), grey)[..., 1]
    assert set(np.unique(edges)) == {0, 255}
    rows, columns = np.nonzero(edges)
    on_outline = np.isin(rows, [55, 56, 57, 166, 167, 168]) | np.isin(columns, [55, 56, 57, 166, 167, 168])
    assert on_outline.all()
    assert len(rows) > 400


def test_the_input_repeats_grey_and_puts_edges_last() -> None:
    images = np.zeros((2, 64, 64, 2), np.uint8)
    images[..., 0], images[..., 1] = 51, 255
    inputs = to_network_input(images, recipe_named("s1_resize", canny=True))
    np.testing.assert_allclose(inputs[0, 0, 0], [0.2, 0.2, 1.0])
    plain = to_network_input(images[..., :1], RECIPES["s1_resize"])
    np.testing.assert_allclose(plain[1, 5, 5], [0.2, 0.2, 0.2])


def test_images_of_another_recipe_are_refused() -> None:
    with pytest.raises(ValueError, match=r"received shape=\(1, 8, 8, 2\)"):
        to_network_input(np.zeros((1, 8, 8, 2), np.uint8), RECIPES["s2_resize"])
    with pytest.raises(ValueError, match="received shape"):
        apply_recipe(RECIPES["s2_resize"], np.zeros((8, 8, 3), np.uint8))


def test_a_recipe_survives_json() -> None:
    recipe = recipe_named("s0_clahe_bilateral", size=128, canny=True)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.name == "s0_clahe_bilateral"


def test_all_wrong_values_of_a_recipe_are_reported_together() -> None:
    with pytest.raises(ParameterError) as caught:
        recipe_named("s2_resize", size=2, canny=True, canny_low=200.0)
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert all(received in text for received in ("size=2", "channels=1", "canny_low=200.0"))


def test_unknown_recipes_and_fields_list_the_choices() -> None:
    with pytest.raises(ParameterError, match=r"s4_resize.*received recipe='s9'"):
        recipe_named("s9")
    with pytest.raises(ParameterError) as caught:
        Recipe.from_dict({"name": "x", "system": "S1", "sise": 64, "channels": 1})
    assert "sise" in str(caught.value)
    assert "field size" in str(caught.value)
