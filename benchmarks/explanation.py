"""Where the heat of Grad-CAM is on phantoms, whose opacities are known, and how long Grad-CAM takes.

Run it with ``python benchmarks/explanation.py [ARTIFACTS] [--data data] [--images 40]`` after ``make run``. Pointing is
the share of images whose hottest pixel lies in a box of an opacity (Zhang et al. 2016), inside the mean share of the
heat that does; both are as large as the boxes' share of the image where heat has nothing to do with opacities.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.files import BOXES_FILE
from cxr.images.decoding import decode_grey
from cxr.inference.explanation import grad_cam
from cxr.inference.predictor import Predictor
from cxr.models.backend import load_keras
from cxr.models.metadata import MODEL_FOLDER, ModelMetadata, model_folders


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="?", type=Path, default=Path("artifacts"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--images", type=int, default=40, help="test phantoms with opacities")
    arguments = parser.parse_args()
    load_keras()
    known = json.loads((arguments.data / BOXES_FILE).read_text(encoding="utf-8"))
    chosen = [name for name in sorted(known) if name.startswith("test/") and known[name]["boxes"]][: arguments.images]
    images = [decode_grey((arguments.data / name).read_bytes()) for name in chosen]
    masks = [mask(image.shape, known[name]["boxes"]) for name, image in zip(chosen, images, strict=True)]
    area = statistics.fmean(float(box_mask.mean()) for box_mask in masks)
    print(f"{len(images)} phantoms; boxes cover {area:.2f} of an image\n")
    print(f"{'':<20}{'gradients':>10}{'pointing':>10}{'inside':>8}{'no heat':>9}{'first s':>9}{'then s':>8}")
    folders = model_folders(arguments.artifacts / "models", arguments.artifacts / "evaluations")
    for name, (trained, evaluated) in folders.items():
        measure(name, Predictor.load(trained, ModelMetadata.read(evaluated)), images, masks)
    measure("ensemble", Predictor.load(arguments.artifacts / "ensemble" / MODEL_FOLDER), images, masks)


def mask(shape: tuple[int, ...], boxes: list[list[int]]) -> NDArray[np.bool_]:
    """Draw boxes.

    Args:
        shape: height and width.
        boxes: left, top, width and height of each in pixels.

    Returns:
        ``(height, width)``, true inside a box.
    """
    inside = np.zeros(shape, dtype=bool)
    for left, top, width, height in boxes:
        inside[top : top + height, left : left + width] = True
    return inside


def measure(name: str, predictor: Predictor, images: list[NDArray[np.uint8]], masks: list[NDArray[np.bool_]]) -> None:
    """Print a model's lines: gradients kept in place, and averaged as in the paper.

    Args:
        name: of the model.
        predictor: the model.
        images: grey images with opacities.
        masks: where these are.
    """
    for name_of_way, average_gradients in (("in place", False), ("averaged", True)):
        heats, seconds = [], []
        for image in images:
            started = time.perf_counter()
            heats.append(grad_cam(predictor, image, average_gradients=average_gradients))
            seconds.append(time.perf_counter() - started)
        pairs = [(heat, box_mask) for heat, box_mask in zip(heats, masks, strict=True) if heat.any()]
        pointing = (
            statistics.fmean(bool(box_mask.flat[heat.argmax()]) for heat, box_mask in pairs) if pairs else float("nan")
        )
        inside = (
            statistics.fmean(float(heat[box_mask].sum() / heat.sum()) for heat, box_mask in pairs)
            if pairs
            else float("nan")
        )
        print(
            f"{name:<20}{name_of_way:>10}{pointing:>10.2f}{inside:>8.2f}{len(heats) - len(pairs):>9}"
            f"{seconds[0]:>9.2f}{statistics.median(seconds[1:]):>8.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
