"""Small registered models that separate a drawn healthy chest from one with pneumonia; written in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cxr.app.examples import EXAMPLES, draw_example
from cxr.files import NETWORK_FILE
from cxr.images.decoding import decode_grey
from cxr.images.recipes import apply_recipe, to_network_input
from cxr.images.strict_decoding import DecodedImage
from cxr.inference.reference.fitting import fit_reference
from cxr.inference.reference.poses import extract_posed_features
from cxr.inference.reference.reference import Reference
from cxr.promotion.candidates import RunFolders, find_candidates
from cxr.tracking.finished_run import log_evaluation
from cxr.tracking.store import Store
from cxr.tracking.versions import ensure_version
from support.model_folders import RECIPE, ModelFolders, write_models, write_store
from support.reference_limits import LIMITS

NAME = "pneumonia-classifier"
NAMES = ("three_block", "shallow")
HEALTHY, BACTERIAL, VIRAL, LETTER = (draw_example(example) for example in EXAMPLES)
PHANTOM = {"name": "phantom", "kind": "phantom", "source": "phantom", "licence": "CC0-1.0"}


def chest_network(seed: int, steepness: float) -> Any:
    """A random convolution, and a dense layer with even odds half-way between the healthy chest and the other one."""
    import keras

    keras.utils.set_random_seed(seed)
    image = keras.Input(RECIPE.input_shape)
    features = keras.layers.Flatten()(keras.layers.Conv2D(8, 3, activation="relu")(image))
    inputs = to_network_input(
        np.stack([apply_recipe(RECIPE, decode_grey(data)) for data in (HEALTHY, BACTERIAL)]), RECIPE
    )
    healthy, pneumonia = np.asarray(keras.Model(image, features).predict_on_batch(inputs))
    direction = (pneumonia - healthy) * steepness / np.sum((pneumonia - healthy) ** 2)
    model = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(features))
    model.layers[-1].set_weights([direction[:, None], np.array([-direction @ (healthy + pneumonia) / 2])])
    return model


@cache
def chest_reference() -> Reference:
    """A reference fitted on the drawn chests, each moved and exposed a little differently."""
    generator = np.random.default_rng(0)
    images = []
    for data in (HEALTHY, BACTERIAL, VIRAL):
        grey = decode_grey(data)
        height, width = grey.shape
        for _ in range(12):
            right, down, turn = generator.uniform((-0.03 * width, -0.03 * height, -3), (0.03 * width, 0.03 * height, 3))
            motion = cv2.getRotationMatrix2D((width / 2, height / 2), turn, generator.uniform(0.97, 1.03))
            motion[:, 2] += right, down
            pixels = cv2.warpAffine(grey, motion, (width, height), borderMode=cv2.BORDER_REPLICATE)
            pixels = generator.uniform(0.9, 1.1) * pixels + generator.normal(0, 3, pixels.shape)
            images.append(extract_posed_features(DecodedImage(np.clip(pixels, 0, 255).astype(np.uint8))))
    patients = [str(number % 12) for number in range(len(images))]
    return fit_reference(images, patients, dataset_kind="phantom", **LIMITS)


@dataclass(frozen=True)
class Versions:
    """A local store with versions 1 and 2, of which the first is champion."""

    uri: str
    folders: ModelFolders

    def set_alias(self, alias: str, version: str) -> None:
        Store(self.uri).client.set_registered_model_alias(NAME, alias, version)

    def remove_alias(self, alias: str) -> None:
        Store(self.uri).client.delete_registered_model_alias(NAME, alias)


def write_chest_models(root: Path) -> ModelFolders:
    """Write a reference and the folders of two models with the same labels and different probabilities."""
    folders = write_models(root, NAMES, dataset=PHANTOM)
    for seed, name in enumerate(NAMES):
        chest_network(seed, 14.0 + 6 * seed).save(folders.models / name / NETWORK_FILE)
    (root / "reference").mkdir()
    chest_reference().save(root / "reference")
    return folders


def write_versions(root: Path) -> Versions:
    """Register both models in a new store."""
    root.mkdir(parents=True, exist_ok=True)
    versions = Versions(write_store(root), write_chest_models(root / "run"))
    store = Store(versions.uri)
    store.client.create_registered_model(NAME)
    folders = versions.folders
    run = RunFolders(
        folders.models, folders.evaluations, folders.splits, include=NAMES, reference=root / "run" / "reference"
    )
    for candidate in find_candidates(run):
        run_id = log_evaluation(store, candidate.trained, candidate.evaluation, experiment="pneumonia")
        ensure_version(store, NAME, candidate, run_id)
    versions.set_alias("champion", "1")
    return versions
