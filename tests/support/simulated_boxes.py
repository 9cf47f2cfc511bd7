"""Made-up but realistic images with opacities, and predicted boxes: some are missed, and normal images get some."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from cxr.data.dataset import DatasetCard
from cxr.regions.evaluation import RegionEvaluation, RegionMethod, RegionSettings, evaluate_regions
from cxr.regions.matching import BOX_COLUMNS, PREDICTION_COLUMNS
from cxr.regions.operating_point import HEAT_LEVEL
from cxr.regions.reference_boxes import PriorBoxes

PHANTOM_CARD = DatasetCard("phantom", "phantom", "phantom", 400, 1, "CC0-1.0")
PATIENTS_CARD = DatasetCard("rsna", "patients", "rsna.zip", 400, 1, "unknown")
SETTINGS = RegionSettings(
    box_scales=(0.8, 0.9, 1.0, 1.1), iou_threshold=0.4, false_positives=0.5, resamples=100, seed=0
)


def annotated_images(count: int = 400, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images of train, validation and test with several sizes, two or so a patient, and their opacities."""
    generator = np.random.default_rng(seed)
    images, boxes = [], []
    for number in range(count):
        subtype = ("normal", "bacteria", "virus", "normal", "bacteria")[number % 5]
        split = ("train", "validation", "test")[number // 10 % 3]
        height, width = (int(side) for side in generator.integers(300, 600, 2))
        path = f"{split}/{number:03d}.jpeg"
        difficulty = np.nan if subtype == "normal" else round(float(generator.uniform()), 3)
        label = "NORMAL" if subtype == "normal" else "PNEUMONIA"
        images.append((path, f"patient-{number // 10}-{number % 5}", label, subtype, difficulty, split, height, width))
        sides = {"normal": (), "bacteria": (generator.integers(2),), "virus": (0, 1)}[subtype]
        for side in sides:
            left, top = 0.16 + 0.42 * side + 0.04 * generator.standard_normal(), generator.uniform(0.2, 0.5)
            size = generator.uniform(0.18, 0.3), generator.uniform(0.2, 0.45)
            row = np.round(np.array([left, top, *size]) * np.tile([width, height], 2))
            boxes.append((path, *row.tolist()))
    columns = ["path", "group", "label", "subtype", "difficulty", "split", "height", "width"]
    return pd.DataFrame(images, columns=columns), pd.DataFrame(boxes, columns=BOX_COLUMNS)


def detected_boxes(
    images: pd.DataFrame, boxes: pd.DataFrame, *, noise: float = 0.12, scale: float = 1.0, seed: int = 1
) -> pd.DataFrame:
    """Predicted boxes: each opacity with an error in proportion to its size, hits less sure if it is faint."""
    generator = np.random.default_rng(seed)
    rows = []
    for image in images.itertuples():
        for _, x, y, width, height in boxes[boxes["path"] == image.path].itertuples(index=False):
            error = noise * generator.standard_normal(4) * [width, height, width, height]
            x, y, width, height = np.array([x, y, width, height]) + error
            score = expit(2.5 - 3 * image.difficulty + generator.standard_normal())
            grown = (scale - 1) * width, (scale - 1) * height
            rows.append((image.path, x - grown[0] / 2, y - grown[1] / 2, width + grown[0], height + grown[1], score))
        for _ in range(generator.poisson(1.2)):
            x, y = generator.uniform(0.1, 0.6, 2) * [image.width, image.height]
            width, height = generator.uniform(0.15, 0.35, 2) * [image.width, image.height]
            rows.append((image.path, x, y, width, height, expit(-2 + generator.standard_normal())))
    return pd.DataFrame(rows, columns=PREDICTION_COLUMNS)


def region_methods(images: pd.DataFrame, boxes: pd.DataFrame) -> dict[str, RegionMethod]:
    """A detector and the reference methods."""
    generator = np.random.default_rng(3)
    prior = PriorBoxes.fit(images[images["split"] == "train"], boxes)
    log_odds = np.where(images["label"] == "PNEUMONIA", 2.0, -2.0) + 1.2 * generator.standard_normal(len(images))
    probability = dict(zip(images["path"], expit(log_odds).tolist(), strict=True))
    heat = [
        detected_boxes(images, boxes, noise=0.3, scale=scale, seed=4).assign(**{HEAT_LEVEL: level})
        for level, scale in ((0.3, 1.6), (0.5, 1.1), (0.7, 0.6))
    ]
    return {
        "detector": RegionMethod("Detector", detected_boxes(images, boxes)),
        "heat": RegionMethod("Grad-CAM boxes", pd.concat(heat, ignore_index=True)),
        "prior_with_classifier": RegionMethod("Prior boxes, with classifier", prior.predict(images, probability)),
        "prior": RegionMethod("Prior boxes", prior.predict(images)),
    }


def judged(card: DatasetCard = PHANTOM_CARD, count: int = 400, **methods: Any) -> RegionEvaluation:
    """Evaluate simulated predictions."""
    images, boxes = annotated_images(count)
    return evaluate_regions(images, boxes, methods or region_methods(images, boxes), card, SETTINGS)
