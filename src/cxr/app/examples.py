"""Example images for new visitors: drawn chests that show no person, and one image that is not a radiograph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from cxr.data.phantom.dataset import PhantomPlan, draw_image

SEED = 2026
"""Not the seed of the built-in data set, so that a model trained on phantoms has not seen these images."""


@dataclass(frozen=True)
class ExampleImage:
    """A drawn image.

    Attributes:
        title: what it shows, for people.
        name: file name.
        subtype: subtype of the phantom; empty for the image that is not a radiograph.
        patient: number of the drawn patient.
    """

    title: str
    name: str
    subtype: str
    patient: int


EXAMPLES = (
    ExampleImage("Healthy chest", "drawn-healthy.jpeg", "normal", 14),
    ExampleImage("Bacterial pneumonia", "drawn-bacterial.jpeg", "bacteria", 4),
    ExampleImage("Viral pneumonia", "drawn-viral.jpeg", "virus", 3),
    ExampleImage("A letter, no film", "drawn-letter.jpeg", "", 0),
)


@cache
def draw_example(example: ExampleImage) -> bytes:
    """Draw an example.

    Args:
        example: one of :data:`EXAMPLES`.

    Returns:
        A JPEG file.
    """
    if not example.subtype:
        return _draw_letter()
    return draw_image(PhantomPlan("test", example.subtype, example.patient, 0, example.name), SEED).data


def _draw_letter() -> bytes:
    """A typed page: white paper with dark lines of text."""
    page = np.full((760, 560), 250, np.uint8)
    words = np.array(["the", "patient", "was", "seen", "today", "and", "sent", "home", "with", "advice", "to", "rest"])
    generator = np.random.default_rng(SEED)
    for row in range(26):
        text = " ".join(generator.choice(words, 7))
        cv2.putText(page, text, (50, 70 + 25 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 40, 1, cv2.LINE_AA)
    _, data = cv2.imencode(".jpeg", page, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return bytes(data.tobytes())
