"""Models that each see one half of an image: together they are better than each of them alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.data.image_folder import ImageFolder
from cxr.evaluation.files import write_evaluation
from cxr.evaluation.stress_test import draw_stress_sample, predict_changed_images, with_stress_test
from cxr.files import NETWORK_FILE
from cxr.images.preparation import prepare_images
from cxr.images.recipes import Recipe
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.steps.ensemble import Ensemble
from support.model_folders import CPU, RECIPE, ModelFolders, make_metadata, write_splits
from support.simulated_predictions import evaluated

LARGER = Recipe("s4_resize", "S4", size=24, channels=3)
MEMBERS = {"left": (RECIPE, 18.0), "reversed": (RECIPE, -18.0), "right": (LARGER, 18.0)}
"""Name to recipe and steepness. `reversed` has the wrong sign and should get no weight."""
USED = ["left", "right"]


def _network(name: str) -> Any:
    """Logistic function of the mean grey of one half of the image, with even odds at 120."""
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


def write_members(root: Path, seed: int = 0, **changes: Any) -> ModelFolders:
    """Write images, models and evaluations; half of the 120 images are validation, two a patient."""
    generator = np.random.default_rng(seed)
    images, rows = root / "images", []
    images.mkdir(parents=True)
    for number in range(120):
        pneumonia = number % 4 < 2
        grey = 113 + 14 * pneumonia + 16 * generator.standard_normal(2)
        pixels = np.repeat(grey, 24) + generator.normal(0, 8, size=(40, 48))
        path = f"{number:03d}.png"
        cv2.imwrite(str(images / path), np.clip(pixels, 0, 255).astype(np.uint8))
        patient, split = f"patient-{number // 2}", "validation" if number % 8 < 4 else "test"
        subtype = "virus" if pneumonia else "normal"
        rows.append((path, patient, patient, PNEUMONIA if pneumonia else NORMAL, subtype, split))
    table = pd.DataFrame(rows, columns=["path", "patient", "group", "label", "subtype", "split"])
    folders = ModelFolders(root / "models", root / "evaluations", [images / path for path in table["path"]])
    write_splits(folders, table)
    for name, (recipe, _) in MEMBERS.items():
        trained, evaluation_folder = folders.models / name, folders.evaluations / name
        trained.mkdir(parents=True)
        evaluation_folder.mkdir(parents=True)
        _network(name).save(trained / NETWORK_FILE)
        metadata = make_metadata(
            name, recipe=recipe.to_dict(), input_shape=recipe.input_shape, training={"device": CPU, "seconds": 1.5}
        )
        metadata = ModelMetadata(**{**vars(metadata), **changes})
        metadata.write(trained)
        (trained / "training.json").write_text(json.dumps({"run_id": None}))
        predictor = Predictor.load(trained)
        prepared = prepare_images(
            ImageFolder(images), table["path"].tolist(), recipe, root / "prepared" / name, workers=1, progress=False
        )
        evaluation = evaluated(
            table.assign(probability_raw=predictor.probabilities(np.asarray(prepared.images))), resamples=100
        )
        sample = draw_stress_sample(table, images=24, seed=0)
        changed = predict_changed_images(predictor, prepared, sample, batch_size=64)
        evaluation = with_stress_test(evaluation, changed, resamples=100, seed=0)
        write_evaluation(evaluation_folder, evaluation)
        evaluation.calibrate(metadata).write(evaluation_folder)
    return folders


def ensemble_step(folders: ModelFolders, ensemble: Path, **changes: Any) -> Ensemble:
    """The step with few replicates and without tracking."""
    values: dict[str, Any] = {
        "models": folders.models,
        "evaluations": folders.evaluations,
        "data": folders.images[0].parent,
        "ensemble": ensemble,
        "resamples": 200,
        "tracking_uri": "",
    }
    return Ensemble.build({**values, **changes})
