"""Data sets as inputs of a run, for the data set column and the search of MLflow's page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cxr.models.metadata import ModelMetadata
from cxr.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CONTEXTS = {"train": "training", "validation": "validation", "test": "test"}
"""Split to the context under which MLflow's page shows it."""
OUTSIDE = "outside"
"""Context of data that a version is judged on and that it was not made from."""
COUNTS = ("images", "patients", "normal", "pneumonia")
"""Counts of a split that reports have."""
DIGEST_LETTERS = 16


@dataclass(frozen=True)
class InputData:
    """One set of images that a run has used.

    Attributes:
        name: name of the data set, and of the split if it is one.
        digest: text that changes with the images of the set.
        context: what it was used for, one of :data:`CONTEXTS` or :data:`OUTSIDE`.
        source: address of the data set, as its card spells it.
        facts: counts, and from which version and split of the data the set comes.
    """

    name: str
    digest: str
    context: str
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_mlflow(self) -> DatasetInput:
        """Convert for MLflow, whose page shows ``num_rows``."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        scheme = self.source.partition(":")[0]
        kind, key = {"s3": ("s3", "uri"), "http": ("http", "url"), "https": ("http", "url")}.get(
            scheme, ("local", "uri")
        )
        profile = {"num_rows": self.facts["images"], **self.facts} if "images" in self.facts else dict(self.facts)
        dataset = Dataset(
            self.name, self.digest[:DIGEST_LETTERS], kind, json.dumps({key: self.source}), None, json.dumps(profile)
        )
        return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, self.context)])


def split_inputs(metadata: ModelMetadata, counts: Mapping[str, Mapping[str, Any]]) -> list[InputData]:
    """Describe splits of the data set that a model was made from.

    Args:
        metadata: metadata of the model.
        counts: split to its entry in a report, of which :data:`COUNTS` are kept.

    Returns:
        One set per split.
    """
    origin = {"data_md5": metadata.data_md5, "split_protocol": metadata.split_protocol}
    return [
        InputData(
            f"{metadata.dataset['name']} {split}",
            hashlib.sha256(f"{metadata.data_digest} {metadata.split_digest} {split}".encode()).hexdigest(),
            CONTEXTS[split],
            str(metadata.dataset.get("source", "unknown")),
            {name: entry[name] for name in COUNTS if name in entry} | origin,
        )
        for split, entry in counts.items()
    ]


def training_input(metadata: ModelMetadata) -> list[InputData]:
    """Describe the training images of a model, or of the members of an ensemble.

    Args:
        metadata: metadata of the model.

    Returns:
        One set; without the number of images where it is unknown.
    """
    trainings = [metadata.training, *(member.card.training for member in metadata.weighted_members)]
    numbers = {training["train_images"] for training in trainings if training.get("train_images")}
    if len(numbers) != 1:
        return split_inputs(metadata, {"train": {}})
    (images,) = numbers
    (data,) = split_inputs(metadata, {"train": {"images": images}})
    # MLflow keeps one entry per name and digest: a part of the split must not take the entry of another part.
    return [replace(data, digest=hashlib.sha256(f"{data.digest} {images}".encode()).hexdigest())]


def log_inputs(store: Store, run_id: str, inputs: Sequence[InputData]) -> None:
    """Add data sets to a run; those that it has are not added again.

    Args:
        store: the tracking store.
        run_id: MLflow's id of the run.
        inputs: the data sets.
    """
    from mlflow.exceptions import MlflowException

    datasets = [data.to_mlflow() for data in inputs]
    try:
        store.client.log_inputs(run_id, datasets)
    except MlflowException:
        # Another process may have created the same data sets in the same moment: now they are there.
        store.client.log_inputs(run_id, datasets)
