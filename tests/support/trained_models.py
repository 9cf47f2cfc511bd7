"""A small model that the steps of the pipeline have trained on phantoms, with everything that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cxr.steps.preprocess import Preprocess
from cxr.steps.resplit import Resplit
from cxr.steps.train import Train
from cxr.steps.validate import Validate

MODEL = "three_block"
ENTRY = {"architecture": MODEL, "recipe": "s2_resize", "phantom_epochs": 2, "monitor": "auroc", "batch_size": 16}


@dataclass(frozen=True)
class SmallTraining:
    """Folders of a training.

    Attributes:
        root: folder of all others, and of ``params.yaml``.
        data: raw images.
    """

    root: Path
    data: Path

    @property
    def prepared(self) -> Path:
        """Folder of the prepared images."""
        return self.root / "prepared" / "s2_resize"

    @property
    def trained(self) -> Path:
        """Folder of the trained model."""
        return self.root / "trained"

    @property
    def manifest(self) -> Path:
        """Folder of the manifest."""
        return self.root / "manifest"

    @property
    def splits(self) -> Path:
        """Folder of the split."""
        return self.root / "splits"

    @property
    def params(self) -> Path:
        """The parameter file of the training."""
        return self.root / "params.yaml"


def train_small_model(root: Path, data: Path, **recipe: Any) -> SmallTraining:
    """Validate, split and prepare phantoms, and train on them; ``recipe`` changes values of s2_resize."""
    training = SmallTraining(root, data)
    values = {"size": 48, **recipe}
    training.params.write_text(
        yaml.safe_dump({"train": {"seed": 0}, "models": {MODEL: ENTRY}, "recipes": {"s2_resize": values}})
    )
    cache = {"cache": root / "cache", "image_cache": root / "image_cache"}
    Validate.build({"data": data, "manifest": training.manifest, "report": root / "report", **cache}).execute()
    Resplit.build({"manifest": training.manifest, "splits": training.splits, "max_deviation": 1}).execute()
    Preprocess.build(
        {"data": data, "manifest": training.manifest, "prepared": training.prepared, "recipe": "s2_resize", **values,
         **cache}
    ).execute()  # fmt: skip
    Train.build(
        {**ENTRY, "model": MODEL, "manifest": training.manifest, "splits": training.splits,
         "prepared": training.prepared, "trained": training.trained, "checkpoints": root / "checkpoints",
         "tracking_uri": ""}
    ).execute()  # fmt: skip
    return training
