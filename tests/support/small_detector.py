"""A detector whose weights are written by hand: it draws boxes around what is brighter than its surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.files import METADATA_FILE, NETWORK_FILE, REFERENCE_FILE
from cxr.images.recipes import Recipe
from cxr.inference.reference.reference import Reference
from cxr.models.metadata import DetectorMetadata, ModelMetadata
from cxr.regions.anchors import make_anchors
from cxr.regions.predictor import anchors_version
from cxr.tracking.registry_reader import MODEL_PATH
from cxr.tracking.store import Store
from support.model_folders import make_metadata

NAME = "pneumonia-regions"
MODEL = "small_detector"
SIDE, CELL = 96, 4
_ANCHOR = (47.738, 44.854, 64.262, 67.146)
"""Left, top, right and bottom of the anchor of level p4 in column 3, row 3, with its smaller size and ratio 1.35."""
PHANTOM = {"name": "phantom", "kind": "phantom", "source": "phantom", "licence": "CC0-1.0"}
PATIENTS = {"name": "kermany", "kind": "patients"}


Box = tuple[int, int, int, int]
"""x, y, width, height."""


def bright_rectangle(height: int, width: int) -> tuple[NDArray[np.uint8], Box]:
    """A dark image with a bright rectangle where the detector has an anchor after squashing, and the rectangle."""
    left, top, right, bottom = _ANCHOR
    x, y = round(left * width / SIDE), round(top * height / SIDE)
    columns, rows = round((right - left) * width / SIDE), round((bottom - top) * height / SIDE)
    image = np.full((height, width), 40, np.uint8)
    image[y : y + rows, x : x + columns] = 220
    return image, (x, y, columns, rows)


def png(image: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def overlap(first: Any, second: Any) -> float:
    """Intersection over union of two boxes x, y, width, height."""
    lows = np.maximum(first[:2], second[:2])
    highs = np.minimum(np.add(first[:2], first[2:]), np.add(second[:2], second[2:]))
    shared = float(np.prod(np.maximum(highs - lows, 0)))
    return shared / (float(np.prod(first[2:])) + float(np.prod(second[2:])) - shared)


def detector_network() -> Any:
    """An anchor's logit grows with the brightness inside it and falls with that of the ring around it."""
    from keras import Input, Model, layers

    anchors = make_anchors(SIDE) / CELL
    centres = np.arange(SIDE // CELL) + 0.5
    kernel = np.zeros((len(centres) ** 2, len(anchors)), np.float32)
    for number, (left, top, right, bottom) in enumerate(anchors):
        inside = _cells(centres, left, right, top, bottom)
        margin = 0.25 * (right - left), 0.25 * (bottom - top)
        ring = _cells(centres, left - margin[0], right + margin[0], top - margin[1], bottom + margin[1]) & ~inside
        if inside.any() and ring.any():
            contrast = inside / inside.sum() - ring / ring.sum()
            kernel[:, number] = 2 * np.sqrt(inside.sum()) * contrast.ravel()
    image = Input((SIDE, SIDE, 3))
    brightness = layers.Flatten()(layers.AveragePooling2D(CELL)(image[..., :1]))
    logits = layers.Dense(len(anchors), name="class_logits")(brightness)
    deltas = layers.Concatenate()([layers.Reshape((-1, 1))(layers.Rescaling(0.0)(logits))] * 4)
    image_logit = layers.Dense(1, kernel_initializer="zeros", name="image_logit")(brightness)
    model = Model(image, {"class_logits": logits, "box_deltas": deltas, "image_logit": image_logit})
    model.get_layer("class_logits").set_weights([kernel, np.full(len(anchors), -4.0)])
    return model


def _cells(centres: NDArray[np.float64], left: float, right: float, top: float, bottom: float) -> NDArray[np.bool_]:
    columns, rows = (centres > left) & (centres < right), (centres > top) & (centres < bottom)
    return np.asarray(rows[:, np.newaxis] & columns)


@dataclass(frozen=True)
class DetectorFolders:
    """Folders of a trained detector and its evaluation, as the pipeline lays them out."""

    trained: Path
    evaluation: Path

    @property
    def metadata(self) -> ModelMetadata:
        return ModelMetadata.read(self.evaluation)


def write_detector(
    root: Path,
    *,
    dataset: dict[str, str] = PHANTOM,
    threshold: float = 0.5,
    box_scale: float = 1.0,
    fit: str = "squash",
) -> DetectorFolders:
    """Write a detector below ``root``: models/NAME and evaluations/NAME."""
    folders = DetectorFolders(root / "models" / MODEL, root / "evaluations" / MODEL)
    folders.trained.mkdir(parents=True)
    folders.evaluation.mkdir(parents=True)
    detector_network().save(folders.trained / NETWORK_FILE)
    recipe = Recipe("s4_resize", "S4", size=SIDE, channels=3, fit=fit)
    detector = DetectorMetadata("by_hand", False, anchors_version(SIDE), 0.05, 0.1, 20)
    metadata = make_metadata(
        MODEL, system="S1", recipe=recipe.to_dict(), input_shape=recipe.input_shape, dataset=dataset, detector=detector
    )
    metadata.write(folders.trained)
    metadata.with_box_choice(threshold, box_scale, "chosen by hand").write(folders.evaluation)
    return folders


def add_version(uri: str, folders: DetectorFolders, *, reference: Reference | None = None, name: str = NAME) -> str:
    """Register a detector as a version with nothing but what a service reads, and return its number."""
    from mlflow.exceptions import MlflowException

    client = Store(uri).client
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        assert error.error_code == "RESOURCE_ALREADY_EXISTS"
    number = len(client.search_model_versions(f"name = '{name}'")) + 1
    source = folders.trained.parent.parent / f"version-{number}"
    folder = source / MODEL_PATH
    folder.mkdir(parents=True)
    (folder / NETWORK_FILE).write_bytes((folders.trained / NETWORK_FILE).read_bytes())
    (folder / METADATA_FILE).write_bytes((folders.evaluation / METADATA_FILE).read_bytes())
    if reference is not None:
        reference.save(folder)
        assert (folder / REFERENCE_FILE).is_file()
    return str(client.create_model_version(name, source.as_uri()).version)


def set_detector_alias(uri: str, alias: str, version: str, name: str = NAME) -> None:
    Store(uri).client.set_registered_model_alias(name, alias, version)
