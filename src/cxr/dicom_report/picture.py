"""The picture of a capture: the radiograph with what counted for the network, its boxes, and the answer as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL.Image import fromarray
from PIL.ImageDraw import Draw
from PIL.ImageFont import load_default

from cxr.dicom_report.answer import NOTICE, ReportedAnswer
from cxr.inference.explanation import overlay
from cxr.plots.box_overlay import draw_boxes

if TYPE_CHECKING:
    from cxr.regions.scoring import ScoredBox

PICTURE_SIDE = 1024
"""Pixels of the longer side."""
_OPACITY = 0.6
_TEXT_HEIGHT, _MARGIN, _LINE_CHARACTERS = 22, 8, 60
"""Pixels, pixels, and characters after which a sentence goes on in the next line."""


def draw_picture(
    grey: NDArray[np.uint8],
    answer: ReportedAnswer,
    *,
    original_width: int,
    heat: NDArray[np.float32] | None,
    boxes: Sequence[ScoredBox] | None,
    phantom_boxes: bool,
) -> NDArray[np.uint8]:
    """Draw an answer over its radiograph. The text stands in the upper left corner, on black.

    Args:
        grey: the image, ``(height, width)`` uint8, perhaps smaller than the original.
        answer: the answer.
        original_width: columns of the original, in whose pixels the boxes are.
        heat: what counted for the network, ``(height, width)``, 0 to 1; None without a prediction.
        boxes: boxes of a detector; None if there is no detector.
        phantom_boxes: whether the detector was trained on phantoms; a strip under the image says so.

    Returns:
        ``(rows, columns, 3)`` uint8: red, green, blue. The longer side of the image has :data:`PICTURE_SIDE` pixels.
    """
    image = grey if heat is None else overlay(grey, heat, _OPACITY)
    drawn = draw_boxes(
        image, original_width, boxes or (), side=PICTURE_SIDE, phantom=boxes is not None and phantom_boxes
    )
    canvas = fromarray(drawn)
    draw = Draw(canvas)
    text = "\n".join(line for sentence in _sentences(answer) for line in textwrap.wrap(sentence, _LINE_CHARACTERS))
    size = float(_TEXT_HEIGHT)
    while size > 8 and draw.multiline_textbbox((0, 0), text, load_default(size))[2] > canvas.width - 2 * _MARGIN:
        size -= 1
    font = load_default(size)
    _, _, width, height = draw.multiline_textbbox((0, 0), text, font)
    draw.rectangle((0, 0, width + 2 * _MARGIN, height + 2 * _MARGIN), fill="black")
    draw.multiline_text((_MARGIN, _MARGIN), text, fill="white", font=font)
    return np.asarray(canvas, np.uint8)


def _sentences(answer: ReportedAnswer) -> list[str]:
    if answer.probability is not None and answer.threshold is not None:
        first = f"{answer.label}: probability {answer.probability:.1%}, threshold {answer.threshold:.1%}"
    else:
        first = f"No prediction ({answer.refusal_reason}): {answer.refusal_text}"
    models = [answer.model.version_text, *([f"boxes of {answer.detector.version_text}"] if answer.detector else [])]
    banners = [model.banner for model in (answer.model, answer.detector) if model is not None and model.banner]
    return [first, "; ".join(models), NOTICE, *banners]
