"""The folder of a trained network: weights, metadata, history, device and settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from cxr.files import HISTORY_FILE, NETWORK_FILE, TRAINING_FILE
from cxr.images.recipes import Recipe
from cxr.models.metadata import DetectorMetadata, ModelMetadata
from cxr.models.stored_files import record_digests
from cxr.training.loop import TrainingResult
from cxr.training.split_data import SplitData


@dataclass(frozen=True)
class TrainedModel:
    """What one training produced, ready to be written.

    Attributes:
        network: the network with the weights of its best epoch.
        result: history and best epoch.
        parameters: parameters of the step that the network depends on.
        recipe: recipe of its images.
        data: split that it was trained on.
        device: the device, as :func:`cxr.training.device.describe_device` gives it.
        provenance: ``data_md5`` and the result of :func:`cxr.lineage.provenance.current_provenance`.
        run_id: tracking run, or None.
    """

    network: keras.Model
    result: TrainingResult
    parameters: dict[str, Any]
    recipe: Recipe
    data: SplitData
    device: dict[str, Any]
    provenance: Mapping[str, Any]
    run_id: str | None

    def training_facts(self) -> dict[str, Any]:
        """Describe the training, for metadata and ``training.json``.

        Returns:
            ``device``, ``epochs_run``, ``best_epoch``, ``stopped``, ``seconds`` (training alone),
            ``images_per_second``, ``train_images``, ``trainable_parameters``, ``steps_per_execution``, ``on_device``,
            ``other_share``, the share of the epochs' time that is not training; ``batch_size`` of all devices together,
            ``device_batch_size``, ``devices``, and ``device_changes``, the epochs from which on a resumed training had
            another number of devices.
        """
        seconds, other_share = self.result.train_seconds, self.result.other_share
        return {
            "device": self.device,
            "epochs_run": len(self.result.history),
            "best_epoch": self.result.best_epoch,
            "stopped": self.result.stopped,
            "seconds": round(seconds, 1),
            "images_per_second": round(self.result.train_images / seconds, 1) if seconds else None,
            "train_images": self.result.train_images // max(1, len(self.result.history)),
            "trainable_parameters": sum(math.prod(weight.shape) for weight in self.network.trainable_variables),
            "steps_per_execution": self.result.steps_per_execution,
            "on_device": self.result.on_device,
            "other_share": None if other_share is None else round(other_share, 4),
            "batch_size": self.result.batch_size,
            "device_batch_size": self.result.batch_size // self.result.devices,
            "devices": self.result.devices,
            "device_changes": [
                {"epoch": int(row["epoch"]), "devices": int(row["devices"])}
                for before, row in pairwise(self.result.history)
                if row["devices"] != before["devices"]
            ],
        }

    def write(
        self,
        folder: Path,
        model: str,
        system: str,
        seed: int,
        *,
        mirrored: bool,
        detector: DetectorMetadata | None = None,
    ) -> None:
        """Write ``model.keras``, ``card.json``, ``history.csv`` and ``training.json``, and last their digests.

        Args:
            folder: where to write; must exist.
            model: name of the model in ``params.yaml``.
            system: source system.
            seed: seed of the training.
            mirrored: whether a prediction is the mean of the image and its mirror image.
            detector: what a detector needs besides; None for a classifier.
        """
        facts = self.training_facts()
        # A copy without the compiled metrics: it can be loaded in a process that has only Keras.
        network = keras.Model.from_config(_in_float32(self.network.get_config()))
        network.set_weights(self.network.get_weights())
        network.save(folder / NETWORK_FILE)
        dataset = self.data.dataset
        ModelMetadata(
            model=model,
            system=system,
            recipe=self.recipe.to_dict(),
            input_shape=self.recipe.input_shape,
            parameters=int(self.network.count_params()),
            seed=seed,
            dataset={name: str(getattr(dataset, name)) for name in ("name", "kind", "source", "licence")},
            data_digest=self.data.data_digest,
            split_protocol=self.data.protocol,
            split_digest=self.data.digest,
            mirrored=mirrored,
            training=facts,
            detector=detector,
            **self.provenance,
        ).write(folder)
        pd.DataFrame(self.result.history).to_csv(folder / HISTORY_FILE, index=False)
        content = {**facts, "parameters": self.parameters, "run_id": self.run_id}
        (folder / TRAINING_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        record_digests(folder)


def _in_float32(values: Any) -> Any:
    """Replace mixed precision in a network's configuration, because predictions are made in float32."""
    if isinstance(values, dict):
        if values.get("class_name") == "DTypePolicy" and str(values["config"]["name"]).startswith("mixed_"):
            return {**values, "config": {**values["config"], "name": "float32"}}
        return {key: _in_float32(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(_in_float32(value) for value in values)
    return values
