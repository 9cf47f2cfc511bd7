"""Small real models with their folders, as training and evaluation leave them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.evaluation.calibration import apply_temperature
from cxr.evaluation.evaluate import evaluate
from cxr.files import NETWORK_FILE
from cxr.images.decoding import decode_grey
from cxr.images.recipes import Recipe, apply, as_input
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelCard
from cxr.tracking.connection import client

RECIPE = Recipe("s2_resize", "S2", size=16, channels=1)
HISTORY = "epoch,loss,auroc,val_loss,val_auroc\n1,0.7,0.5,0.6,\n2,0.5,0.8,0.55,0.9\n3,0.4,0.9,0.5,0.95\n"
TEMPERATURE, THRESHOLD = 2.5, 0.6
"""Above 1, which is what makes rounding near 0 and 1 visible."""
CPU = {"kind": "cpu", "name": "test processor", "framework": "tensorflow", "driver": None}
GPU = {"kind": "gpu", "name": "test GPU", "framework": "tensorflow", "driver": "1.2"}


@cache
def _empty_store() -> bytes:
    """Content of a local MLflow store without runs: making one takes seconds, writing it does not."""
    with tempfile.TemporaryDirectory() as scratch:
        client(f"sqlite:///{scratch}/mlflow.db")
        return (Path(scratch) / "mlflow.db").read_bytes()


def write_store(folder: Path, name: str = "mlflow.db") -> str:
    """Write a fresh local store and give its address."""
    (folder / name).write_bytes(_empty_store())
    return f"sqlite:///{folder}/{name}"


@cache
def _pictures(count: int) -> dict[str, bytes]:
    """Grey pictures as files, with a brighter patch for pneumonia; half of them are PNG."""
    generator = np.random.default_rng(0)
    files = {}
    for number in range(count):
        picture = generator.normal(100, 25, size=(40, 52))
        if number % 2:
            picture[10:30, 8:24] += 30
        suffix = ".png" if number % 4 < 2 else ".jpeg"
        _, data = cv2.imencode(suffix, np.clip(picture, 0, 255).astype(np.uint8))
        files[f"{number:02d}-{(NORMAL, PNEUMONIA)[number % 2]}{suffix}"] = data.tobytes()
    return files


def write_images(folder: Path, count: int = 48) -> list[Path]:
    """Write the pictures; the label is in the name."""
    folder.mkdir(parents=True)
    for name, data in _pictures(count).items():
        (folder / name).write_bytes(data)
    return [folder / name for name in _pictures(count)]


def small_network(seed: int, *, outputs: int = 1, gain: float = 4.0) -> Any:
    """A random convolution, and a dense layer that tells the classes; ``gain`` makes it more sure."""
    import keras

    keras.utils.set_random_seed(seed)
    image = keras.Input(RECIPE.input_shape)
    x = keras.layers.Conv2D(8, 3, activation="relu")(image)
    features = keras.Model(image, keras.layers.Flatten()(x))
    seen = np.stack([apply(RECIPE, decode_grey(data)) for data in _pictures(48).values()])
    known = np.asarray(features.predict_on_batch(as_input(seen, RECIPE)))
    direction = known[1::2].mean(axis=0) - known[0::2].mean(axis=0)
    logits = known @ direction
    kernel = (gain / logits.std() * direction)[:, None]
    bias = np.array([-gain / logits.std() * logits.mean()])
    activation = "sigmoid" if outputs == 1 else "softmax"
    model = keras.Model(image, keras.layers.Dense(outputs, activation=activation)(features.output))
    if outputs == 2:
        kernel, bias = np.hstack([0 * kernel, kernel]), np.array([0.0, bias[0]])
    model.layers[-1].set_weights([kernel, bias])
    return model


def card(name: str = "three_block", **changes: Any) -> ModelCard:
    """A card without calibration."""
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
    return ModelCard(**{**values, **changes})


@dataclass(frozen=True)
class Folders:
    """Where a set of models lies."""

    models: Path
    evaluations: Path
    images: list[Path]

    @property
    def splits(self) -> Path:
        """Folder of the split that all were judged on; a training image of its own is in it too."""
        return self.models.with_name("splits")


def write_models(root: Path, names: Sequence[str] = ("three_block",), **changes: Any) -> Folders:
    """Write model and evaluation folders for networks that were not trained but are real."""
    folders = Folders(root / "models", root / "evaluations", write_images(root / "images"))
    write_splits(folders, _judged(0).predictions)
    for seed, name in enumerate(names):
        trained, judged = folders.models / name, folders.evaluations / name
        trained.mkdir(parents=True)
        judged.mkdir(parents=True)
        made = _judged(seed)
        (trained / NETWORK_FILE).write_bytes(made.network)
        (judged / "metrics.json").write_text(made.report)
        (judged / "summary.json").write_text(made.summary)
        made.predictions.to_parquet(judged / "predictions.parquet")
        raw_card = card(name, **changes)
        raw_card.write(trained)
        raw_card.completed(TEMPERATURE, THRESHOLD, "chosen by hand").write(judged)
        (trained / "history.csv").write_text(HISTORY)
        (trained / "training.json").write_text(json.dumps({"run_id": None}))
    return folders


def write_splits(folders: Folders, table: pd.DataFrame) -> None:
    """Write the split of some images, by content, with one training image more."""
    rows = table[["path", "patient", "group", "label", "subtype", "split"]]
    images = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folders.images}
    rows = rows.assign(sha256=rows["path"].map(images))
    learned = rows.iloc[[0]].assign(path="learned.png", sha256="0" * 64, patient="p", group="p", split="train")
    folders.splits.mkdir()
    pd.concat([rows, learned]).to_parquet(folders.splits / "splits.parquet", index=False)


def rejudge(folders: Folders, name: str, skill: float, seed: int = 0) -> dict[str, float]:
    """Replace what a model said by answers of a given skill (0 guesses, 5 is nearly always right); all files agree."""
    table = _judged(0).predictions
    sick = (table["label"] == PNEUMONIA).to_numpy()
    logits = skill * (2 * sick - 1) / 2 + np.random.default_rng(seed).normal(size=len(table))
    found = evaluate(table.assign(probability_raw=1 / (1 + np.exp(-logits))), resamples=20)
    judged = folders.evaluations / name
    (judged / "metrics.json").write_text(json.dumps(found.report))
    (judged / "summary.json").write_text(json.dumps(found.summary()))
    found.predictions.to_parquet(judged / "predictions.parquet")
    raw = ModelCard.read(folders.models / name)
    raw.completed(found.temperature, found.point.threshold, "rule").write(judged)
    return found.summary()


def set_summary(folders: Folders, name: str, **figures: float) -> None:
    """Change figures of an evaluation."""
    path = folders.evaluations / name / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **figures}))


@dataclass(frozen=True)
class _Judged:
    """A network and its evaluation, made once per test session."""

    network: bytes
    report: str
    summary: str
    predictions: pd.DataFrame


@cache
def _judged(seed: int) -> _Judged:
    with tempfile.TemporaryDirectory() as scratch:
        network = Path(scratch) / NETWORK_FILE
        small_network(seed).save(network)
        raw = Predictor.load(Path(scratch), card()).probabilities(
            np.stack([apply(RECIPE, decode_grey(data)) for data in _pictures(48).values()])
        )
        saved = network.read_bytes()
    names = list(_pictures(48))
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
    found = evaluate(table, resamples=20)
    table = found.predictions.assign(probability=apply_temperature(found.predictions["probability_raw"], TEMPERATURE))
    return _Judged(saved, json.dumps(found.report), json.dumps(found.summary()), table)
