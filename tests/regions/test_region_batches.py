"""Batches for a detector: boxes stay on their rectangles, and order and images are those of a classifier."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from cxr.regions.anchors import decode_boxes
from cxr.regions.batches import RegionBatches
from cxr.regions.placement import to_prepared
from cxr.training.augmentation import Augmentation
from cxr.training.batches import Batches
from cxr.training.prepared_input import network_input
from support.drawn_rectangles import HEIGHT, RECIPE, SIDE, WIDTH, draw_rectangles

COUNT = 30
BRIGHT = 127
MOVES = [
    Augmentation(),
    Augmentation(horizontal_flip=True),
    Augmentation(horizontal_flip=True, zoom=0.15, shift=0.05, gamma=0.1, brightness=0.1),
]
EVERYTHING = Augmentation(horizontal_flip=True, rotation=15, zoom=0.1, shift=0.05, gamma=0.2, contrast=0.3)


@pytest.fixture(scope="module")
def drawn():
    return draw_rectangles(train=COUNT, validation=0, seed=3)


def batches(drawn, **changes):
    names = list(drawn.annotations.images)
    labels = np.array([len(drawn.annotations.images[name].boxes) > 0 for name in names], np.int64)
    boxes = [to_prepared(drawn.annotations.images[name].boxes, RECIPE, HEIGHT, WIDTH).boxes for name in names]
    values = {"batch_size": 7, "balance": "none", "seed": 5, **changes}
    return RegionBatches(drawn.prepared.images, np.arange(COUNT), labels, boxes, RECIPE, **values)


def targets_of(data, number):
    """The targets of a batch, as the step that trains makes them of it."""
    targets = data.prepare_targets(data[number][1])
    return {name: keras.ops.convert_to_numpy(target) for name, target in targets.items()}


@pytest.mark.parametrize("augmentation", MOVES, ids=["plain", "flip", "all"])
def test_boxes_follow_their_rectangles(drawn, augmentation):
    data = batches(drawn, shuffle=True, augmentation=augmentation)
    data.epoch = 2
    whole = 0
    for number in range(len(data)):
        images, targets = data[number][0], targets_of(data, number)
        assert images.shape[1:] == (SIDE, SIDE, 1) and images.dtype == np.uint8
        for image, classes, deltas in zip(images, targets["class_logits"], targets["box_deltas"], strict=True):
            positive = classes == 1
            boxes = np.unique(decode_boxes(deltas[positive, :4], data.anchors[positive]).round(), axis=0)
            outside = image[..., 0] > BRIGHT
            for left, top, right, bottom in boxes.astype(int):
                inside = image[top + 2 : bottom - 2, left + 2 : right - 2, 0]
                # Gaps are single dark pixels of the noise.
                assert (inside > BRIGHT).mean() > 0.97
                outside[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = False
                whole += 1
            assert outside.mean() < 0.003, "a rectangle without a box"
    assert whole >= COUNT * 0.9, "one or two boxes in each of two images of three"


def test_images_without_boxes_have_negative_targets(drawn):
    data = batches(drawn)
    images, targets = data[0][0], targets_of(data, 0)
    is_normal = np.arange(len(images)) % 3 == 0
    assert (targets["class_logits"][is_normal] == 0).all()
    assert (targets["image_logit"][:, 0] == ~is_normal).all()
    assert not targets["box_deltas"][is_normal].any()


def test_order_and_images_are_those_of_a_classifier_with_the_same_seed(drawn):
    augmentation = Augmentation(horizontal_flip=True, rotation=15, zoom=0.1, contrast=0.3)
    common = {"shuffle": True, "augmentation": augmentation, "balance": "oversample"}
    regions = batches(drawn, **common)
    classifier = Batches(
        regions.images, regions.rows, regions.labels, RECIPE, batch_size=7, mixup=0.0, seed=5, **common
    )
    assert len(regions) == len(classifier)
    for epoch in (0, 4):
        regions.epoch = classifier.epoch = epoch
        for number in (0, len(regions) - 1):
            np.testing.assert_array_equal(regions[number][0], classifier[number][0])
    first = regions[0][1]["assigned"]
    regions.epoch = 5
    assert not np.array_equal(first, regions[0][1]["assigned"])


@pytest.mark.parametrize("stays", [False, True], ids=["sent", "on the device"])
def test_the_device_moves_images_as_the_cpu_does_and_boxes_move_with_them(drawn, stays):
    on_cpu, on_device = (batches(drawn, shuffle=True, augmentation=EVERYTHING) for _ in range(2))
    on_device.augments_on_device, on_device.stays_on_device = True, stays
    for epoch in (0, 3):
        on_cpu.epoch = on_device.epoch = epoch
        for number in (0, len(on_cpu) - 1):
            (images, boxes), (inputs, same_boxes) = on_cpu[number], on_device[number]
            expected = keras.ops.convert_to_numpy(network_input(images, RECIPE))
            moved = keras.ops.convert_to_numpy(network_input(inputs, RECIPE, on_device.device_images()))
            assert 255 * np.abs(moved - expected).max() <= 1.001
            for name, array in boxes.items():
                np.testing.assert_array_equal(same_boxes[name], array)


def test_a_batch_crosses_with_its_planes_a_byte_per_anchor_and_100_for_changes_and_boxes(drawn):
    data = batches(drawn, augmentation=EVERYTHING)
    data.augments_on_device = True
    inputs, boxes = data[0]
    size = sum(array.nbytes for array in [*inputs.values(), *boxes.values()])
    assert size <= 7 * (SIDE * SIDE + len(data.anchors) + 100)
