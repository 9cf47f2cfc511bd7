"""Models that each see one half of an image: together they know more than any of them alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.evaluation.evaluate import evaluate
from cxr.evaluation.files import write_evaluation
from cxr.files import NETWORK_FILE
from cxr.images.recipes import Recipe
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelCard
from cxr.steps.ensemble import Ensemble
from support.model_folders import CPU, RECIPE, Folders, card, write_splits

LARGER = Recipe("s4_resize", "S4", size=24, channels=3)
MEMBERS = {"left": (RECIPE, 18.0), "reversed": (RECIPE, -18.0), "right": (LARGER, 18.0)}
"""Name to recipe and steepness; the one that sees the left half the wrong way round deserves no weight."""
USED = ["left", "right"]


def _network(name: str) -> Any:
    """Logistic in the mean grey of one half of the image, 120 being even odds."""
    import keras

    recipe, steepness = MEMBERS[name]
    size, _, channels = recipe.input_shape
    kernel = np.zeros((size, size, channels))
    half = slice(size // 2, None) if name == "right" else slice(None, size // 2)
    kernel[:, half] = steepness / kernel[:, half].size
    image = keras.Input(recipe.input_shape)
    model = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(image)))
    model.layers[-1].set_weights([kernel.reshape(-1, 1), np.array([-steepness * 120 / 255])])
    return model


def write_members(root: Path, seed: int = 0, **changes: Any) -> Folders:
    """Write images, models and evaluations; half of the 120 images are validation, two a patient."""
    generator = np.random.default_rng(seed)
    images, rows = root / "images", []
    images.mkdir(parents=True)
    for number in range(120):
        sick = number % 4 < 2
        grey = 113 + 14 * sick + 16 * generator.standard_normal(2)
        picture = np.repeat(grey, 24) + generator.normal(0, 8, size=(40, 48))
        path = f"{number:03d}.png"
        cv2.imwrite(str(images / path), np.clip(picture, 0, 255).astype(np.uint8))
        patient, split = f"patient-{number // 2}", "validation" if number % 8 < 4 else "test"
        subtype = "virus" if sick else "normal"
        rows.append((path, patient, patient, PNEUMONIA if sick else NORMAL, subtype, split))
    table = pd.DataFrame(rows, columns=["path", "patient", "group", "label", "subtype", "split"])
    folders = Folders(root / "models", root / "evaluations", [images / path for path in table["path"]])
    write_splits(folders, table)
    for name, (recipe, _) in MEMBERS.items():
        trained, judged = folders.models / name, folders.evaluations / name
        trained.mkdir(parents=True)
        judged.mkdir(parents=True)
        _network(name).save(trained / NETWORK_FILE)
        own = card(
            name, recipe=recipe.to_dict(), input_shape=recipe.input_shape, training={"device": CPU, "seconds": 1.5}
        )
        own = ModelCard(**{**vars(own), **changes})
        own.write(trained)
        (trained / "training.json").write_text(json.dumps({"run_id": None}))
        predictor = Predictor.load(trained)
        found = evaluate(
            table.assign(probability_raw=predictor.probabilities(predictor.prepare(folders.images))), resamples=100
        )
        write_evaluation(judged, found)
        own.completed(found.temperature, found.point.threshold, found.point.sentence()).write(judged)
    return folders


def ensemble_step(folders: Folders, ensemble: Path, **changes: Any) -> Ensemble:
    """The step with few replicates, logging nothing."""
    values: dict[str, Any] = {
        "models": folders.models,
        "evaluations": folders.evaluations,
        "data": folders.images[0].parent,
        "ensemble": ensemble,
        "resamples": 200,
        "tracking_uri": "",
    }
    return Ensemble.build({**values, **changes})
