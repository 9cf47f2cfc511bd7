"""Where Grad-CAM's heat lies on phantoms, whose opacities are known, and how long it takes.

Run it with ``python benchmarks/explanation.py [ARTIFACTS] [--data data] [--images 40]`` after ``make run``. Pointing is
the share of pictures whose hottest pixel lies in a box of an opacity (Zhang et al. 2016), inside the mean share of the
heat that does; both are as large as the boxes' share of the picture where heat has nothing to do with opacities.
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
from cxr.models.metadata import MODEL_FOLDER, ModelCard, model_folders


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
    pictures = [decode_grey((arguments.data / name).read_bytes()) for name in chosen]
    masks = [mask(picture.shape, known[name]["boxes"]) for name, picture in zip(chosen, pictures, strict=True)]
    area = statistics.fmean(float(one.mean()) for one in masks)
    print(f"{len(pictures)} phantoms; boxes cover {area:.2f} of a picture\n")
    print(f"{'':<20}{'gradients':>10}{'pointing':>10}{'inside':>8}{'no heat':>9}{'first s':>9}{'then s':>8}")
    folders = model_folders(arguments.artifacts / "models", arguments.artifacts / "evaluations")
    for name, (trained, judged) in folders.items():
        measure(name, Predictor.load(trained, ModelCard.read(judged)), pictures, masks)
    measure("ensemble", Predictor.load(arguments.artifacts / "ensemble" / MODEL_FOLDER), pictures, masks)


def mask(shape: tuple[int, ...], boxes: list[list[int]]) -> NDArray[np.bool_]:
    """Draw boxes.

    Args:
        shape: height and width.
        boxes: left, top, width and height of each in pixels.

    Returns:
        ``(height, width)``, true inside a box.
    """
    found = np.zeros(shape, dtype=bool)
    for left, top, width, height in boxes:
        found[top : top + height, left : left + width] = True
    return found


def measure(name: str, predictor: Predictor, pictures: list[NDArray[np.uint8]], masks: list[NDArray[np.bool_]]) -> None:
    """Print a model's lines: gradients kept in place, and averaged as in the paper.

    Args:
        name: of the model.
        predictor: the model.
        pictures: grey pictures with opacities.
        masks: where these are.
    """
    for words, averaged in (("in place", False), ("averaged", True)):
        heats, seconds = [], []
        for picture in pictures:
            started = time.perf_counter()
            heats.append(grad_cam(predictor, picture, averaged=averaged))
            seconds.append(time.perf_counter() - started)
        seen = [(heat, one) for heat, one in zip(heats, masks, strict=True) if heat.any()]
        pointing = statistics.fmean(bool(one.flat[heat.argmax()]) for heat, one in seen) if seen else float("nan")
        inside = statistics.fmean(float(heat[one].sum() / heat.sum()) for heat, one in seen) if seen else float("nan")
        print(
            f"{name:<20}{words:>10}{pointing:>10.2f}{inside:>8.2f}{len(heats) - len(seen):>9}"
            f"{seconds[0]:>9.2f}{statistics.median(seconds[1:]):>8.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
