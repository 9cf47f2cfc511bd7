"""Batches depend on seed and epoch alone, and balance the rarer class."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from cxr.images.recipes import recipe_named
from cxr.training.augmentation import Augmentation
from cxr.training.batches import Batches
from cxr.training.prepared_input import network_input
from cxr.training.read_ahead import ReadAhead

RECIPE = recipe_named("s1_resize", size=16)


@pytest.fixture
def images():
    return np.random.default_rng(3).integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)


def batches(images, **changes):
    labels = np.array([0] * 10 + [1] * 30)
    values = {"batch_size": 8, "shuffle": True, "balance": "none", "mixup": 0.0, "seed": 5} | changes
    return Batches(images, np.arange(40), labels, RECIPE, **values)


def test_same_seed_and_epoch_give_the_same_batches_in_any_order_of_reading(images):
    first = batches(images, augmentation=Augmentation(horizontal_flip=True, rotation=20))
    second = batches(images, augmentation=Augmentation(horizontal_flip=True, rotation=20))
    first.epoch = second.epoch = 2
    later = second[4]
    np.testing.assert_array_equal(first[1][0], second[1][0])
    np.testing.assert_array_equal(first[4][0], later[0])


def test_another_epoch_has_another_order(images):
    shuffled = batches(images)
    first_order = shuffled.order().copy()
    shuffled.epoch = 1
    assert not np.array_equal(first_order, shuffled.order())
    assert sorted(shuffled.order()) == list(range(40))


def test_images_leave_as_they_are_stored_and_reach_every_channel_scaled(images):
    planes, labels = batches(images, shuffle=False)[0][:2]
    assert planes.nbytes == 8 * 16 * 16
    np.testing.assert_array_equal(planes, images[:8])
    inputs = keras.ops.convert_to_numpy(network_input(planes, RECIPE))
    assert inputs.shape == (8, 16, 16, 3)
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs[..., 2], images[:8, ..., 0] / 255, atol=1e-6)
    np.testing.assert_array_equal(labels, np.zeros((8, 1)))


def test_last_batch_is_shorter_and_every_image_comes_once(images):
    sixteens = batches(images, batch_size=16)
    assert [len(sixteens[number][0]) for number in range(len(sixteens))] == [16, 16, 8]


def test_softmax_networks_get_one_column_per_class(images):
    targets = batches(images, outputs=2, shuffle=False, batch_size=40)[0][1]
    np.testing.assert_array_equal(targets.sum(axis=0), [10, 30])


def test_class_weights_give_both_classes_the_same_total_weight(images):
    _, targets, weights = batches(images, balance="class_weights", batch_size=40)[0]
    is_pneumonia = targets[:, 0] == 1
    assert weights[is_pneumonia].sum() == pytest.approx(weights[~is_pneumonia].sum())
    assert weights.sum() == pytest.approx(40)


def test_oversampling_repeats_the_rarer_class_and_keeps_every_image(images):
    oversampled = batches(images, balance="oversample", batch_size=60)
    _, targets = oversampled[0]
    assert targets.sum() == 30
    assert len(targets) == 60
    assert set(oversampled.order()) == set(range(40))


def test_mixed_images_have_mixed_labels_and_weights(images):
    images = np.broadcast_to(np.uint8([0] * 10 + [255] * 30)[:, None, None, None], (40, 16, 16, 1))
    mixing = batches(images, mixup=0.4, balance="class_weights", batch_size=40)
    planes, targets, weights = mixing[0]
    inputs = keras.ops.convert_to_numpy(network_input(planes, RECIPE))
    assert (inputs.dtype, targets.dtype, weights.dtype) == (np.float32,) * 3
    np.testing.assert_allclose(inputs[:, 3, 3, 0], targets[:, 0], atol=1e-6)
    low, high = mixing.class_weights()[[1, 0]]
    np.testing.assert_allclose(weights, targets[:, 0] * low + (1 - targets[:, 0]) * high, rtol=1e-5)
    is_mixture = (targets > 0.01) & (targets < 0.99)
    assert 3 < is_mixture.sum() < 40


def test_mixing_depends_on_seed_epoch_and_batch_alone(images):
    # Without shuffling, nothing but the mixing changes from epoch to epoch.
    first, second = (batches(images, mixup=0.4, shuffle=False) for _ in range(2))
    np.testing.assert_array_equal(first[1][1], (second[0], second[1])[1][1])
    second.epoch = 1
    assert not np.array_equal(first[1][1], second[1][1])
    np.testing.assert_array_equal(batches(images)[1][1], np.round(batches(images)[1][1]))


def test_fit_gets_the_batches_of_each_epoch_in_order_and_nothing_waits_for_autotuning(images):
    weighted = batches(images, batch_size=16, balance="class_weights")
    with ReadAhead(weighted) as ahead:
        data = ahead.for_fit()
        assert len(data) == 3
        if keras.backend.backend() == "tensorflow":
            assert data.options().autotune.enabled is False
        for epoch in (0, 1):
            weighted.epoch = epoch
            passed = [data[number] for number in range(3)] if data is ahead else list(data)
            assert [len(batch) for batch in passed] == [3, 3, 3]
            for number, batch in enumerate(passed):
                for array, expected in zip(batch, weighted[number], strict=True):
                    np.testing.assert_array_equal(np.asarray(array), expected)
