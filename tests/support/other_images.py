"""Images that are not chest radiographs: photographs from installed packages, and drawn images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import sklearn.datasets
from numpy.typing import NDArray

Grey = NDArray[np.uint8]


def photographs() -> Iterator[tuple[str, Path]]:
    """Coloured photographs: name and file."""
    yield "portrait", Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    for name in ("china", "flower"):
        yield name, Path(sklearn.datasets.__file__).parent / "images" / f"{name}.jpg"


def document() -> Grey:
    """A page of text."""
    page = np.full((1100, 850), 255, dtype=np.uint8)
    for line in range(60, 1040, 24):
        cv2.putText(page, "findings: no consolidation, " * 2, (50, line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 0, 1)
    return page


def leg() -> Grey:
    """Soft tissue with two long bones."""
    rows, columns = np.mgrid[:900, :500]
    image = 20 + 80 * np.exp(-(((columns - 250) / 130.0) ** 4))
    for centre, width in ((220, 35), (310, 18)):
        image += 90 * (np.abs(columns - centre - 10 * np.sin(rows / 300)) < width)
    return cv2.GaussianBlur(np.clip(image, 0, 255).astype(np.uint8), (0, 0), 3)


def skull() -> Grey:
    """A bright oval with a brighter rim."""
    rows, columns = np.mgrid[:600, :600]
    inside = ((columns - 300) / 200.0) ** 2 + ((rows - 300) / 260.0) ** 2
    image = 10 + 150 * (inside < 1) + 60 * ((inside < 1) & (inside > 0.85))
    return cv2.GaussianBlur(np.clip(image, 0, 255).astype(np.uint8), (0, 0), 4)


def other_images() -> Iterator[tuple[str, Grey]]:
    """Grey images of other things: name and ``(height, width)`` uint8."""
    for name, path in photographs():
        photograph = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        height, width = (side // 2 for side in photograph.shape)
        yield name, photograph
        yield f"lower corner of {name}", np.ascontiguousarray(photograph[height:, width:])
    yield "document", document()
    yield "leg", leg()
    yield "skull", skull()
    yield "noise", np.random.default_rng(0).integers(0, 256, (500, 600), dtype=np.uint8)
    yield "black", np.zeros((500, 600), dtype=np.uint8)
    yield "white", np.full((500, 600), 255, dtype=np.uint8)
    yield "gradient", np.tile(np.linspace(0, 255, 600).astype(np.uint8), (500, 1))
