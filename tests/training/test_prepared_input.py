"""The device makes the same inputs of stored images as the CPU did, and augments them as OpenCV does."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import cv2
import keras
import numpy as np
import pytest

from cxr.errors import ParameterError
from cxr.images.recipes import recipe_named, to_network_input
from cxr.training.augmentation import Augmentation
from cxr.training.batches import Batches
from cxr.training.feeding import choose_steps_per_execution, feed_device
from cxr.training.loop import fit
from cxr.training.prepared_input import PreparedInputNetwork, network_input
from support.other_backend import run_on_backend
from support.patch_images import network, train_and_task
from support.sweeps import exhaustive
from support.training_settings import training_plan

EVERYTHING = Augmentation(
    horizontal_flip=True, rotation=20, zoom=0.2, shear=11.5, shift=0.1, gamma=0.3, contrast=0.3, brightness=0.3
)
RECIPES = {
    "one channel": recipe_named("s2_resize", size=48),
    "three channels": recipe_named("s4_resize", size=48),
    "edges": recipe_named("s4_resize", size=48, canny=True),
    "edges in the second of two": recipe_named("s4_resize", size=48, canny=True, channels=2),
}


def batches(recipe, augmentation=None, **changes):
    """Twelve images between noise and flat grey, whose second plane is black or white."""
    generator = np.random.default_rng(8)
    images = generator.integers(0, 256, (12, 48, 48, recipe.planes), dtype=np.uint8)
    for number, image in enumerate(images):
        image[..., 0] = cv2.GaussianBlur(image[..., 0], (0, 0), 0.1 + number / 2)
    images[..., 1:] = 255 * (images[..., 1:] > 200)
    values = {"batch_size": 12, "shuffle": True, "balance": "none", "mixup": 0.0, "seed": 3} | changes
    return Batches(images, np.arange(12)[::-1], np.arange(12) % 2, recipe, augmentation=augmentation, **values)


def inputs_of(batch, recipe, images=None):
    return keras.ops.convert_to_numpy(network_input(batch[0], recipe, images))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_step_makes_the_same_input_of_planes_as_the_prediction_does(recipe):
    batch = batches(recipe, EVERYTHING)[0]
    assert batch[0].dtype == np.uint8
    np.testing.assert_allclose(inputs_of(batch, recipe), to_network_input(batch[0], recipe), rtol=1e-6)


@pytest.mark.parametrize("stays", [False, True], ids=["sent", "on the device"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize(
    "augmentation",
    [EVERYTHING, Augmentation(horizontal_flip=True), Augmentation(contrast=0.5), Augmentation(rotation=40), None],
    ids=["everything", "flip", "contrast", "rotation", "nothing"],
)
def test_the_device_changes_images_as_the_cpu_does_to_within_rounding(augmentation, recipe, stays):
    on_cpu, on_device = batches(recipe, augmentation), batches(recipe, augmentation)
    on_device.augments_on_device, on_device.stays_on_device = True, stays
    for epoch in (0, 5):
        on_cpu.epoch = on_device.epoch = epoch
        difference = 255 * np.abs(
            inputs_of(on_device[0], recipe, on_device.device_images()) - inputs_of(on_cpu[0], recipe)
        )
        if recipe.planes == 1:
            assert difference.max() <= 1.001
            assert (difference > 0.5).mean() < 0.005, "only what lies between two grey levels is rounded otherwise"
        else:  # OpenCV moves two planes in steps of 1/32 pixel, and edges rise from 0 to 255 within a pixel
            assert difference.max() <= 1 + 255 / 32
            assert difference.mean() < 1


def test_images_on_the_device_are_mixed_as_those_that_are_sent():
    recipe = RECIPES["three channels"]
    sent, staying = (batches(recipe, mixup=0.4, balance="class_weights") for _ in range(2))
    staying.stays_on_device = True
    np.testing.assert_array_equal(inputs_of(sent[0], recipe), inputs_of(staying[0], recipe, staying.device_images()))
    assert sum(array.nbytes for array in staying[0][0].values()) == 12 * 3 * 4


def test_a_batch_crosses_with_one_byte_per_stored_grey_level_and_60_per_change():
    planes = batches(RECIPES["three channels"], EVERYTHING)
    planes.augments_on_device = True
    assert sum(array.nbytes for array in planes[0][0].values()) <= 12 * (48 * 48 + 60)


def weights_after(changes=None, steps=1, **settings):
    """Weights and history of a training whose images are augmented."""
    model = network()
    train, task = train_and_task(augmentation=Augmentation(rotation=5, gamma=0.2), batch_size=10, **settings)
    for name, value in (changes or {}).items():
        setattr(train, name, value)
    result = fit(model, train, task, training_plan("adam", 1e-3, epochs=3), steps_per_execution=steps)
    return model.get_weights(), result


def test_several_steps_in_one_call_train_as_single_steps_do():
    # Five batches in calls of three: the last call has two.
    expected, single = weights_after()
    weights, several = weights_after(steps=3)
    assert (single.steps_per_execution, several.steps_per_execution) == (1, 3)
    for name in ("loss", "auroc", "val_loss"):
        values = [[row[name] for row in result.history] for result in (single, several)]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-5, err_msg=name)
    for array, expected_array in zip(weights, expected, strict=True):
        np.testing.assert_allclose(array, expected_array, atol=1e-5)


def test_images_on_the_device_train_as_those_that_are_sent():
    expected, sent = weights_after({"augments_on_device": True})
    weights, staying = weights_after({"augments_on_device": True, "stays_on_device": True})
    assert (sent.on_device, staying.on_device) == (False, True)
    for array, expected_array in zip(weights, expected, strict=True):
        np.testing.assert_allclose(array, expected_array, atol=1e-5)


@pytest.mark.parametrize("decay", [0.9, *exhaustive(0.0)])
def test_further_epochs_compile_nothing(monkeypatch, decay):
    traced = []
    original = PreparedInputNetwork.call

    def call(self, inputs, training=None):
        traced.append(training)
        return original(self, inputs, training=training)

    monkeypatch.setattr(PreparedInputNetwork, "call", call)
    counts = []
    for epochs in (1, 3):
        traced.clear()
        plan = training_plan("adam", 1e-3, epochs=epochs, average_decay=decay)
        fit(network(), *train_and_task(batch_size=10), plan)
        counts.append(len(traced))
    assert 0 < counts[0] == counts[1]


def test_what_only_the_cpu_can_do_stays_there():
    recipe = RECIPES["three channels"]
    plain, blurred = batches(recipe, EVERYTHING), batches(recipe, replace(EVERYTHING, blur=1.0))
    feed_device(plain, "auto", on_gpu=True)
    feed_device(blurred, "auto", on_gpu=True)
    assert (plain.augments_on_device, blurred.augments_on_device) == (True, False)
    assert not blurred.stays_on_device
    with pytest.raises(ParameterError, match=r"without blur and jpeg_quality.*on_device=always.*set on_device: auto"):
        feed_device(blurred, "always", on_gpu=True)


def test_a_cpu_gets_augmented_images_batch_by_batch_and_step_by_step():
    train = batches(RECIPES["three channels"], EVERYTHING)
    feed_device(train, "auto", on_gpu=False)
    assert not (train.augments_on_device or train.stays_on_device)
    feed_device(train, "always", on_gpu=False)
    assert train.augments_on_device
    assert train.stays_on_device
    assert choose_steps_per_execution(network(), on_gpu=False) == 1
    assert choose_steps_per_execution(network(), on_gpu=True) > 1


INPUTS = """
import keras, numpy as np
from test_prepared_input import EVERYTHING, RECIPES, batches, inputs_of, weights_after
recipe = RECIPES["edges"]
device = batches(recipe, EVERYTHING)
device.augments_on_device = True
np.save("inputs.npy", inputs_of(device[0], recipe))
for values in ({"augments_on_device": True}, {"augments_on_device": True, "stays_on_device": True}):
    weights, result = weights_after(values, steps=2, mixup=0.2)
    print(result.history[-1]["loss"])
"""


@pytest.mark.exhaustive  # test_backends trains a network there
@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"))
        for name in ("jax", "torch")
        if name != keras.backend.backend()
    ],
)
def test_another_backend_makes_the_same_inputs_and_trains_on_them(backend, tmp_path):
    recipe = RECIPES["edges"]
    here = batches(recipe, EVERYTHING)
    here.augments_on_device = True
    process = run_on_backend(
        backend, tmp_path, ["-c", f"import os, sys; sys.path.insert(0, {__file__.rpartition('/')[0]!r})\n"
                            f"os.chdir({str(tmp_path)!r})\n{INPUTS}"],
    )  # fmt: skip
    difference = 255 * np.abs(np.load(tmp_path / "inputs.npy") - inputs_of(here[0], recipe))
    assert difference.max() <= 1.001
    sent, staying = map(float, process.stdout.split()[-2:])
    assert np.isfinite(sent)
    assert sent == pytest.approx(staying, rel=1e-4)
