"""The folder of a trained model that came from another machine: what its files say, and how it is copied."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.errors import CxrError, DataError
from cxr.files import HISTORY_FILE, METADATA_FILE, NETWORK_FILE, TRAINING_FILE, whole_folder, write_json
from cxr.lineage.provenance import file_digest
from cxr.models.metadata import ModelMetadata
from cxr.models.stored_files import check_digest, record_digests

MODEL_FILES = (NETWORK_FILE, METADATA_FILE, HISTORY_FILE, TRAINING_FILE)
"""Files of a trained network."""


@dataclass(frozen=True)
class ModelOrigin:
    """What the files of a trained model say about its training; nothing is checked.

    Attributes:
        metadata: its metadata.
        facts: content of ``training.json``.
        history: one row per epoch.
    """

    metadata: ModelMetadata
    facts: Mapping[str, Any]
    history: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> ModelOrigin:
        """Read the files of a trained model, except for the network.

        Args:
            folder: the model's folder.

        Returns:
            The model's origin.

        Raises:
            DataError: listing the files that are missing, and those that cannot be read.
        """
        problems = [
            f"expected the file {name}, received {folder} without it; copy the whole folder"
            for name in MODEL_FILES
            if not (folder / name).is_file()
        ]
        readers = {METADATA_FILE: _read_metadata, TRAINING_FILE: _read_facts, HISTORY_FILE: _read_history}
        contents: list[Any] = []
        for name, read in readers.items():
            if not (folder / name).is_file():
                continue
            try:
                check_digest(folder / name)
                contents.append(read(folder / name))
            except (CxrError, OSError, ValueError) as error:
                problems.append(f"expected {name} as `cxr train` writes it, received {folder / name} ({error})")
        if problems:
            raise DataError("\n".join(problems))
        return cls(*contents)

    @property
    def best_row(self) -> dict[str, float]:
        """The row of the best epoch; empty if there is no such epoch."""
        if "epoch" not in self.history:
            return {}
        rows = self.history[self.history["epoch"] == self.facts.get("best_epoch")]
        return {} if len(rows) != 1 else {str(name): float(value) for name, value in rows.iloc[0].items()}

    def sentence(self) -> str:
        """Say what the model was trained on, for how long, and how good it was on validation."""
        device = self.facts["device"]
        parts = {"name": "", "framework": "", "driver": "driver "}
        machine = ", ".join(f"{prefix}{device[key]}" for key, prefix in parts.items() if device.get(key))
        return (
            f"trained on {machine or 'an unknown device'} for {self.facts.get('seconds')} s, AUROC on validation "
            f"{self.best_row.get('val_auroc', math.nan):.4f} after epoch {self.facts.get('best_epoch')} of "
            f"{len(self.history)}"
        )


def is_copy(source: Path, target: Path, model: str) -> bool:
    """Whether a folder holds what :func:`copy_model` would write there.

    Args:
        source: the model's folder.
        target: another folder; it need not exist.
        model: name of the copy.
    """
    if not all((target / name).is_file() for name in MODEL_FILES):
        return False
    renamed = _renamed_contents(source, model)
    return all(
        json.loads((target / name).read_text(encoding="utf-8")) == renamed[name]
        if name in renamed
        else file_digest(source / name) == file_digest(target / name)
        for name in MODEL_FILES
    )


def copy_model(source: Path, target: Path, model: str) -> None:
    """Copy a trained model, whole or not at all; an older folder is replaced.

    Args:
        source: the model's folder.
        target: folder to write.
        model: name of the copy; with the name that it has, the copy holds the same bytes.

    Raises:
        DataError: if a file changed during the copy.
    """
    with whole_folder(target) as partial:
        for name in MODEL_FILES:
            digest = file_digest(source / name)
            shutil.copyfile(source / name, partial / name)
            if file_digest(partial / name) != digest:
                raise DataError(
                    f"expected a copy of {source / name} with sha256={digest}, received another one; is the folder "
                    "still being written? Run the command again"
                )
        for name, content in _renamed_contents(source, model).items():
            if json.loads((partial / name).read_text(encoding="utf-8")) != content:
                write_json(partial / name, content)
        record_digests(partial)


def _renamed_contents(folder: Path, model: str) -> dict[str, dict[str, Any]]:
    """The files of a trained model that hold its name, with another name."""
    card, facts = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (METADATA_FILE, TRAINING_FILE))
    parameters = facts["parameters"]
    if "model" in parameters:
        facts = {**facts, "parameters": {**parameters, "model": model}}
    return {METADATA_FILE: {**card, "model": model}, TRAINING_FILE: facts}


def _read_metadata(path: Path) -> ModelMetadata:
    metadata = ModelMetadata.read(path.parent)
    _check_types(vars(metadata), {"model": str, "recipe": dict, "dataset": dict, "training": dict})
    if metadata.members:
        raise ValueError("it describes an ensemble; adopt its members one by one")
    if metadata.calibrated:
        raise ValueError("it is that of an evaluation; copy the folder that `cxr train` wrote")
    return metadata


def _read_facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    _check_types({"content": facts}, {"content": dict})
    _check_types(facts, {"device": dict, "parameters": dict})
    return facts


def _read_history(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=float)


def _check_types(values: Mapping[str, Any], types: Mapping[str, type]) -> None:
    for name, kind in types.items():
        if not isinstance(values.get(name), kind):
            raise ValueError(f"expected {name} to be a {kind.__name__}, received {name}={values.get(name)!r}")
