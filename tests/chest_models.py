"""Registered models that tell one drawn healthy chest from one with pneumonia: small, real, and made in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxr.app.examples import EXAMPLES, draw
from cxr.card import MODEL_NAME
from cxr.images import decode_grey
from cxr.recipes import apply, as_input
from cxr.tracking.connection import client
from cxr.tracking.runs import log_evaluation
from cxr.tracking.versions import candidates, ensure_version
from model_folders import RECIPE, Folders, write_models, write_store

NAME = "pneumonia-classifier"
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
    """Write the folders of two models that answer alike for label and differently for probability."""
    folders = write_models(root, ("three_block", "shallow"), dataset=PHANTOM)
    for seed, name in enumerate(("three_block", "shallow")):
        chest_network(seed, 14.0 + 6 * seed).save(folders.models / name / MODEL_NAME)
    return folders


def write_versions(root: Path) -> Versions:
    """Register both models in a store of their own."""
    root.mkdir(parents=True, exist_ok=True)
    made = Versions(write_store(root), write_chest_models(root / "run"))
    connected = client(made.uri)
    connected.create_registered_model(NAME)
    for one in candidates(made.folders.models, made.folders.evaluations, ("three_block", "shallow")):
        run_id = log_evaluation(one.trained, one.evaluation, uri=made.uri, experiment="pneumonia")
        ensure_version(connected, made.uri, NAME, one, str(run_id))
    made.give("champion", "1")
    return made
