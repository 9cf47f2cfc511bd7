"""Registered models that tell one drawn healthy chest from one with pneumonia: small, real, and made in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cxr.app.examples import EXAMPLES, draw
from cxr.files import NETWORK_FILE
from cxr.images.decoding import Picture, decode_grey
from cxr.images.recipes import apply, as_input
from cxr.inference.reference.fitting import described, fit
from cxr.inference.reference.reference import Reference
from cxr.tracking.connection import client
from cxr.tracking.runs import log_evaluation
from cxr.tracking.versions import candidates, ensure_version
from support.model_folders import RECIPE, Folders, write_models, write_store

NAME = "pneumonia-classifier"
NAMES = ("three_block", "shallow")
HEALTHY, BACTERIAL, VIRAL, LETTER = (draw(one) for one in EXAMPLES)
PHANTOM = {"name": "phantom", "kind": "phantom", "source": "phantom", "licence": "CC0-1.0"}


def chest_network(seed: int, steepness: float) -> Any:
    """A random convolution, and a dense layer with even odds half-way between the healthy chest and the ill one."""
    import keras

    keras.utils.set_random_seed(seed)
    image = keras.Input(RECIPE.input_shape)
    features = keras.layers.Flatten()(keras.layers.Conv2D(8, 3, activation="relu")(image))
    films = as_input(np.stack([apply(RECIPE, decode_grey(data)) for data in (HEALTHY, BACTERIAL)]), RECIPE)
    healthy, ill = np.asarray(keras.Model(image, features).predict_on_batch(films))
    direction = (ill - healthy) * steepness / np.sum((ill - healthy) ** 2)
    model = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(features))
    model.layers[-1].set_weights([direction[:, None], np.array([-direction @ (healthy + ill) / 2])])
    return model


def chest_reference() -> Reference:
    """What chest films look like: the drawn ones, each a little moved and exposed otherwise."""
    generator = np.random.default_rng(0)
    films = []
    for data in (HEALTHY, BACTERIAL, VIRAL):
        grey = decode_grey(data)
        height, width = grey.shape
        for _ in range(12):
            right, down, turn = generator.uniform((-0.03 * width, -0.03 * height, -3), (0.03 * width, 0.03 * height, 3))
            moved = cv2.getRotationMatrix2D((width / 2, height / 2), turn, generator.uniform(0.97, 1.03))
            moved[:, 2] += right, down
            film = cv2.warpAffine(grey, moved, (width, height), borderMode=cv2.BORDER_REPLICATE)
            film = generator.uniform(0.9, 1.1) * film + generator.normal(0, 3, film.shape)
            films.append(described(Picture(np.clip(film, 0, 255).astype(np.uint8))))
    return fit(films, [str(number % 12) for number in range(len(films))], dataset_kind="phantom")


@dataclass(frozen=True)
class Versions:
    """A local store with versions 1 and 2, of which the first is champion."""

    uri: str
    folders: Folders

    def give(self, alias: str, version: str) -> None:
        client(self.uri).set_registered_model_alias(NAME, alias, version)

    def take(self, alias: str) -> None:
        client(self.uri).delete_registered_model_alias(NAME, alias)


def write_chest_models(root: Path) -> Folders:
    """Write the folders of two models that answer alike for label and differently for probability, and a reference."""
    folders = write_models(root, NAMES, dataset=PHANTOM)
    for seed, name in enumerate(NAMES):
        chest_network(seed, 14.0 + 6 * seed).save(folders.models / name / NETWORK_FILE)
    (root / "reference").mkdir()
    chest_reference().save(root / "reference")
    return folders


def write_versions(root: Path) -> Versions:
    """Register both models in a store of their own."""
    root.mkdir(parents=True, exist_ok=True)
    made = Versions(write_store(root), write_chest_models(root / "run"))
    connected = client(made.uri)
    connected.create_registered_model(NAME)
    for one in candidates(made.folders.models, made.folders.evaluations, NAMES, reference=root / "run" / "reference"):
        run_id = log_evaluation(one.trained, one.evaluation, uri=made.uri, experiment="pneumonia")
        ensure_version(connected, made.uri, NAME, one, str(run_id))
    made.give("champion", "1")
    return made
