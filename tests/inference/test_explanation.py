"""Heat is where a network sees evidence for pneumonia, and nowhere else."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cxr.errors import DataError
from cxr.images.recipes import Fit, Recipe, apply_recipe
from cxr.inference.explanation import grad_cam, overlay
from cxr.inference.predictor import EnsemblePredictor, Predictor
from cxr.models.metadata import Member
from support.model_folders import RECIPE, make_metadata
from support.other_backend import run_on_backend

SIZE = RECIPE.size
GREY: NDArray[np.uint8] = np.random.default_rng(3).integers(90, 160, size=(40, 52), dtype=np.uint8)
QUADRANTS = {"upper left": (0, 0), "upper right": (0, 1), "lower left": (1, 0), "lower right": (1, 1)}


def weights(quadrant: tuple[int, int], size: int = SIZE) -> NDArray[np.float64]:
    """Weights of a dense layer that sees one quadrant of the feature map."""
    kernel = np.zeros((2, size // 2, 2, size // 2, 1))
    kernel[quadrant[0], :, quadrant[1]] = 0.1
    return kernel.reshape(-1, 1)


def network(kernel: NDArray[np.float64], size: int = SIZE, *, activation: str = "sigmoid") -> Any:
    """A convolution that averages neighbours, and a dense layer."""
    import keras

    image = keras.Input((size, size, 1))
    x = keras.layers.Conv2D(1, 3, padding="same", activation="relu")(image)
    x = keras.layers.Dense(kernel.shape[1], activation=activation)(keras.layers.Flatten()(x))
    model = keras.Model(image, x)
    model.set_weights([np.full((3, 3, 1, 1), 1 / 9), np.zeros(1), kernel, np.zeros(kernel.shape[1])])
    return model


def predictor(model: Any, recipe: Recipe = RECIPE) -> Predictor:
    metadata = make_metadata(recipe=recipe.to_dict(), input_shape=recipe.input_shape)
    return Predictor(model, metadata.with_calibration(1.0, 0.5, "rule"))


def share_in(heat: NDArray[np.float32], quadrant: tuple[int, int]) -> float:
    """Share of the heat in a quadrant of the image."""
    rows, columns = (
        slice(half * side // 2, (half + 1) * side // 2) for half, side in zip(quadrant, heat.shape, strict=True)
    )
    return float(heat[rows, columns].sum() / heat.sum())


@pytest.mark.parametrize("quadrant", QUADRANTS.values(), ids=QUADRANTS)
def test_heat_is_where_the_prediction_comes_from(quadrant: tuple[int, int]) -> None:
    heat = grad_cam(predictor(network(weights(quadrant))), GREY)
    assert heat.shape == GREY.shape and heat.dtype == np.float32
    assert heat.min() >= 0 and heat.max() == 1
    assert share_in(heat, quadrant) > 0.75


def test_evidence_against_pneumonia_gives_no_heat() -> None:
    assert not grad_cam(predictor(network(-weights((0, 0)))), GREY).any()
    both = weights((0, 0)) - weights((1, 1))
    assert share_in(grad_cam(predictor(network(both)), GREY), (0, 0)) > 0.75


def test_a_softmax_of_two_is_explained_by_the_difference_of_its_inputs() -> None:
    common = weights((0, 1))
    two = network(np.hstack([common, common + weights((1, 0))]), activation="softmax")
    single = network(weights((1, 0)))
    np.testing.assert_allclose(grad_cam(predictor(two), GREY), grad_cam(predictor(single), GREY), atol=1e-5)


def test_a_network_that_is_certain_is_explained_in_the_same_way() -> None:
    certain = predictor(network(1000 * weights((0, 0))))
    assert certain.probabilities(apply_recipe(RECIPE, GREY)[np.newaxis]) == 1
    np.testing.assert_allclose(grad_cam(certain, GREY), grad_cam(predictor(network(weights((0, 0)))), GREY), atol=1e-5)


def test_members_count_by_their_weight_and_temperature() -> None:
    larger = replace(RECIPE, name="s4_resize", size=2 * SIZE)
    flat = np.full((40, 52), 128, np.uint8)
    # Four times the positions, each with a quarter of the weight: the same log odds.
    members = [
        predictor(network(weights((0, 0)))),
        predictor(network(weights((1, 1), 2 * SIZE) / 4, 2 * SIZE), larger),
        predictor(network(-weights((0, 0)))),
    ]
    shares = ((0.5, 1.0), (0.5, 2.0), (0.2, 1.0))
    for member, (_, temperature) in zip(members, shares, strict=True):
        member.metadata = replace(member.metadata, temperature=temperature)
    entries = tuple(
        Member("member", weight, member.metadata) for member, (weight, _) in zip(members, shares, strict=True)
    )
    metadata = make_metadata("weighted", members=entries).with_calibration(1.0, 0.5, "rule")
    heat = grad_cam(EnsemblePredictor(members, metadata), flat)
    assert heat[10, 13] / heat[30, 39] == pytest.approx((0.5 - 0.2) / (0.5 / 2), rel=0.02)


def test_a_mirrored_prediction_is_explained_by_the_mean_of_both_maps() -> None:
    one_sided = weights((0, 0)) + 0.5 * weights((1, 1))
    model = network(one_sided)
    plain = predictor(model)
    mirrored = Predictor(model, replace(plain.metadata, mirrored=True))
    heat = grad_cam(mirrored, GREY)
    assert share_in(heat, (0, 0)) == pytest.approx(share_in(heat, (0, 1)), abs=0.05)
    np.testing.assert_allclose(grad_cam(mirrored, np.ascontiguousarray(GREY[:, ::-1])), heat[:, ::-1], atol=1e-4)
    turned = grad_cam(plain, np.ascontiguousarray(GREY[:, ::-1]))[:, ::-1]
    both = grad_cam(plain, GREY) + turned
    np.testing.assert_allclose(heat, both / both.max(), atol=0.02)  # each map was scaled by its own maximum


def test_the_heat_fits_the_image_whatever_its_size() -> None:
    small = np.random.default_rng(4).integers(0, 256, size=(SIZE, SIZE), dtype=np.uint8)
    large = small.repeat(5, axis=0).repeat(3, axis=1)
    model = predictor(network(np.random.default_rng(5).normal(size=(SIZE * SIZE, 1))))
    in_large = grad_cam(model, large)[2::5, 1::3]
    np.testing.assert_allclose(in_large / in_large.max(), grad_cam(model, small), atol=1e-5)


def unpadded() -> Any:
    """Convolutions without padding: the positions of the feature map see only the middle of the image."""
    from cxr.models.networks import build_network

    return build_network("three_block", (64, 64, 1))


def padded() -> Any:
    """A padding layer, strides, even kernels, a shortcut and a depthwise convolution, as in larger networks."""
    import keras
    from keras import layers

    image = keras.Input((64, 64, 1))
    x = layers.ZeroPadding2D(((3, 2), (3, 2)))(image)
    x = layers.ReLU()(layers.Conv2D(1, 7, strides=2)(x))
    shortcut = layers.Conv2D(1, 1)(x)
    x = layers.DepthwiseConv2D(4, padding="same")(x)
    x = layers.Add()([layers.Conv2D(1, 3, dilation_rate=2, padding="same")(x), shortcut])
    x = layers.Dropout(0.5)(layers.MaxPooling2D()(x))
    return keras.Model(image, layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(("build", "step"), [(unpadded, 4), (padded, 2)])
def test_heat_is_drawn_on_what_the_network_saw(build: Callable[[], Any], step: int) -> None:
    """Its centre is exact up to the distance between two positions of the feature map."""
    model = build()
    for layer in model.layers:  # every layer averages what it sees
        layer.set_weights(
            [np.full(array.shape, 1 / array.size if array.ndim > 1 else 0) for array in layer.get_weights()]
        )
    recipe = Recipe("s1_resize", "S1", size=64, channels=1)
    for row, column in ((20, 26), (40, 36)):
        grey = np.zeros((128, 192), np.uint8)
        grey[2 * row - 2 : 2 * row + 2, 3 * column - 3 : 3 * column + 3] = 255
        heat = grad_cam(predictor(model, recipe), grey).astype(np.float64)
        heat[heat < 0.5] = 0
        centre = [(heat.sum(axis=1 - axis) @ np.arange(0.5, side)) / heat.sum() for axis, side in enumerate(grey.shape)]
        assert centre[0] / 2 == pytest.approx(row, abs=step)
        assert centre[1] / 3 == pytest.approx(column, abs=step)


def test_averaging_gradients_changes_nothing_where_the_head_pools_the_whole_map() -> None:
    import keras

    image = keras.Input(RECIPE.input_shape)
    features = keras.Model(image, keras.layers.Conv2D(4, 3, activation="relu")(image), name="nested")
    x = keras.layers.GlobalAveragePooling2D()(features(image))
    x = keras.layers.Dense(3, activation="relu")(x)
    pooled = predictor(keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(x)))
    in_place = grad_cam(pooled, GREY)
    np.testing.assert_allclose(in_place, grad_cam(pooled, GREY, average_gradients=True), atol=1e-5)
    flattened = predictor(network(weights((0, 0))))
    assert share_in(grad_cam(flattened, GREY, average_gradients=True), (0, 0)) < 0.5


def test_threads_get_the_same_heat() -> None:
    model = predictor(network(weights((1, 0))))
    with ThreadPoolExecutor(4) as pool:
        heats = list(pool.map(lambda _: grad_cam(model, GREY), range(8)))
    assert all(np.array_equal(heat, heats[0]) for heat in heats)


def test_the_parts_of_a_deleted_network_are_deleted() -> None:
    model = predictor(network(weights((0, 0))))
    grad_cam(model, GREY)
    reference = weakref.ref(model._network)
    del model
    gc.collect()
    assert reference() is None


def test_networks_without_a_single_feature_map_are_refused() -> None:
    import keras

    image = keras.Input(RECIPE.input_shape)
    mean = keras.layers.GlobalAveragePooling2D()
    flat = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(image)))
    features = keras.layers.Conv2D(2, 3)(image)
    joined = keras.layers.Concatenate()([mean(keras.layers.Conv2D(2, 3)(features)), keras.layers.Flatten()(features)])
    bypass = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(joined))
    separate = keras.Model(image, keras.layers.Activation("sigmoid")(keras.layers.Dense(1)(mean(features))))
    for model, text in ((flat, "needs a convolution"), (bypass, "a way around it"), (separate, "dense sigmoid")):
        with pytest.raises(DataError, match=text):
            grad_cam(predictor(model), GREY)


def test_an_overlay_colours_what_is_hot_and_leaves_the_rest_grey() -> None:
    heat = np.zeros(GREY.shape, np.float32)
    heat[:20] = np.clip(np.linspace(2.5, 0, 20, dtype=np.float32), 0, 1)[:, np.newaxis]
    coloured = overlay(GREY, heat, 0.8)
    assert coloured.shape == (*GREY.shape, 3) and coloured.dtype == np.uint8
    assert (coloured[20:] == GREY[20:, :, np.newaxis]).all()
    red, _, blue = coloured[3:6, 5:-5].astype(int).transpose(2, 0, 1)
    assert (red > blue + 100).all(), "the hottest is yellow, not blue"
    assert (overlay(GREY, heat, 0.0) == GREY[..., np.newaxis]).all()


LARGE_GREY: NDArray[np.uint8] = np.full((300, 200), 100, np.uint8)


@pytest.fixture
def square_of_heat() -> NDArray[np.float32]:
    heat = np.zeros(LARGE_GREY.shape, np.float32)
    heat[100:150, 50:100] = 1
    return heat


def test_without_opacity_an_overlay_is_the_image(square_of_heat: NDArray[np.float32]) -> None:
    assert np.array_equal(overlay(LARGE_GREY, square_of_heat, 0), np.repeat(LARGE_GREY[..., None], 3, axis=2))


def test_an_overlay_covers_what_counted_and_nothing_else(square_of_heat: NDArray[np.float32]) -> None:
    coloured = overlay(LARGE_GREY, square_of_heat, 1)
    assert (coloured[200:, 120:] == 100).all()
    assert np.ptp(coloured[125, 75].astype(int)) > 100  # yellow


def test_an_overlay_has_a_line_around_what_counted_most(square_of_heat: NDArray[np.float32]) -> None:
    edge = overlay(LARGE_GREY, square_of_heat, 0.3)[95:105, 60:90]
    assert (edge == 255).all(axis=-1).any()


SCRIPT = """
import sys, keras, numpy as np
from pathlib import Path
from cxr.models.metadata import ModelMetadata
from cxr.inference.explanation import grad_cam
from cxr.inference.predictor import Predictor
folder = Path(sys.argv[1])
np.save(folder / "heat.npy", grad_cam(Predictor.load(folder), np.load(folder / "grey.npy")))
assert "tensorflow" not in sys.modules
"""


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"))
        for name in ("jax", "torch")
    ],
)
def test_another_backend_gives_the_same_heat(backend: str, tmp_path: Path) -> None:
    here = predictor(network(np.random.default_rng(6).normal(size=(SIZE * SIZE, 1))))
    np.save(tmp_path / "grey.npy", GREY)
    network(np.random.default_rng(6).normal(size=(SIZE * SIZE, 1))).save(tmp_path / "model.keras")
    here.metadata.write(tmp_path)
    run_on_backend(backend, tmp_path, ["-c", SCRIPT, str(tmp_path)])
    np.testing.assert_allclose(np.load(tmp_path / "heat.npy"), grad_cam(here, GREY), atol=1e-4)


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("shape", [(40, 64), (96, 40)])
def test_the_heat_is_drawn_where_the_recipe_looked(fit: Fit, shape: tuple[int, int]) -> None:
    grey = np.zeros(shape, np.uint8)
    row, column = shape[0] // 2 - 8, shape[1] // 2 + 8
    grey[row - 2 : row + 3, column - 2 : column + 3] = 255
    recipe = replace(RECIPE, size=32, fit=fit)
    heat = grad_cam(predictor(network(np.full((32 * 32, 1), 0.1), 32), recipe), grey)
    hottest = np.unravel_index(heat.argmax(), shape)
    assert hottest == pytest.approx((row, column), abs=1.5)
    unseen = np.ones(shape, bool)
    unseen[recipe.placement(*shape).source] = False
    assert not heat[unseen].any()
