"""Losses of the detector, made of Keras operations, so that every backend trains it.

The losses of anchors are sums over an image, divided by the positive anchors of the average image of the batch (Lin et
al. 2017, arXiv:1708.02002). They are finite for batches without boxes: these count as having one positive anchor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

SMOOTH_L1_BEND = 1 / 9
"""Difference of a delta up to which its loss is a square, as in the authors' code; above that it is linear."""


def detection_losses(*, focal_balance: float, focal_focus: float) -> dict[str, Callable[[Any, Any], Any]]:
    """Collect the losses of the detector's outputs, ready for ``keras.Model.compile``.

    Args:
        focal_balance: weight of positive anchors in [0, 1], alpha in the paper (0.25); negative ones get the rest.
        focal_focus: how much less an anchor counts the surer its answer is right, gamma in the paper (2); 0 for cross
            entropy.

    Returns:
        Name of the output to its loss, for targets of :func:`cxr.regions.targets.detection_targets`.
    """

    def class_loss(targets: Any, logits: Any) -> Any:  # a function, because Keras cannot save a partial one
        return focal_loss(targets, logits, balance=focal_balance, focus=focal_focus)

    return {
        "class_logits": class_loss,
        "box_deltas": smooth_l1_loss,
        "image_logit": keras.losses.BinaryCrossentropy(from_logits=True),
    }


def focal_loss(targets: Any, logits: Any, *, balance: float, focus: float) -> Any:
    """Compute the sigmoid focal loss of one class. There is no background class: a low logit means background.

    Args:
        targets: ``(batch, anchors)``: 1, 0, or -1 for anchors that are left out.
        logits: ``(batch, anchors)``.
        balance: see :func:`detection_losses`.
        focus: see :func:`detection_losses`.

    Returns:
        ``(batch,)`` float32; its mean is the sum over the batch, divided by the number of its positive anchors.
    """
    targets, logits = ops.cast(targets, "float32"), ops.cast(logits, "float32")
    positive = ops.equal(targets, 1)
    # Logit of the wrong answer. Powers of probabilities would have infinite gradients at 0.
    wrong = ops.where(positive, -logits, logits)
    loss = ops.softplus(wrong) * ops.exp(-focus * ops.softplus(-wrong)) * ops.where(positive, balance, 1 - balance)
    return _sum_per_positive(ops.where(targets < 0, 0.0, loss), ops.cast(positive, "float32"))


def smooth_l1_loss(targets: Any, deltas: Any) -> Any:
    """Compute the loss of the deltas of positive anchors, the mean over the four deltas of an anchor.

    Args:
        targets: ``(batch, anchors, 5)``: four deltas, then 1 for an anchor that stands for a box, else 0.
        deltas: ``(batch, anchors, 4)``.

    Returns:
        ``(batch,)`` float32; its mean is the sum over the batch, divided by the number of its positive anchors.
    """
    targets, deltas = ops.cast(targets, "float32"), ops.cast(deltas, "float32")
    positive = targets[..., 4]
    difference = ops.abs(targets[..., :4] - deltas)
    squared = ops.square(difference) / (2 * SMOOTH_L1_BEND)
    loss = ops.mean(ops.where(difference < SMOOTH_L1_BEND, squared, difference - SMOOTH_L1_BEND / 2), axis=-1)
    return _sum_per_positive(loss * positive, positive)


def _sum_per_positive(loss: Any, positive: Any) -> Any:
    """Sum over the anchors ``(batch, anchors)`` of each image, per positive anchor of an average image."""
    images = ops.cast(ops.shape(loss)[0], "float32")
    return ops.sum(loss, axis=1) * images / ops.maximum(ops.sum(positive), 1.0)
