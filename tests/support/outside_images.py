"""Drawn chests as another hospital could send them: moved and exposed a little differently, or changed on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.images.decoding import decode_grey
from support.chest_models import BACTERIAL, HEALTHY

Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def draw_chests(count: int, *, seed: int = 0, change: Change | None = None) -> dict[str, tuple[bytes, str]]:
    """Draw chests, healthy and with pneumonia in turn: name of the file to its PNG and its label."""
    generator = np.random.default_rng(seed)
    files = {}
    for number in range(count):
        label = (NORMAL, PNEUMONIA)[number % 2]
        grey = decode_grey(BACTERIAL if label == PNEUMONIA else HEALTHY)
        height, width = grey.shape
        right, down, turn = generator.uniform((-0.01 * width, -0.01 * height, -1), (0.01 * width, 0.01 * height, 1))
        motion = cv2.getRotationMatrix2D((width / 2, height / 2), turn, generator.uniform(0.99, 1.01))
        motion[:, 2] += right, down
        pixels = cv2.warpAffine(grey, motion, (width, height), borderMode=cv2.BORDER_REPLICATE)
        pixels = generator.uniform(0.95, 1.05) * pixels + generator.normal(0, 3, pixels.shape)
        image = np.clip(pixels, 0, 255).astype(np.uint8)
        _, data = cv2.imencode(".png", image if change is None else change(image))
        files[f"{number:08d}_000.png"] = data.tobytes(), label
    return files


def write_class_folders(folder: Path, files: dict[str, tuple[bytes, str]]) -> Path:
    """Write images into the folders of their classes."""
    for name, (data, label) in files.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / name).write_bytes(data)
    return folder
