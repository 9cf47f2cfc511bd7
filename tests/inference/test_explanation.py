"""Heat lies where a network sees evidence for pneumonia, and nowhere else."""

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
from cxr.images.recipes import Recipe, apply
from cxr.inference.explanation import grad_cam, overlay
from cxr.inference.predictor import PooledPredictor, Predictor
from cxr.models.metadata import Member
from support.model_folders import RECIPE, card
from support.other_backend import elsewhere

SIZE = RECIPE.size
GREY: NDArray[np.uint8] = np.random.default_rng(3).integers(90, 160, size=(40, 52), dtype=np.uint8)
QUADRANTS = {"upper left": (0, 0), "upper right": (0, 1), "lower left": (1, 0), "lower right": (1, 1)}


def weights(place: tuple[int, int], size: int = SIZE) -> NDArray[np.float64]:
    """Weights of a dense layer that looks at one quarter of the map."""
    found = np.zeros((2, size // 2, 2, size // 2, 1))
    found[place[0], :, place[1]] = 0.1
    return found.reshape(-1, 1)


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
    return Predictor(model, card(recipe=recipe.to_dict(), input_shape=recipe.input_shape).completed(1.0, 0.5, "rule"))


def quarter_of(heat: NDArray[np.float32], place: tuple[int, int]) -> float:
    """Share of the heat in a quarter of the picture."""
    rows, columns = (slice(one * side // 2, (one + 1) * side // 2) for one, side in zip(place, heat.shape, strict=True))
    return float(heat[rows, columns].sum() / heat.sum())


@pytest.mark.parametrize("place", QUADRANTS.values(), ids=QUADRANTS)
def test_heat_lies_where_the_answer_comes_from(place: tuple[int, int]) -> None:
    heat = grad_cam(predictor(network(weights(place))), GREY)
    assert heat.shape == GREY.shape and heat.dtype == np.float32
    assert heat.min() >= 0 and heat.max() == 1
    assert quarter_of(heat, place) > 0.75


def test_evidence_against_pneumonia_gives_no_heat() -> None:
    assert not grad_cam(predictor(network(-weights((0, 0)))), GREY).any()
    both = weights((0, 0)) - weights((1, 1))
    assert quarter_of(grad_cam(predictor(network(both)), GREY), (0, 0)) > 0.75


def test_a_softmax_of_two_is_explained_by_the_difference_of_its_inputs() -> None:
    common = weights((0, 1))
    two = network(np.hstack([common, common + weights((1, 0))]), activation="softmax")
    one = network(weights((1, 0)))
    np.testing.assert_allclose(grad_cam(predictor(two), GREY), grad_cam(predictor(one), GREY), atol=1e-5)


def test_a_network_that_is_quite_sure_is_explained_all_the_same() -> None:
    sure = predictor(network(1000 * weights((0, 0))))
    assert sure.probabilities(apply(RECIPE, GREY)[np.newaxis]) == 1
    np.testing.assert_allclose(grad_cam(sure, GREY), grad_cam(predictor(network(weights((0, 0)))), GREY), atol=1e-5)


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
        member.card = replace(member.card, temperature=temperature)
    pooled = tuple(Member("one", weight, member.card) for member, (weight, _) in zip(members, shares, strict=True))
    heat = grad_cam(PooledPredictor(members, card("weighted", members=pooled).completed(1.0, 0.5, "rule")), flat)
    assert heat[10, 13] / heat[30, 39] == pytest.approx((0.5 - 0.2) / (0.5 / 2), rel=0.02)


def test_the_heat_fits_the_picture_whatever_its_size() -> None:
    small = np.random.default_rng(4).integers(0, 256, size=(SIZE, SIZE), dtype=np.uint8)
    large = small.repeat(5, axis=0).repeat(3, axis=1)
    model = predictor(network(np.random.default_rng(5).normal(size=(SIZE * SIZE, 1))))
    in_large = grad_cam(model, large)[2::5, 1::3]
    np.testing.assert_allclose(in_large / in_large.max(), grad_cam(model, small), atol=1e-5)


def unpadded() -> Any:
    """Convolutions without padding: the map's positions look at the middle of the picture only."""
    from cxr.models.networks import build

    return build("three_block", (64, 64, 1))


def padded() -> Any:
    """Padding of its own, strides, even kernels, a shortcut and a depthwise convolution, as in larger networks."""
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
def test_heat_stands_on_what_the_network_saw(build: Callable[[], Any], step: int) -> None:
    """To the distance between two positions of the map."""
    model = build()
    for layer in model.layers:  # every layer adds up what it sees
        layer.set_weights([np.full(one.shape, 1 / one.size if one.ndim > 1 else 0) for one in layer.get_weights()])
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
    kept = grad_cam(pooled, GREY)
    np.testing.assert_allclose(kept, grad_cam(pooled, GREY, averaged=True), atol=1e-5)
    flattened = predictor(network(weights((0, 0))))
    assert quarter_of(grad_cam(flattened, GREY, averaged=True), (0, 0)) < 0.5


def test_threads_get_the_same_heat() -> None:
    model = predictor(network(weights((1, 0))))
    with ThreadPoolExecutor(4) as pool:
        heats = list(pool.map(lambda _: grad_cam(model, GREY), range(8)))
    assert all(np.array_equal(heat, heats[0]) for heat in heats)


def test_a_version_that_was_exchanged_is_forgotten() -> None:
    model = predictor(network(weights((0, 0))))
    grad_cam(model, GREY)
    gone = weakref.ref(model._network)
    del model
    gc.collect()
    assert gone() is None


def test_networks_that_have_no_single_map_are_refused() -> None:
    import keras

    image = keras.Input(RECIPE.input_shape)
    mean = keras.layers.GlobalAveragePooling2D()
    flat = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(image)))
    seen = keras.layers.Conv2D(2, 3)(image)
    around = keras.layers.Concatenate()([mean(keras.layers.Conv2D(2, 3)(seen)), keras.layers.Flatten()(seen)])
    around = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(around))
    apart = keras.Model(image, keras.layers.Activation("sigmoid")(keras.layers.Dense(1)(mean(seen))))
    for model, words in ((flat, "needs a convolution"), (around, "a way around it"), (apart, "dense sigmoid")):
        with pytest.raises(DataError, match=words):
            grad_cam(predictor(model), GREY)


def test_an_overlay_colours_what_is_hot_and_leaves_the_rest_grey() -> None:
    heat = np.zeros(GREY.shape, np.float32)
    heat[:20] = np.linspace(0, 1, 20, dtype=np.float32)[:, np.newaxis]
    shown = overlay(GREY, heat, 0.8)
    assert shown.shape == (*GREY.shape, 3) and shown.dtype == np.uint8
    assert (shown[20:] == GREY[20:, :, np.newaxis]).all()
    red, _, blue = shown[19].astype(int).T
    assert (red > blue + 100).all(), "the hottest is yellow, not blue"
    assert (overlay(GREY, heat, 0.0) == GREY[..., np.newaxis]).all()


ELSEWHERE = """
import sys, keras, numpy as np
from pathlib import Path
from cxr.models.metadata import ModelCard
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
    own = predictor(network(np.random.default_rng(6).normal(size=(SIZE * SIZE, 1))))
    np.save(tmp_path / "grey.npy", GREY)
    network(np.random.default_rng(6).normal(size=(SIZE * SIZE, 1))).save(tmp_path / "model.keras")
    own.card.write(tmp_path)
    elsewhere(backend, tmp_path, ["-c", ELSEWHERE, str(tmp_path)])
    np.testing.assert_allclose(np.load(tmp_path / "heat.npy"), grad_cam(own, GREY), atol=1e-4)
