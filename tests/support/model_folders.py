"""Small real models with their folders, as training and evaluation leave them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.evaluation.calibration import apply_temperature
from cxr.files import NETWORK_FILE, without_nan
from cxr.images.decoding import decode_grey
from cxr.images.recipes import Recipe, apply_recipe, to_network_input
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.models.prediction_sets import PredictionSets
from cxr.tracking.relocation import correct_addresses
from cxr.tracking.store import Store
from support.shared_folders import made_once
from support.simulated_predictions import evaluated

RECIPE = Recipe("s2_resize", "S2", size=16, channels=1)
HISTORY = "epoch,loss,auroc,val_loss,val_auroc\n1,0.7,0.5,0.6,\n2,0.5,0.8,0.55,0.9\n3,0.4,0.9,0.5,0.95\n"
TEMPERATURE, THRESHOLD = 2.5, 0.6
"""Above 1, which is what makes rounding near 0 and 1 visible."""
CPU = {"kind": "cpu", "name": "test processor", "framework": "tensorflow", "driver": None}
GPU = {"kind": "gpu", "name": "test GPU", "framework": "tensorflow", "driver": "1.2"}


@cache
def _empty_store() -> bytes:
    """Content of a local MLflow store without runs: creating one takes seconds, writing it does not."""

    def make(folder: Path) -> None:
        folder.mkdir()
        Store(f"sqlite:///{folder}/mlflow.db").connect()

    return (made_once("empty-store", make) / "mlflow.db").read_bytes()


def write_store(folder: Path, name: str = "mlflow.db") -> str:
    """Write an empty local store and return its address."""
    (folder / name).write_bytes(_empty_store())
    correct_addresses((folder / name).absolute())  # the store was made in another folder
    return f"sqlite:///{folder}/{name}"


@cache
def _image_files(count: int) -> dict[str, bytes]:
    """Grey images as encoded files, with a brighter patch for pneumonia; half of them are PNG."""
    generator = np.random.default_rng(0)
    files = {}
    for number in range(count):
        pixels = generator.normal(100, 25, size=(40, 52))
        if number % 2:
            pixels[10:30, 8:24] += 30
        suffix = ".png" if number % 4 < 2 else ".jpeg"
        _, data = cv2.imencode(suffix, np.clip(pixels, 0, 255).astype(np.uint8))
        files[f"{number:02d}-{(NORMAL, PNEUMONIA)[number % 2]}{suffix}"] = data.tobytes()
    return files


def write_images(folder: Path, count: int = 48) -> list[Path]:
    """Write the images; the label is in the name."""
    folder.mkdir(parents=True)
    for name, data in _image_files(count).items():
        (folder / name).write_bytes(data)
    return [folder / name for name in _image_files(count)]


def small_network(seed: int, *, outputs: int = 1, gain: float = 4.0) -> Any:
    """A random convolution and a dense layer that separates the classes; a higher ``gain`` gives surer predictions."""
    import keras

    keras.utils.set_random_seed(seed)
    image = keras.Input(RECIPE.input_shape)
    x = keras.layers.Conv2D(8, 3, activation="relu")(image)
    features = keras.Model(image, keras.layers.Flatten()(x))
    pixels = np.stack([apply_recipe(RECIPE, decode_grey(data)) for data in _image_files(48).values()])
    activations = np.asarray(features.predict_on_batch(to_network_input(pixels, RECIPE)))
    direction = activations[1::2].mean(axis=0) - activations[0::2].mean(axis=0)
    logits = activations @ direction
    kernel = (gain / logits.std() * direction)[:, None]
    bias = np.array([-gain / logits.std() * logits.mean()])
    activation = "sigmoid" if outputs == 1 else "softmax"
    model = keras.Model(image, keras.layers.Dense(outputs, activation=activation)(features.output))
    if outputs == 2:
        kernel, bias = np.hstack([0 * kernel, kernel]), np.array([0.0, bias[0]])
    model.layers[-1].set_weights([kernel, bias])
    return model


def make_metadata(name: str = "three_block", **changes: Any) -> ModelMetadata:
    """Metadata without calibration."""
    values: dict[str, Any] = {
        "model": name,
        "system": "S2",
        "recipe": RECIPE.to_dict(),
        "input_shape": RECIPE.input_shape,
        "parameters": 45,
        "seed": 0,
        "dataset": {"name": "kermany", "kind": "patients"},
        "data_digest": "d" * 64,
        "split_protocol": "70/15/15 by patient",
        "split_digest": "5" * 64,
        "data_md5": "abc.dir",
        "git_commit": "c" * 40,
        "training": {"device": CPU, "seconds": 1.5, "epochs_run": 3},
    }
    return ModelMetadata(**{**values, **changes})


@dataclass(frozen=True)
class ModelFolders:
    """Folders of a set of models."""

    models: Path
    evaluations: Path
    images: list[Path]

    @property
    def splits(self) -> Path:
        """Folder of the split on which all were evaluated; it also has one training image."""
        return self.models.with_name("splits")


def write_models(root: Path, names: Sequence[str] = ("three_block",), **changes: Any) -> ModelFolders:
    """Write model and evaluation folders for networks that were not trained but are real."""
    folders = ModelFolders(root / "models", root / "evaluations", write_images(root / "images"))
    write_splits(folders, _evaluated_network(0).predictions)
    for seed, name in enumerate(names):
        trained, evaluation = folders.models / name, folders.evaluations / name
        trained.mkdir(parents=True)
        evaluation.mkdir(parents=True)
        artifacts = _evaluated_network(seed)
        (trained / NETWORK_FILE).write_bytes(artifacts.network)
        (evaluation / "metrics.json").write_text(artifacts.metrics)
        (evaluation / "summary.json").write_text(artifacts.summary)
        artifacts.predictions.to_parquet(evaluation / "predictions.parquet")
        metadata = make_metadata(name, **changes)
        metadata.write(trained)
        metadata.with_calibration(TEMPERATURE, THRESHOLD, "chosen by hand").write(evaluation)
        (trained / "history.csv").write_text(HISTORY)
        (trained / "training.json").write_text(json.dumps({"run_id": None}))
    return folders


def write_splits(folders: ModelFolders, table: pd.DataFrame) -> None:
    """Write the split of some images, by content, with one training image more."""
    rows = table[["path", "patient", "group", "label", "subtype", "split"]]
    images = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folders.images}
    rows = rows.assign(sha256=rows["path"].map(images))
    learned = rows.iloc[[0]].assign(path="learned.png", sha256="0" * 64, patient="p", group="p", split="train")
    folders.splits.mkdir()
    pd.concat([rows, learned]).to_parquet(folders.splits / "splits.parquet", index=False)


def replace_evaluation(folders: ModelFolders, name: str, skill: float, seed: int = 0) -> dict[str, float]:
    """Replace an evaluation by one of a given skill (0 guesses, 5 is nearly always right); all its files agree."""
    table = _evaluated_network(0).predictions
    has_pneumonia = (table["label"] == PNEUMONIA).to_numpy()
    logits = skill * (2 * has_pneumonia - 1) / 2 + np.random.default_rng(seed).normal(size=len(table))
    evaluation = evaluated(table.assign(probability_raw=1 / (1 + np.exp(-logits))), resamples=20)
    folder = folders.evaluations / name
    (folder / "metrics.json").write_text(json.dumps(evaluation.report))
    (folder / "summary.json").write_text(json.dumps(evaluation.summary()))
    evaluation.predictions.to_parquet(folder / "predictions.parquet")
    metadata = ModelMetadata.read(folders.models / name)
    threshold = evaluation.operating_point.threshold
    metadata.with_calibration(evaluation.temperature, threshold, "rule").write(folder)
    return evaluation.summary()


def add_prediction_sets(evaluation: Path, normal_at_most: float, pneumonia_at_least: float) -> PredictionSets:
    """Evaluate with a coverage: write such thresholds into the card of an evaluation."""
    sets = PredictionSets(0.95, normal_at_most, pneumonia_at_least, 24, 24)
    replace(ModelMetadata.read(evaluation), prediction_sets=sets).write(evaluation)
    return sets


def add_slices(folders: ModelFolders, name: str, column: str, values: Sequence[str]) -> dict[str, Any]:
    """Evaluate the same predictions with slices of a column, one value per image in turn; returns the report."""
    folder = folders.evaluations / name
    table = pd.read_parquet(folder / "predictions.parquet")
    names = np.resize(np.array(values, dtype=object), len(table))
    table[f"slice.{column}"] = pd.Categorical(names, sorted(set(values)), ordered=True)
    evaluation = evaluated(table, resamples=20, rule="youden", slices=[column], slice_min_patients=2)
    (folder / "metrics.json").write_text(json.dumps(without_nan(evaluation.report)))
    (folder / "summary.json").write_text(json.dumps(without_nan(evaluation.summary())))
    return evaluation.report


def change_summary(folders: ModelFolders, name: str, **figures: float) -> None:
    """Change figures of an evaluation."""
    path = folders.evaluations / name / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **figures}))


@dataclass(frozen=True)
class _EvaluatedNetwork:
    """A network and its evaluation, made once per test session."""

    network: bytes
    metrics: str
    summary: str
    predictions: pd.DataFrame


@cache
def _evaluated_network(seed: int) -> _EvaluatedNetwork:
    with tempfile.TemporaryDirectory() as scratch:
        network = Path(scratch) / NETWORK_FILE
        small_network(seed).save(network)
        raw = Predictor.load(Path(scratch), make_metadata()).probabilities(
            np.stack([apply_recipe(RECIPE, decode_grey(data)) for data in _image_files(48).values()])
        )
        saved = network.read_bytes()
    names = list(_image_files(48))
    labels = [Path(name).stem.split("-")[1] for name in names]
    table = pd.DataFrame(
        {
            "path": names,
            "patient": names,
            "group": names,
            "label": labels,
            "subtype": ["normal" if label == NORMAL else "virus" for label in labels],
            "split": ["validation" if number % 8 < 4 else "test" for number in range(len(names))],
            "probability_raw": raw,
        }
    )
    evaluation = evaluated(table, resamples=20)
    raw = evaluation.predictions["probability_raw"]
    table = evaluation.predictions.assign(probability=apply_temperature(raw, TEMPERATURE))
    return _EvaluatedNetwork(saved, json.dumps(evaluation.report), json.dumps(evaluation.summary()), table)
