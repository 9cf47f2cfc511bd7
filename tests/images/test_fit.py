"""How an image that is not square becomes square: stretched, filled up with black, or cut to its central square."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cxr.errors import ParameterError
from cxr.images.decoding import decode_grey
from cxr.images.prepared import PreparedImages
from cxr.images.recipes import RECIPES, Recipe, apply_recipe, recipe_named
from cxr.inference.checked_prediction import check_image
from cxr.inference.image_input import decode_input
from cxr.inference.predictor import Predictor
from cxr.steps.preprocess import Preprocess
from support.trained_models import train_small_model

Grey = NDArray[np.uint8]
RECIPE_FILES = {
    "s0_clahe_bilateral": "b1ad706b643d3c44787508634db91e4a5ca2223376442dd36775681911f1a8d9",
    "s1_resize": "a624284f59ce9942b74cdf08a0999b1f4f7a9d9c4085d7e6cd06eba06fad0ace",
    "s2_resize": "3762d92d024357416f6177d4aed7d8df5162c9acdc861ad99a262a879d481ea5",
    "s3_equalise_morphology": "60a85066a1cad333abd38f0c846d01c573ca4bc2f7d1fc6b1608b2cf2dc3fead",
    "s4_resize": "a0beeeb06e28877498005f88074f7d06d555d7dad279db4554a02eeee728ff56",
}
"""SHA-256 of ``recipe.json`` from before there was a choice of fit."""


def disc(height: int, width: int) -> Grey:
    """A white disc in the middle of a black image."""
    grey = np.zeros((height, width), np.uint8)
    cv2.circle(grey, (width // 2, height // 2), min(height, width) // 3, 255, -1, cv2.LINE_AA)
    return grey


def width_to_height(image: Grey) -> float:
    """Ratio of the spreads of brightness across and down: 1 for a disc."""
    moments = cv2.moments(image)
    return float(np.sqrt(moments["mu20"] / moments["mu02"]))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("shape", [(500, 700), (900, 410), (331, 332)])
def test_a_disc_stays_one_unless_it_is_squashed(name: str, shape: tuple[int, int]) -> None:
    grey = disc(*shape)
    for fit in ("pad", "crop"):
        prepared = apply_recipe(recipe_named(name, fit=fit, equalise=False, clahe_clip=0.0), grey)
        assert prepared.shape == (RECIPES[name].size,) * 2 + (1,)
        assert width_to_height(prepared[..., 0]) == pytest.approx(1, abs=0.03), fit
    squashed = apply_recipe(recipe_named(name, equalise=False, clahe_clip=0.0), grey)
    assert width_to_height(squashed[..., 0]) == pytest.approx(shape[0] / shape[1], rel=0.03)


@pytest.mark.parametrize("name", RECIPES)
def test_a_square_image_is_prepared_alike_by_each(name: str) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (320, 320)).astype(np.uint8)
    squashed = apply_recipe(RECIPES[name], grey)
    for fit in ("pad", "crop"):
        np.testing.assert_array_equal(apply_recipe(recipe_named(name, fit=fit), grey), squashed)


def test_pad_shows_the_whole_image_and_black_beside_it() -> None:
    prepared = apply_recipe(recipe_named("s4_resize", fit="pad"), np.full((500, 1000), 90, np.uint8))[..., 0]
    assert (prepared[56:168] == 90).all()
    assert (prepared[:56] == 0).all() and (prepared[168:] == 0).all()
    upright = apply_recipe(recipe_named("s4_resize", fit="pad"), np.full((1000, 500), 90, np.uint8))[..., 0]
    np.testing.assert_array_equal(upright, prepared.T)


def test_crop_shows_the_central_square_alone() -> None:
    grey = np.random.default_rng(2).integers(0, 256, (400, 701)).astype(np.uint8)
    recipe = recipe_named("s3_equalise_morphology", fit="crop")
    centre = np.ascontiguousarray(grey[:, 150:550])
    np.testing.assert_array_equal(apply_recipe(recipe, grey), apply_recipe(RECIPES["s3_equalise_morphology"], centre))


def test_the_black_beside_an_image_changes_neither_its_contrast_nor_its_edges() -> None:
    grey = np.random.default_rng(3).integers(60, 200, (300, 600)).astype(np.uint8)
    recipe = recipe_named("s3_equalise_morphology", fit="pad", morphology=0)
    expected = cv2.resize(cv2.equalizeHist(grey), (300, 150), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(apply_recipe(recipe, grey)[75:225, :, 0], expected)
    even = np.full((300, 600), 180, np.uint8)
    edges = apply_recipe(recipe_named("s4_resize", fit="pad", canny=True), even)[..., 1]
    assert not edges.any(), "the border of the image is no edge of the film"


@pytest.mark.parametrize("size", [64, 299])
@pytest.mark.parametrize("shape", [(100, 173), (811, 640), (1, 400), (7, 2000)])
def test_both_sides_get_as_much_black(size: int, shape: tuple[int, int]) -> None:
    recipe = recipe_named("s2_resize", fit="pad", size=size)
    for span in recipe.placement(*shape).target:
        assert span.start == size - span.stop
        assert span.stop > span.start
    assert apply_recipe(recipe, np.full(shape, 255, np.uint8)).any()


def test_the_files_and_digests_of_squashing_recipes_stay_as_they_were() -> None:
    """Prepared images, checkpoints and registered models name a recipe by this text."""
    for name, digest in RECIPE_FILES.items():
        text = json.dumps(recipe_named(name, fit="squash").to_dict(), indent=2) + "\n"
        assert hashlib.sha256(text.encode()).hexdigest() == digest, name
    assert Recipe.from_dict(RECIPES["s2_resize"].to_dict()).fit == "squash"


def test_another_fit_is_another_recipe() -> None:
    recipes = {recipe_named("s2_resize", fit=fit) for fit in ("squash", "pad", "crop")}
    assert len(recipes) == 3
    assert {Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) for recipe in recipes} == recipes


def test_an_unknown_fit_lists_the_choices() -> None:
    with pytest.raises(ParameterError, match=r"squash, pad, crop, received fit='letterbox'.*recipes\.s2_resize"):
        recipe_named("s2_resize", fit="letterbox")
    with pytest.raises(ParameterError, match=r"'squash', 'pad' or 'crop', received fit='letterbox'"):
        Preprocess.build({"fit": "letterbox"})


def test_a_model_trained_with_pad_answers_an_unprepared_image_by_pad(phantom_folder: Path, tmp_path: Path) -> None:
    training = train_small_model(tmp_path, phantom_folder, fit="pad")
    images, predictor = PreparedImages.open(training.prepared), Predictor.load(training.trained)
    contents = {path: (phantom_folder / path).read_bytes() for path in images.index["path"]}
    path, content = next(item for item in contents.items() if len(set(decode_grey(item[1]).shape)) == 2)
    from_training = images.images[images.rows([path])]
    np.testing.assert_array_equal(predictor.prepare([content]), from_training)
    checked = check_image(predictor.recipes, None, decode_input(content))
    np.testing.assert_array_equal(checked.prepared[predictor.recipe], from_training[0])
    squashed = apply_recipe(recipe_named("s2_resize", size=48), decode_grey(content))
    assert (squashed != from_training[0]).any()
