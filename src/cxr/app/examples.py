"""Example films for newcomers: drawn, never of people; and one picture that is no film."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from cxr.data.phantom.dataset import Plan, picture

SEED = 2026
"""Not the seed of the built-in data set: a model trained on phantoms has not seen these."""


@dataclass(frozen=True)
class Example:
    """A drawn picture.

    Attributes:
        title: what it shows, for people.
        name: file name.
        subtype: subtype of the phantom; empty for the picture that is no film.
        patient: number of the drawn patient.
    """

    title: str
    name: str
    subtype: str
    patient: int


EXAMPLES = (
    Example("Healthy chest", "drawn-healthy.jpeg", "normal", 14),
    Example("Bacterial pneumonia", "drawn-bacterial.jpeg", "bacteria", 4),
    Example("Viral pneumonia", "drawn-viral.jpeg", "virus", 3),
    Example("A letter, no film", "drawn-letter.jpeg", "", 0),
)


@cache
def draw(example: Example) -> bytes:
    """Draw an example.

    Args:
        example: one of :data:`EXAMPLES`.

    Returns:
        A JPEG file.
    """
    if not example.subtype:
        return _letter()
    return picture(Plan("test", example.subtype, example.patient, 0, example.name), SEED).data


def _letter() -> bytes:
    """A typed page: white paper with dark lines of text."""
    page = np.full((760, 560), 250, np.uint8)
    words = np.array(["the", "patient", "was", "seen", "today", "and", "sent", "home", "with", "advice", "to", "rest"])
    generator = np.random.default_rng(SEED)
    for row in range(26):
        text = " ".join(generator.choice(words, 7))
        cv2.putText(page, text, (50, 70 + 25 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 40, 1, cv2.LINE_AA)
    _, data = cv2.imencode(".jpeg", page, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return bytes(data.tobytes())
