"""The losses of the detector agree with their formulas, and stay finite where there are no boxes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from cxr.models.backend import gradient_function
from cxr.regions.losses import detection_losses, focal_loss, smooth_l1_loss

LOGITS = np.float32([[-3.0, 0.5, 2.0, -8.0], [1.0, -1.0, 4.0, 0.0]])
CLASSES = np.float32([[1, 0, 0, 1], [0, 0, 1, 0]])


def value(loss) -> float:
    return float(keras.ops.mean(loss))


def test_focal_loss_without_focus_is_weighted_cross_entropy():
    probability = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    cross_entropy = -np.where(CLASSES == 1, 0.3 * np.log(probability), 0.7 * np.log(1 - probability))
    assert value(focal_loss(CLASSES, LOGITS, balance=0.3, focus=0.0)) == pytest.approx(
        cross_entropy.sum() / 3, rel=1e-5
    )


def test_focal_loss_weighs_sure_right_answers_down():
    """By the formula of the paper: -alpha (1 - p)^gamma log(p)."""
    logit = np.log(0.9 / 0.1)
    right = value(focal_loss(np.float32([[1]]), np.float32([[logit]]), balance=0.25, focus=2.0))
    wrong = value(focal_loss(np.float32([[0]]), np.float32([[logit]]), balance=0.25, focus=2.0))
    assert right == pytest.approx(-0.25 * 0.1**2 * np.log(0.9), rel=1e-4)
    assert wrong == pytest.approx(-0.75 * 0.9**2 * np.log(0.1), rel=1e-4)


def test_anchors_that_are_left_out_do_not_count():
    classes = CLASSES.copy()
    classes[:, 1] = -1
    losses = []
    for logit in (-20, 20):
        logits = LOGITS.copy()
        logits[:, 1] = logit
        losses.append(value(focal_loss(classes, logits, balance=0.25, focus=2.0)))
    assert losses[0] == losses[1] > 0


def test_losses_of_anchors_are_divided_by_the_positive_anchors_of_the_batch():
    single = value(focal_loss(CLASSES, LOGITS, balance=0.25, focus=2.0))
    doubled = value(focal_loss(np.tile(CLASSES, (2, 1)), np.tile(LOGITS, (2, 1)), balance=0.25, focus=2.0))
    assert doubled == pytest.approx(single, rel=1e-6)
    per_image = focal_loss(CLASSES, LOGITS, balance=0.25, focus=2.0)
    assert per_image.shape == (2,)


def test_smooth_l1_is_a_square_for_small_differences_and_linear_for_large_ones():
    targets = np.float32([[[0.05, 0, 0, 0, 1], [9, 9, 9, 9, 0], [0, 2, 0, 0, 1]]])
    deltas = np.float32([[[0, 0, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0]]])
    expected = (4.5 * 0.05**2 / 4 + (2 - 1 / 18) / 4) / 2
    assert value(smooth_l1_loss(targets, deltas)) == pytest.approx(expected, rel=1e-5)


def test_deltas_of_negative_anchors_do_not_count():
    targets = np.zeros((2, 3, 5), np.float32)
    targets[0, 1] = (0.5, 0.5, 0.5, 0.5, 1)
    deltas = np.zeros((2, 3, 4), np.float32)
    expected = value(smooth_l1_loss(targets, deltas))
    deltas[0, 0], deltas[1] = 100, -100
    assert value(smooth_l1_loss(targets, deltas)) == expected > 0


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_gradients_are_finite_for_images_without_boxes_and_for_extreme_outputs(size):
    sign = np.float32([[1, -1, 1, -1, 1, -1]])
    no_boxes = np.zeros((1, 6), np.float32)
    for classes in (no_boxes, np.float32([[1, 1, 0, 0, -1, -1]])):
        gradient = gradient_function(
            lambda logits, classes=classes: keras.ops.sum(focal_loss(classes, logits, balance=0.25, focus=2.0))
        )(size * sign)
        assert np.isfinite(gradient).all()
        # Boxes that are not there are unlearned: the gradient lowers logits of negative anchors that are not low yet.
        assert (gradient[0, classes[0] == 0] >= 0).all()
    targets = np.zeros((1, 6, 5), np.float32)
    gradient = gradient_function(lambda deltas: keras.ops.sum(smooth_l1_loss(targets, deltas)))(
        size * np.tile(sign[..., np.newaxis], 4)
    )
    assert gradient.shape == (1, 6, 4)
    assert not gradient.any()


def test_every_output_has_a_loss_that_keras_compiles_with():
    losses = detection_losses(focal_balance=0.25, focal_focus=2.0)
    assert list(losses) == ["class_logits", "box_deltas", "image_logit"]
    assert value(losses["class_logits"](CLASSES, LOGITS)) == value(focal_loss(CLASSES, LOGITS, balance=0.25, focus=2.0))
    assert value(losses["image_logit"](np.float32([[1]]), np.float32([[0]]))) == pytest.approx(np.log(2), rel=1e-5)
