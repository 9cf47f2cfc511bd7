"""Noise with bright rectangles for opacities, as prepared images with annotations, and a small detector for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from cxr.data.boxes import AnnotatedImage, BoxAnnotations
from cxr.data.dataset import DatasetCard
from cxr.images.prepared import PreparedImages
from cxr.images.recipes import recipe_named
from cxr.regions.session import RegionTrainingSession, RegionTrainingSettings
from cxr.steps.train_regions import TrainRegions
from cxr.training.split_data import SplitData

SIDE = 96
RECIPE = recipe_named("s4_resize", size=SIDE)
WIDTH, HEIGHT = 2 * SIDE, SIDE
"""Size of the originals: their boxes are twice as wide as those of the prepared images."""


@dataclass(frozen=True)
class DrawnRectangles:
    """What a training of a detector reads."""

    prepared: PreparedImages
    data: SplitData
    annotations: BoxAnnotations
    manifest: pd.DataFrame

    def session(self, folder: Path, **changes: Any) -> RegionTrainingSession:
        """A training of a small detector from its seed; its statistics follow few steps."""
        session = RegionTrainingSession(
            region_settings(**changes), self.prepared, self.data, self.annotations, self.manifest, folder, resume=True
        )
        for layer in session.network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.5
        return session


def region_settings(**changes: Any) -> RegionTrainingSettings:
    """Settings of a small detector, otherwise with the defaults of the step train_regions."""
    required = {"model": "any", "prepared": "prepared", "trained": "trained"}
    small = {"channels": 32, "convolutions": 1, "learning_rate": 3e-3, "batch_size": 8}
    return TrainRegions.build({**required, **small, **changes}).settings()


def draw_rectangles(*, train: int = 32, validation: int = 12, seed: int = 1, kind: Any = "patients") -> DrawnRectangles:
    """Draw images; every third one is normal, the others have one or two rectangles."""
    generator = np.random.default_rng(seed)
    count = train + validation
    images = generator.normal(75, 12, (count, SIDE, SIDE, 1))
    annotations: dict[str, AnnotatedImage] = {}
    names = [f"{number:03d}.png" for number in range(count)]
    for number, name in enumerate(names):
        boxes = []
        for left_half in range(number % 3):
            width, height = generator.integers(18, 36, 2)
            left = left_half * SIDE // 2 + generator.integers(0, SIDE // 2 - width)
            top = generator.integers(0, SIDE - height)
            images[number, top : top + height, left : left + width] += 120
            boxes.append([2 * left, top, 2 * (left + width), top + height])
        corners = np.array(boxes, np.float32).reshape(-1, 4)
        annotations[name] = AnnotatedImage(corners, 0.5 if boxes else None, None)
    labels = ["PNEUMONIA" if number % 3 else "NORMAL" for number in range(count)]
    splits = ["train"] * train + ["validation"] * validation
    return DrawnRectangles(
        PreparedImages(
            images.clip(0, 255).astype(np.uint8),
            pd.DataFrame({"path": names, "row": range(count)}),
            RECIPE,
            {name: number for number, name in enumerate(names)},
        ),
        SplitData(
            pd.DataFrame({"path": names, "label": labels, "split": splits}),
            DatasetCard("drawn", kind, "test", count, 1, "none"),
            "d" * 64,
            "grouped",
            "5" * 64,
        ),
        BoxAnnotations(annotations),
        pd.DataFrame({"path": names, "height": HEIGHT, "width": WIDTH}),
    )
