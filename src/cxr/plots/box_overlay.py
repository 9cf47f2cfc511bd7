"""The boxes of a detector over an image: for the page, and for the pictures of reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.Image import fromarray
from PIL.ImageDraw import Draw
from PIL.ImageFont import load_default

from cxr.plots.style import ORANGE

if TYPE_CHECKING:
    from cxr.regions.scoring import ScoredBox

PHANTOM_STRIP = "Boxes of a detector trained on drawn phantoms: they say nothing about patients"
"""Written under the image itself, so that no copy of the image is without it."""
_TEXT_SHARE, _LINE_SHARE = 1 / 32, 1 / 200
"""Height of the text and width of a line, as shares of the width of the image."""


def draw_boxes(
    image: NDArray[np.uint8], original_width: int, boxes: Sequence[ScoredBox], *, side: int, phantom: bool
) -> NDArray[np.uint8]:
    """Draw boxes with their scores over an image.

    Each line has a thin black one on both sides, so that it is visible on every grey and on every colour.

    Args:
        image: grey ``(height, width)`` or red, green, blue ``(height, width, 3)``, uint8, of any size.
        original_width: columns of the original, in whose pixels the boxes are.
        boxes: the boxes.
        side: pixels of the longer side of the result, so that lines and scores are sharp.
        phantom: whether the detector was trained on phantoms; then :data:`PHANTOM_STRIP` stands under the image.

    Returns:
        ``(height, width, 3)`` uint8: red, green, blue. The longer side of the image has ``side`` pixels; the strip
        of a phantom detector is added below it.
    """
    factor = side / max(image.shape[:2])
    height, width = (max(1, round(factor * side)) for side in image.shape[:2])
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=interpolation)
    canvas = fromarray(np.asarray(resized, np.uint8)).convert("RGB")
    draw, line = Draw(canvas), max(2, round(width * _LINE_SHARE))
    font = load_default(max(12, round(width * _TEXT_SHARE)))
    scale = width / original_width
    corners = [
        (
            scale * box.x,
            scale * box.y,
            min(scale * (box.x + box.width), width - 1),
            min(scale * (box.y + box.height), height - 1),
        )
        for box in boxes
    ]
    edge = max(1, line // 2)
    for left, top, right, bottom in corners:
        outer = (left - edge, top - edge, right + edge, bottom + edge)
        draw.rectangle(outer, outline="black", width=line + 2 * edge)
        draw.rectangle((left, top, right, bottom), outline=ORANGE, width=line)
    # Scores come last: no line of another box crosses them.
    margin = 2 * edge
    for (left, top, _, _), box in zip(corners, boxes, strict=True):
        text = f"{box.score:.2f}"
        _, _, text_width, text_height = draw.textbbox((0, 0), text, font=font, anchor="lt")
        label_width, label_height = text_width + 2 * margin, text_height + 2 * margin
        x = min(max(left - edge, 0), width - label_width)
        y = top - edge - label_height
        y = y if y >= 0 else max(top, 0) + line
        draw.rectangle((x, y, x + label_width, y + label_height), fill=ORANGE, outline="black", width=edge)
        draw.text((x + margin, y + margin), text, fill="black", font=font, anchor="lt")
    drawn = np.asarray(canvas, np.uint8)
    return np.concatenate([drawn, _phantom_strip(width)]) if phantom else drawn


def _phantom_strip(width: int) -> NDArray[np.uint8]:
    size = 40.0
    while size > 8 and load_default(size).getlength(PHANTOM_STRIP) > 0.96 * width:
        size -= 1
    height = round(1.8 * size)
    canvas = fromarray(np.zeros((height, width, 3), np.uint8))
    draw = Draw(canvas)
    draw.rectangle((0, 2, width, height), fill=ORANGE)
    draw.text((width / 2, height / 2), PHANTOM_STRIP, fill="black", font=load_default(size), anchor="mm")
    return np.asarray(canvas, np.uint8)
