"""Folders of a small training as the steps before it write them, and what a trained model's folder holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pandas as pd

from cxr.data.image_folder import ImageFolder
from cxr.images.preparation import prepare_images
from cxr.images.recipes import recipe_named

SIDE = 24


def write_training_folders(root: Path, *, train: int, validation: int) -> dict[str, Path]:
    """Manifest, split and prepared images of noise with a brighter patch for pneumonia.

    Returns:
        Field of the step train to the folder.
    """
    generator = np.random.default_rng(0)
    rows = []
    (root / "data").mkdir(parents=True)
    for number in range(train + validation):
        label = number % 2
        image = generator.integers(0, 120, (SIDE, SIDE), dtype=np.uint8)
        image[5:13, 5:13] += np.uint8(80 * label)
        cv2.imwrite(str(root / "data" / f"{number}.png"), image)
        split = "train" if number < train else "validation"
        rows.append((f"{number}.png", ("NORMAL", "PNEUMONIA")[label], str(number), split))
    splits = pd.DataFrame(rows, columns=["path", "label", "group", "split"])
    folders = {name: root / name for name in ("manifest", "splits", "prepared")}
    for name in ("manifest", "splits"):
        folders[name].mkdir()
    splits.to_parquet(folders["splits"] / "splits.parquet")
    achieved = {"digest": "5" * 64, "protocol": "grouped"}
    (folders["splits"] / "achieved.json").write_text(json.dumps(achieved))
    (folders["manifest"] / "summary.json").write_text(json.dumps({"digest": "d" * 64}))
    card = {"name": "drawn", "kind": "patients", "source": "test", "images": len(rows), "bytes": 1, "licence": "none"}
    (folders["manifest"] / "dataset.json").write_text(json.dumps(card))
    recipe = recipe_named("s1_resize", size=SIDE)
    images = ImageFolder(root / "data")
    prepare_images(images, splits["path"].tolist(), recipe, folders["prepared"], workers=None, progress=False)
    return folders


def train_arguments(values: Mapping[str, Any]) -> list[str]:
    """Command line of the step train."""
    texts = {field: value if isinstance(value, str) else json.dumps(value) for field, value in values.items()}
    return ["train", *(part for field, text in texts.items() for part in (f"--{field}", text))]


def read_trained(folder: Path) -> tuple[list[np.ndarray], pd.DataFrame, dict[str, Any]]:
    """Weights, history, and the facts of ``training.json`` of a trained model."""
    network = keras.saving.load_model(folder / "model.keras", compile=False)
    history = pd.read_csv(folder / "history.csv")
    return network.get_weights(), history, json.loads((folder / "training.json").read_text())
